"""Bodies and answers of the policies and groups APIs."""

from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import validate_email
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from cluster.models import SYNC_STATES
from opencrane.api.fields import (
    BooleanField,
    ChoiceField,
    JsonObjectField,
    RuledField,
    StringField,
    StringListField,
    choices_of,
)
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from operations.api.dualwritten import NameField, SyncSerializer
from policies import rules
from policies.api.grants import OPTIONAL, SCOPES, GrantAnswerSerializer, grants_field


@extend_schema_field({"type": "string", "maxLength": rules.DOMAIN_MAX + 2, "examples": ["*.example.com"]})
class DomainField(RuledField):
    def normal(self, text: str) -> str:
        return rules.domain(text)


@extend_schema_field({"type": "string", "maxLength": 64, "examples": ["10.0.0.0/8", "2001:db8::/32"]})
class NetworkField(RuledField):
    def normal(self, text: str) -> str:
        return rules.network(text)


class _LabelValueField(RuledField):
    def normal(self, text: str) -> str:
        return rules.label_value(text)


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string", "maxLength": rules.LABEL_MAX}})
class LabelsField(serializers.Field[Any, Any, Any, Any]):
    """Kubernetes labels."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("Has to be a JSON object.")
        errors: dict[str, list[str]] = {}
        for key, value in data.items():
            try:
                rules.label_key(key)
                rules.label_value(value)
            except ValueError as exc:
                errors[key or "(empty)"] = [str(exc)]
        if errors:
            raise serializers.ValidationError(errors)
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class TenantSelectorSerializer(StrictSerializer):
    """Which tenants a policy is for: every part that is there has to fit, and an empty selector picks everybody."""

    match_labels = LabelsField(**OPTIONAL)
    match_team = _LabelValueField(max_length=rules.LABEL_MAX, **OPTIONAL)


class DomainPolicySerializer(StrictSerializer):
    allow = StringListField(DomainField(), max_items=rules.MAX_ITEMS, **OPTIONAL)
    deny = StringListField(DomainField(), max_items=rules.MAX_ITEMS, **OPTIONAL)
    default_deny = BooleanField(**OPTIONAL)


_DOMAIN = {"type": "string", "maxLength": rules.DOMAIN_MAX + 2}
_DOMAINS = {"type": "array", "maxItems": rules.MAX_ITEMS, "items": _DOMAIN}


@extend_schema_field(
    {
        "oneOf": [
            _DOMAINS,
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {"allow": _DOMAINS, "deny": _DOMAINS, "defaultDeny": {"type": "boolean"}},
            },
            {"type": "null"},
        ],
        "description": "A bare list means `allow`, and leaves `deny` and `defaultDeny` alone.",
    }
)
class DomainsField(serializers.Field[Any, Any, Any, Any]):
    """A bare list of allowed domains, or the object with all three parts."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, list):
            return StringListField(DomainField(), max_items=rules.MAX_ITEMS).run_validation(data)
        return _parts(DomainPolicySerializer, data)

    def to_representation(self, value: Any) -> Any:
        return value


def _parts(serializer_class: Any, data: Any) -> dict[str, Any]:
    """An object's parts by their outside names, without nulls."""
    serializer = serializer_class(data=data)
    serializer.is_valid(raise_exception=True)
    outside = {field.source: name for name, field in serializer.fields.items()}
    return {outside[key]: value for key, value in serializer.validated_data.items() if value is not None}


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": 65535})
class PortField(serializers.Field[Any, Any, Any, Any]):
    def to_internal_value(self, data: Any) -> int:
        try:
            return rules.port(data)
        except ValueError as exc:
            raise serializers.ValidationError(str(exc)) from exc

    def to_representation(self, value: Any) -> Any:
        return value


class EgressRuleSerializer(StrictSerializer):
    cidr = NetworkField()
    ports = serializers.ListField(
        child=PortField(), max_length=rules.MAX_PORTS, **OPTIONAL, help_text="Every port, if empty or absent."
    )
    protocol = ChoiceField(choices=choices_of(rules.PROTOCOLS), **OPTIONAL, help_text="TCP where it is absent.")


class McpServersSerializer(StrictSerializer):
    """Names of MCP servers. An empty or absent `allow` restricts nothing, `deny` removes."""

    allow = StringListField(max_items=rules.MAX_ITEMS, **OPTIONAL)
    deny = StringListField(max_items=rules.MAX_ITEMS, **OPTIONAL)


