"""/platform/dns: the issuer of certificates for the domain that tenants are served under."""

from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from opencrane.api import params
from opencrane.api.fields import EmailField, JsonObjectField, PatternField, StringField
from opencrane.api.parameters import query
from opencrane.api.responses import json_response, to_json
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from opencrane.errors import InvalidError
from operations import dns, rules
from operations.api.webhooks import UrlField
from operations.services import platform_dns

# RFC 1123, as names of Kubernetes objects are.
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ZONE_PATTERN = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SOLVER_MAX_BYTES = 65_536


class PlatformDnsBodySerializer(StrictSerializer):
    """`cloudflare` and `digitalocean` take an `apiToken`, every other provider a `solverConfig`."""

    provider = PatternField(dns.PROVIDER_PATTERN, "Has to be the name of a cert-manager DNS01 provider.", max_length=63)
    zone = PatternField(ZONE_PATTERN, "Has to be a lower-case domain; others in their xn-- form.", max_length=253)
    email = EmailField()
    server = UrlField(
        max_length=rules.URL_MAX, required=False, allow_null=True, help_text=f"{dns.DEFAULT_SERVER}, if absent."
    )
    issuer_name = PatternField(
        NAME_PATTERN,
        "Has to be the name of a Kubernetes object.",
        max_length=240,
        required=False,
        allow_null=True,
        help_text=f"{dns.DEFAULT_ISSUER}, if absent.",
    )
    api_token = StringField(
        max_length=4096, required=False, allow_null=True, write_only=True, help_text="It never comes back."
    )
    solver_config = JsonObjectField(
        required=False, allow_null=True, help_text="What cert-manager's documentation has below the provider's name."
    )

    def validate_solver_config(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(to_json(value)) > SOLVER_MAX_BYTES:
            raise serializers.ValidationError(f"Has to be at most {SOLVER_MAX_BYTES} bytes of JSON.")
        return value


class IssuerConditionSerializer(ResponseSerializer):
    type = serializers.CharField()
    status = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    last_transition_time = serializers.CharField(allow_null=True)


class _IssuerSerializer(ResponseSerializer):
    issuer_name = serializers.CharField()
    issuer_kind = serializers.ChoiceField(choices=[dns.CLUSTER_ISSUER, dns.ISSUER])
    issuer_namespace = serializers.CharField(allow_null=True, help_text="Null for a ClusterIssuer.")


class PlatformDnsSerializer(_IssuerSerializer):
    configured = serializers.BooleanField(help_text="Whether the cluster has the issuer.")
    provider = serializers.CharField(allow_null=True)
    zone = serializers.CharField(allow_null=True)
    email = serializers.CharField(allow_null=True)
    server = serializers.CharField(allow_null=True)
    secret_name = serializers.CharField(allow_null=True, help_text="The Secret with the provider's token.")
    solver_config = JsonObjectField(allow_null=True)
    conditions = IssuerConditionSerializer(many=True)


class PlatformDnsStatusSerializer(_IssuerSerializer):
    status = serializers.ChoiceField(choices=["created", "updated"])
    provider = serializers.CharField()
    zone = serializers.CharField()
    secret_name = serializers.CharField(allow_null=True)


class PlatformDnsViewSet(ApiViewSet):
    resource: ClassVar[str] = "platform-dns"
    failures = {"show": ("502",), "configure": ("409", "422", "502", "503", "504")}

    @extend_schema(
        operation_id="platform_dns_show",
        summary="Show the issuer",
        parameters=[query("issuerName", f"{dns.DEFAULT_ISSUER}, if absent.")],
        responses=PlatformDnsSerializer,
    )
    def show(self, request: ApiRequest) -> HttpResponse:
        """As the cluster has it, whoever made it."""
        name = params.text(request, "issuerName", max_length=240) or ""
        try:
            PatternField(NAME_PATTERN, "Has to be the name of a Kubernetes object.").run_validation(
                name or dns.DEFAULT_ISSUER
            )
        except serializers.ValidationError as exc:
            raise InvalidError(fields={"issuerName": ["Has to be the name of a Kubernetes object."]}) from exc
        return json_response(platform_dns.platform_dns(name))

    @extend_schema(
        operation_id="platform_dns_configure",
        summary="Make or change the issuer",
        request=PlatformDnsBodySerializer,
        responses=PlatformDnsStatusSerializer,
    )
    def configure(self, request: ApiRequest) -> HttpResponse:
        values = self.parsed_body(PlatformDnsBodySerializer)
        return json_response(platform_dns.configure_dns(values=values, actor=self.actor))
