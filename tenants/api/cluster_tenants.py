"""/cluster-tenants: parse, call one service, answer."""

from functools import partial
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action

from cluster.quantities import parse_quantity
from opencrane.api import params
from opencrane.api.fields import (
    ChoiceField,
    IntegerField,
    PatternField,
    QuantityField,
    StringField,
    choices_of,
)
from opencrane.api.parameters import CURSOR, IF_MATCH, IF_NONE_MATCH, LIMIT, query
from opencrane.api.responses import check_if_match, json_response, tagged_response
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from opencrane.api.viewsets import ApiRequest
from operations.api.dualwritten import DualWrittenViewSet, NameField, SyncSerializer
from tenants import cluster_rules as rules
from tenants import selectors
from tenants.api.serializers import OPTIONAL
from tenants.capacity import capacities
from tenants.cluster_presentation import cluster_tenant_detail, status_of
from tenants.models import ClusterTenant
from tenants.services import cluster_tenants

PHASES = ("pending", "provisioning", "ready", "failed")


class AmountField(QuantityField):
    """A quantity that a cluster could have; a number counts as its text, as in Kubernetes."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        is_count = isinstance(data, int) and not isinstance(data, bool) and data >= 0
        value = super().run_validation(str(data) if is_count else data)
        if isinstance(value, str):
            try:
                parse_quantity(value)
            except ValueError as exc:
                raise serializers.ValidationError(str(exc)) from exc
        return value


class QuotaSerializer(StrictSerializer):
    """What all workloads of the cluster tenant together may ask for; what is absent is not limited."""

    cpu = AmountField(**OPTIONAL)
    memory = AmountField(**OPTIONAL)
    pods = IntegerField(min_value=0, max_value=rules.COUNT_MAX, **OPTIONAL)
    storage = AmountField(**OPTIONAL)
    gpu = IntegerField(min_value=0, max_value=rules.COUNT_MAX, **OPTIONAL)


class ResourcesSerializer(StrictSerializer):
    quota = QuotaSerializer()

    def validate_quota(self, value: dict[str, Any]) -> dict[str, Any]:
        return {key: amount for key, amount in value.items() if amount is not None}


class ComputeSerializer(StrictSerializer):
    """Which nodes: those of everybody, or those of a pool."""

    mode = ChoiceField(choices=choices_of(rules.MODES))
    node_pool = PatternField(
        rules.POOL_PATTERN, "Has to be a Kubernetes label value.", max_length=rules.POOL_MAX, **OPTIONAL
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        pool = attrs.get("node_pool")
        if attrs["mode"] == "dedicated" and not pool:
            raise serializers.ValidationError({"nodePool": ["Mode dedicated needs a node pool."]})
        return {"mode": attrs["mode"]} | ({"nodePool": pool} if pool else {})


class DomainField(PatternField):
    """A lower-case domain, or empty for none."""

    def __init__(self, **kwargs: Any) -> None:
        message = "Has to be a lower-case domain; names in other scripts in their xn-- form."
        super().__init__(rules.DOMAIN_PATTERN, message, max_length=rules.DOMAIN_MAX, allow_blank=True, **kwargs)


class CreateClusterTenantSerializer(StrictSerializer):
    name = NameField(max_length=rules.NAME_MAX)
    display_name = StringField(max_length=rules.DISPLAY_NAME_MAX)
    base_domain = DomainField(**OPTIONAL)
    isolation_tier = ChoiceField(choices=choices_of(ClusterTenant.IsolationTier.values))
    compute = ComputeSerializer()
    resources = ResourcesSerializer()


class UpdateClusterTenantSerializer(StrictSerializer):
    """Only the fields that are present change; null clears the domain."""

    display_name = StringField(max_length=rules.DISPLAY_NAME_MAX, required=False)
    base_domain = DomainField(**OPTIONAL)
    isolation_tier = ChoiceField(choices=choices_of(ClusterTenant.IsolationTier.values), required=False)
    compute = ComputeSerializer(required=False)
    resources = ResourcesSerializer(required=False)


class ClusterTenantStatusSerializer(ResponseSerializer):
    phase = serializers.ChoiceField(choices=choices_of(PHASES))
    message = serializers.CharField(required=False)
    bound_namespace = serializers.CharField(required=False)
    provisioner = serializers.CharField(help_text="`shared`, built in, or `external`.")
    kubeconfig_secret_ref = serializers.CharField(required=False, help_text="Where the kubeconfig is, never what.")


class ClusterTenantSerializer(ResponseSerializer):
    """A cluster tenant: everything that can be written, and what has become of it."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    display_name = serializers.CharField()
    base_domain = serializers.CharField(help_text="Empty for none.")
    isolation_tier = serializers.ChoiceField(choices=ClusterTenant.IsolationTier.choices)
    compute = ComputeSerializer()
    resources = ResourcesSerializer()
    status = ClusterTenantStatusSerializer()
    sync = SyncSerializer()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ClusterTenantDeletedSerializer(ResponseSerializer):
    name = serializers.CharField()
    status = serializers.ChoiceField(choices=["deleted", "updated"])