class UpdatePolicySerializer(StrictSerializer):
    """Only the fields that are present change; null clears."""

    description = StringField(max_length=rules.DESCRIPTION_MAX, **OPTIONAL)
    tenant_selector = TenantSelectorSerializer(
        **OPTIONAL, help_text="Absent or null picks nobody: the policy is then for tenants that name it."
    )
    domains = DomainsField(**OPTIONAL)
    domain_policy = DomainPolicySerializer(**OPTIONAL)
    egress_rules = serializers.ListField(child=EgressRuleSerializer(), max_length=rules.MAX_ITEMS, **OPTIONAL)
    mcp_servers = McpServersSerializer(**OPTIONAL)

    def validate_tenant_selector(self, value: Any) -> Any:
        return _outside(value, {"match_labels": "matchLabels", "match_team": "matchTeam"})

    def validate_domain_policy(self, value: Any) -> Any:
        return _outside(value, {"default_deny": "defaultDeny"})

    def validate_mcp_servers(self, value: Any) -> Any:
        return _outside(value, {})

    def validate_egress_rules(self, value: Any) -> Any:
        if value is None:
            return None
        # The definition's default is written out, so that row and cluster read the same.
        return [
            {
                "cidr": rule["cidr"],
                **({"ports": list(dict.fromkeys(rule["ports"]))} if rule.get("ports") else {}),
                "protocol": rule.get("protocol") or "TCP",
            }
            for rule in value
        ]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "domain_policy" in attrs:
            whole = attrs.pop("domain_policy")
            listed = attrs.get("domains", whole)
            if isinstance(listed, list):
                listed = (whole or {}) | {"allow": listed}
            if listed != whole:
                raise serializers.ValidationError({"domains": ["Says something else than domainPolicy."]})
            attrs["domains"] = whole
        return attrs


class CreatePolicySerializer(UpdatePolicySerializer):
    name = NameField(max_length=rules.NAME_MAX)


def _outside(value: dict[str, Any] | None, names: dict[str, str]) -> dict[str, Any] | None:
    if value is None:
        return None
    return {names.get(key, key): item for key, item in value.items() if item is not None}


class MemberField(StringField):
    """A tenant's name or an e-mail address, which becomes lower case."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if "@" not in text:
            return text
        try:
            validate_email(text)
        except DjangoValidationError as exc:
            raise serializers.ValidationError("Has to be a tenant's name or an e-mail address.") from exc
        return text.lower()


class UpdateGroupSerializer(StrictSerializer):
    """Only the fields that are present change; a list of members or grants replaces the old one whole."""

    name = StringField(max_length=253, required=False)
    scope = ChoiceField(choices=choices_of(SCOPES), **OPTIONAL, help_text="`org` where it is absent.")
    description = StringField(max_length=2000, **OPTIONAL)
    members = StringListField(
        MemberField(max_length=254), max_items=10_000, **OPTIONAL, help_text="Names of tenants, e-mail addresses."
    )
    grants = grants_field()
    awareness_grants = grants_field()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "awareness_grants" in attrs:
            alias = attrs.pop("awareness_grants")
            if attrs.get("grants", alias) != alias:
                raise serializers.ValidationError({"awarenessGrants": ["Says something else than grants."]})
            attrs["grants"] = alias
        return attrs


class CreateGroupSerializer(UpdateGroupSerializer):
    name = StringField(max_length=253)


# -- answers; selectors and views build them, these describe them -----------------------------------------------------


class PolicyItemSerializer(ResponseSerializer):
    name = serializers.CharField()
    namespace = serializers.CharField()
    description = serializers.CharField(allow_null=True)
    tenant_selector = JsonObjectField(allow_null=True, help_text="Null picks nobody, an empty one everybody.")
    domains = serializers.ListField(child=serializers.CharField(), help_text="The allowed ones.")
    egress_rules = serializers.ListField(child=JsonObjectField())
    mcp_servers = JsonObjectField()
    sync = serializers.ChoiceField(choices=SYNC_STATES)
    created_at = serializers.DateTimeField()


class DomainsAnswerSerializer(ResponseSerializer):
    allow = serializers.ListField(child=serializers.CharField())
    deny = serializers.ListField(child=serializers.CharField())
    default_deny = serializers.BooleanField()


class PolicySerializer(PolicyItemSerializer):
    """A policy: everything that can be written, and what the cluster says."""

    id = serializers.UUIDField()
    domain_policy = DomainsAnswerSerializer()
    tenant_count = serializers.IntegerField(help_text="Tenants it is for, counted to 1000.")
    tenant_count_is_capped = serializers.BooleanField()
    sync = SyncSerializer()  # type: ignore[assignment]
    status = JsonObjectField(help_text="The custom resource's status as last seen.")
    labels = JsonObjectField(help_text="The custom resource's labels as last seen.")
    updated_at = serializers.DateTimeField()


class PolicyStatusSerializer(ResponseSerializer):
    name = serializers.CharField()
    status = serializers.ChoiceField(choices=["created", "updated", "deleted"])


class ReachedTenantSerializer(ResponseSerializer):
    name = serializers.CharField()
    display_name = serializers.CharField()
    team = serializers.CharField(allow_null=True)
    via = serializers.ChoiceField(choices=["policyRef", "tenantSelector"])


class GroupSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    scope = serializers.ChoiceField(choices=choices_of(SCOPES))
    description = serializers.CharField(allow_null=True)
    member_count = serializers.IntegerField()
    members = serializers.ListField(child=serializers.CharField())
    grants = GrantAnswerSerializer(many=True)
    awareness_grants = GrantAnswerSerializer(many=True, help_text="The same list as `grants`.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class GroupStatusSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["deleted"])
