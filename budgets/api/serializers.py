"""Bodies and answers of the API of money."""

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from budgets import rules
from budgets.models import LitellmKey, TokenUsage
from budgets.services.keys import MAX_GRACE_SECONDS
from opencrane.api.fields import DateTimeField, IntegerField, MoneyField, PatternField, StringField
from opencrane.api.serializers import ResponseSerializer, StrictSerializer

MAX_RECORDS = 1000


class BudgetBodySerializer(StrictSerializer):
    monthly_limit_usd = MoneyField(help_text="US dollars for a calendar month (UTC); 0 is no ceiling.")


class BudgetSerializer(ResponseSerializer):
    monthly_limit_usd = serializers.FloatField(help_text="0 is no ceiling.")
    current_spend_usd = serializers.FloatField(help_text="Of this calendar month, UTC.")
    budget_alert_state = serializers.ChoiceField(
        choices=rules.ALERT_STATES, help_text="ok < 80 % ≤ warning < 100 % ≤ exceeded."
    )


class AccountBudgetSerializer(BudgetSerializer):
    user_id = serializers.CharField(help_text="An e-mail; the spend is that of all tenants that have it.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class AccountBudgetStatusSerializer(ResponseSerializer):
    user_id = serializers.CharField()
    status = serializers.ChoiceField(choices=["deleted"])


class TenantSpendSerializer(BudgetSerializer):
    tenant = serializers.CharField()
    stale = serializers.BooleanField(help_text="Whether LiteLLM did not answer, and this is what was known last.")
    origin = serializers.ChoiceField(choices=["litellm", "ledger"])
    as_of = serializers.DateTimeField()


class LitellmKeySerializer(ResponseSerializer):
    """Everything about a key but the key: that is in its Secret alone."""

    tenant = serializers.CharField()
    key_alias = serializers.CharField()
    secret_name = serializers.CharField()
    namespace = serializers.CharField()
    monthly_budget_usd = serializers.FloatField(
        allow_null=True, help_text="What LiteLLM has been told to enforce; null is no ceiling."
    )
    issued_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)
    state = serializers.ChoiceField(choices=LitellmKey.State.choices)
    drift = serializers.CharField(allow_null=True, help_text="What LiteLLM or the Secret has otherwise than meant.")
    checked_at = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField(allow_null=True, help_text="Why the last step failed; it is tried again.")
    failing_since = serializers.DateTimeField(allow_null=True)


class RotateKeySerializer(StrictSerializer):
    grace_seconds = IntegerField(
        min_value=0,
        max_value=MAX_GRACE_SECONDS,
        required=False,
        allow_null=True,
        help_text="How long the old key goes on working; `OPENCRANE_LITELLM_GRACE_SECONDS` when absent.",
    )


class TokenUsageSerializer(ResponseSerializer):
    tenant = serializers.CharField(help_text="As reported; empty when nobody said.")
    tenant_id = serializers.UUIDField(allow_null=True, help_text="null is unattributed.")
    model = serializers.CharField()
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    total_cost_usd = serializers.FloatField()
    recorded_at = serializers.DateTimeField()
    request_id = serializers.CharField()
    origin = serializers.ChoiceField(choices=TokenUsage.Source.choices)
    corrected_at = serializers.DateTimeField(allow_null=True)


class ProviderKeyBodySerializer(StrictSerializer):
    api_key = PatternField(
        "^[!-~]+$",
        "Has to be printable ASCII without spaces.",
        min_length=rules.KEY_MIN,
        max_length=rules.KEY_MAX,
        write_only=True,
        help_text="Kept sealed; never given back.",
    )


class ProviderKeySerializer(ResponseSerializer):
    provider = serializers.CharField()
    configured = serializers.BooleanField()
    updated_at = serializers.DateTimeField(allow_null=True)


class ProviderKeyTestSerializer(ProviderKeySerializer):
    passed = serializers.BooleanField(allow_null=True, help_text="null: the provider did not say.")
    result = serializers.CharField()
    tested_at = serializers.DateTimeField()


class CostField(serializers.Field[Any, Any, Any, Any]):
    """What a call cost: a JSON number of dollars, rounded to ten places."""

    def to_internal_value(self, data: Any) -> Decimal:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("Has to be a number.")
        try:
            return rules.cost(data)
        except ValueError as exc:
            raise serializers.ValidationError(str(exc)) from exc


class UsageRecordSerializer(StrictSerializer):
    """One call of a model, as workloads push it to /api/internal/usage."""

    request_id = StringField(max_length=rules.REQUEST_ID_MAX)
    tenant = StringField(max_length=rules.TENANT_MAX, required=False, allow_null=True)
    model = StringField(max_length=rules.MODEL_MAX)
    input_tokens = IntegerField(min_value=0, max_value=rules.TOKENS_MAX)
    output_tokens = IntegerField(min_value=0, max_value=rules.TOKENS_MAX)
    total_cost_usd = CostField()
    recorded_at = DateTimeField(required=False, allow_null=True)

    def validate_recorded_at(self, value: Any) -> Any:
        if value is not None and value < rules.EARLIEST:
            raise serializers.ValidationError(f"Has to be {rules.EARLIEST:%Y-%m-%d} or later.")
        return value


class UsageBodySerializer(StrictSerializer):
    records = serializers.ListField(child=UsageRecordSerializer(), min_length=1, max_length=MAX_RECORDS)


class UsageRecordedSerializer(ResponseSerializer):
    recorded = serializers.IntegerField(help_text="New to the ledger.")
    corrected = serializers.IntegerField(help_text="Known by request id, with other numbers; the new ones count.")
    duplicates = serializers.IntegerField(help_text="Known, and the same.")
    overruled = serializers.IntegerField(help_text="Known from LiteLLM with other numbers, which count.")
    unattributed = serializers.IntegerField(help_text="Of the new ones, those of a tenant that is not known.")
