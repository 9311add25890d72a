"""Bodies and answers of the tenants API."""

from typing import Any

from rest_framework import serializers

from cluster.models import SYNC_STATES
from opencrane.api.fields import (
    BooleanField,
    ChoiceField,
    EmailField,
    JsonObjectField,
    LabelValueField,
    MoneyField,
    PatternField,
    QuantityField,
    StringField,
    StringListField,
    UuidField,
)
from opencrane.api.responses import to_json
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from operations.api.dualwritten import NameField, SyncSerializer
from policies.api.grants import GrantSerializer
from policies.models import Grant
from tenants import rules
from tenants.models import Phase
from tenants.selectors import ORG_DATASETS

OPTIONAL: dict[str, Any] = {"required": False, "allow_null": True}


class AmountField(QuantityField):
    """A quantity; Kubernetes takes `cpu: 2` for `"2"`, and so do we."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        is_count = isinstance(data, int) and not isinstance(data, bool) and data >= 0
        return super().run_validation(str(data) if is_count else data)


class TenantResourcesSerializer(StrictSerializer):
    cpu = AmountField(**OPTIONAL)
    memory = AmountField(**OPTIONAL)


class McpPolicySerializer(StrictSerializer):
    allow = StringListField(**OPTIONAL)
    deny = StringListField(**OPTIONAL)


class _TenantFields(StrictSerializer):
    """What both creating and changing a tenant take."""

    team = LabelValueField(**OPTIONAL)
    monthly_budget_usd = MoneyField(max_value=rules.BUDGET_MAX, **OPTIONAL)
    resources = TenantResourcesSerializer(**OPTIONAL)
    skill_allowlist = StringListField(
        **OPTIONAL, help_text="Names of skills; absent means every skill the tenant is entitled to."
    )
    policy_ref = StringField(max_length=rules.ITEM_MAX, **OPTIONAL, help_text="Name of an AccessPolicy.")
    config_overrides = JsonObjectField(**OPTIONAL)
    openclaw_version = PatternField(rules.VERSION_PATTERN, "Has to be an image tag.", max_length=128, **OPTIONAL)
    openclaw_image = PatternField(
        rules.IMAGE_PATTERN, "Has to be an image reference.", max_length=rules.IMAGE_MAX, **OPTIONAL
    )
    cluster_tenant_ref = StringField(max_length=rules.ITEM_MAX, **OPTIONAL, help_text="Name of a ClusterTenant.")
    mcp_policy = McpPolicySerializer(**OPTIONAL)
    awareness_wave = StringField(max_length=rules.LABEL_MAX, **OPTIONAL)

    def validate_resources(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return _without_nulls(value)

    def validate_mcp_policy(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return _without_nulls(value)

    def validate_config_overrides(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(to_json(value)) > rules.OVERRIDES_MAX_BYTES:
            raise serializers.ValidationError(f"Has to be at most {rules.OVERRIDES_MAX_BYTES} bytes of JSON.")
        return value


class CreateTenantSerializer(_TenantFields):
    name = NameField(max_length=rules.NAME_MAX)
    display_name = StringField(max_length=rules.DISPLAY_NAME_MAX)
    email = EmailField()
    suspended = BooleanField(required=False)
    adopt_retained = BooleanField(
        required=False,
        help_text="Take over the data that a deleted tenant of this name has left. Only an administrator may say so.",
    )


class UpdateTenantSerializer(_TenantFields):
    """Only the fields that are present change; null clears an optional one."""

    display_name = StringField(max_length=rules.DISPLAY_NAME_MAX, required=False)
    email = EmailField(required=False)
    suspended = BooleanField(required=False)


class ReasonSerializer(StrictSerializer):
    reason = StringField(max_length=500, **OPTIONAL, help_text="Why; goes into the audit trail.")


class DatasetsSerializer(StrictSerializer):
    """All four lists; `org` holds `default` whatever is sent."""

    org = StringListField()
    team = StringListField()
    project = StringListField()
    personal = StringListField()

    def validate_org(self, value: list[str]) -> list[str]:
        if not set(value) <= set(ORG_DATASETS):
            raise serializers.ValidationError("May only hold the dataset `default`.")
        return list(ORG_DATASETS)


def _without_nulls(value: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else {key: item for key, item in value.items() if item is not None}


# -- answers; selectors and views build them, these describe them -----------------------------------------------------


class TenantItemSerializer(ResponseSerializer):
    name = serializers.CharField()
    display_name = serializers.CharField()
    email = serializers.EmailField()
    team = serializers.CharField(allow_null=True)
    phase = serializers.ChoiceField(choices=Phase.choices)
    ingress_host = serializers.CharField(allow_null=True)
    suspended = serializers.BooleanField()
    sync = serializers.ChoiceField(choices=SYNC_STATES, help_text="Whether the cluster has followed the row.")
    created_at = serializers.DateTimeField()


class TenantSerializer(ResponseSerializer):
    """A tenant: everything that can be written, and what the cluster says."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    display_name = serializers.CharField()
    email = serializers.EmailField()
    team = serializers.CharField(allow_null=True)
    phase = serializers.ChoiceField(choices=Phase.choices)
    ingress_host = serializers.CharField(allow_null=True)
    suspended = serializers.BooleanField()
    monthly_budget_usd = serializers.FloatField(allow_null=True)
    resources = TenantResourcesSerializer(allow_null=True)
    skill_allowlist = serializers.ListField(child=serializers.CharField(), allow_null=True)
    policy_ref = serializers.CharField(allow_null=True)
    config_overrides = JsonObjectField(allow_null=True)
    openclaw_version = serializers.CharField(allow_null=True)
    openclaw_image = serializers.CharField(allow_null=True)
    cluster_tenant_ref = serializers.CharField(allow_null=True)
    mcp_policy = McpPolicySerializer(allow_null=True)
    awareness_wave = serializers.CharField(allow_null=True)
    sync = SyncSerializer()
    status = JsonObjectField(help_text="The custom resource's status as last seen.")
    labels = JsonObjectField(help_text="The custom resource's labels as last seen.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class TenantStatusSerializer(ResponseSerializer):
    name = serializers.CharField()
    status = serializers.ChoiceField(choices=["created", "updated", "deleted", "suspended", "resumed"])


class RetainedDataSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    tenant = serializers.CharField(help_text="Name of the tenant that has left it.")
    namespace = serializers.CharField()
    volume_claim = serializers.CharField()
    key_secret = serializers.CharField()
    status = serializers.ChoiceField(choices=["retained", "deleting"])
    error = serializers.CharField(allow_null=True, help_text="Why it could not be deleted yet.")
    created_at = serializers.DateTimeField()


class RetainedDataStatusSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["deleted"])