class MeasureSerializer(ResponseSerializer):
    name = serializers.ChoiceField(choices=["cpu", "memory", "pods"])
    requested = serializers.FloatField(help_text="Cores, bytes or pods.")
    quota = serializers.FloatField(allow_null=True)
    percent = serializers.FloatField(allow_null=True)
    over = serializers.BooleanField()


class CapacitySerializer(ResponseSerializer):
    """The quota against what the tenants that are not suspended ask for."""

    tenants = serializers.IntegerField()
    unspecified = serializers.IntegerField(help_text="Tenants that name no CPU or no memory; they count as nothing.")
    measures = MeasureSerializer(many=True)


class ClusterTenantViewSet(DualWrittenViewSet):
    kind = "ClusterTenant"
    resource = "cluster-tenants"
    serializer_class = ClusterTenantSerializer
    failures = {**DualWrittenViewSet.failures, "sync": ("409", "422", "502", "504")}

    @extend_schema(
        parameters=[
            query("q", "Text in the name, the display name or the domain."),
            query("tier", "Only this isolation tier.", enum=ClusterTenant.IsolationTier.values),
            query("phase", "Only this phase.", enum=PHASES),
            LIMIT,
            CURSOR,
        ],
        responses={200: ClusterTenantSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        filters = {"q": text} if (text := params.text(request, "q")) else {}
        if tier := params.choice(request, "tier", ClusterTenant.IsolationTier.values):
            filters["tier"] = tier
        if phase := params.choice(request, "phase", PHASES):
            filters["phase"] = phase
        found = selectors.cluster_tenants_matching(filters)
        rows, headers = selectors.CLUSTER_TENANTS_NEWEST.read(request, found)
        return json_response([cluster_tenant_detail(row) for row in rows], headers=headers)

    @extend_schema(request=CreateClusterTenantSerializer, responses={201: ClusterTenantSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        """Answered once the cluster has the resource; its place is then made in the background, see `status`."""
        values = self.spec(CreateClusterTenantSerializer)
        name = values.pop("name")
        cluster_tenants.create_cluster_tenant(name=name, values=values, actor=self.actor).wait()
        return self._shown(name, status=201)

    @extend_schema(parameters=[IF_NONE_MATCH], responses={200: ClusterTenantSerializer})
    def retrieve(self, request: ApiRequest, name: str) -> HttpResponse:
        row = selectors.cluster_tenant_named(name)
        return tagged_response(request, row.etag, cluster_tenant_detail(row))

    @extend_schema(
        request=UpdateClusterTenantSerializer, parameters=[IF_MATCH], responses={200: ClusterTenantSerializer}
    )
    def update(self, request: ApiRequest, name: str) -> HttpResponse:
        cluster_tenants.update_cluster_tenant(
            name=name,
            changes=self.spec(UpdateClusterTenantSerializer),
            precondition=partial(check_if_match, request),
            actor=self.actor,
        ).wait()
        return self._shown(name)

    @extend_schema(
        parameters=[
            IF_MATCH,
            OpenApiParameter(
                "purge",
                {"type": "boolean", "default": False},
                description="Delete the namespace too, and everything in it.",
            ),
            OpenApiParameter("reason", str, description="Why; goes into the audit trail."),
        ],
        responses={200: ClusterTenantDeletedSerializer},
    )
    def destroy(self, request: ApiRequest, name: str) -> HttpResponse:
        """Refused with 409 while tenants refer to it; `detail` lists up to ten of them."""
        write = cluster_tenants.delete_cluster_tenant(
            name=name,
            purge=params.boolean(request, "purge", default=False),
            reason=params.text(request, "reason") or "",
            precondition=partial(check_if_match, request),
            actor=self.actor,
        )
        return self.confirmed(write, name, "deleted")

    @extend_schema(responses={200: ClusterTenantStatusSerializer})
    @action(detail=True, methods=["get"])
    def status(self, request: ApiRequest, name: str) -> HttpResponse:
        return json_response(status_of(selectors.cluster_tenant_named(name)))

    @extend_schema(responses={200: CapacitySerializer})
    @action(detail=True, methods=["get"])
    def capacity(self, request: ApiRequest, name: str) -> HttpResponse:
        """The quota against what its tenants ask for."""
        row = selectors.cluster_tenant_named(name)
        return json_response(capacities([row])[name].as_json())

    @extend_schema(request=None, responses={200: ClusterTenantDeletedSerializer})
    @action(detail=True, methods=["post"])
    def sync(self, request: ApiRequest, name: str) -> HttpResponse:
        """Apply the row again, and have its place looked at."""
        return self.confirmed(cluster_tenants.resync_cluster_tenant(name=name, actor=self.actor), name, "updated")

    def _shown(self, name: str, status: int = 200) -> HttpResponse:
        row = selectors.cluster_tenant_named(name)
        return json_response(cluster_tenant_detail(row), status=status, headers={"ETag": row.etag})