class AccessPreviewSerializer(StrictSerializer):
    """A question with a change that is not made: a grant more, saved grants less."""

    type = ChoiceField(choices=Grant.PayloadType.choices)
    payload = StringField(
        max_length=253,
        help_text="An MCP server's id or name; the name of a dataset; a bundle's id, `name@version` or name.",
    )
    grant = GrantSerializer(**OPTIONAL)
    without = serializers.ListField(
        child=UuidField(), max_length=1000, **OPTIONAL, help_text="Ids of grants to leave out."
    )


class ConsideredGrantSerializer(ResponseSerializer):
    grant_id = serializers.UUIDField(allow_null=True, help_text="Null for a grant that is only looked at.")
    access = serializers.ChoiceField(choices=Grant.Access.choices)
    scope = serializers.CharField()
    priority = serializers.IntegerField()
    note = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField(allow_null=True)
    subject_type = serializers.ChoiceField(choices=Grant.SubjectType.choices)
    group_id = serializers.UUIDField(allow_null=True)
    group_name = serializers.CharField(allow_null=True)
    member = serializers.CharField(allow_null=True, help_text="How the tenant is in that group: name or e-mail.")
    verdict = serializers.ChoiceField(choices=["decides", "outranked"])
    why = serializers.CharField()


class PayloadSerializer(ResponseSerializer):
    id = serializers.CharField()
    name = serializers.CharField()


class AccessSerializer(ResponseSerializer):
    """Whether a tenant may use something, and why."""

    tenant = serializers.CharField()
    type = serializers.ChoiceField(choices=Grant.PayloadType.choices)
    payload = PayloadSerializer()
    decision = serializers.ChoiceField(choices=Grant.Access.choices)
    reason = serializers.CharField()
    winner = ConsideredGrantSerializer(allow_null=True)
    considered = ConsideredGrantSerializer(many=True, help_text="Every grant that meets the tenant, in order.")
    cuts = serializers.ListField(child=serializers.CharField(), help_text="What decides after the grants.")
    preview = serializers.BooleanField()


class EffectiveContractSerializer(ResponseSerializer):
    contract_id = serializers.CharField(help_text="SHA-256 of the canonical JSON of everything else.")
    contract_version = serializers.CharField()
    tenant = JsonObjectField()
    awareness = JsonObjectField()
    mcp = JsonObjectField()
    skills = JsonObjectField()
