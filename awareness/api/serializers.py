"""Bodies and answers of the awareness API."""

from typing import Any

from rest_framework import serializers

from awareness.models import ParticipationEvent
from awareness.rollout import SEMVER, VERSION_MAX, WAVE_MAX, WAVES_MAX
from awareness.selectors import SEVERITIES
from opencrane.api.fields import (
    BooleanField,
    ChoiceField,
    DateTimeField,
    JsonObjectField,
    PatternField,
    StringField,
    choices_of,
)
from opencrane.api.responses import to_json
from opencrane.api.serializers import ResponseSerializer, StrictSerializer

OPTIONAL: dict[str, Any] = {"required": False, "allow_null": True}
SCOPES = ("org", "department", "project", "personal")
PAYLOAD_MAX_BYTES = 16 * 1024


class VersionField(PatternField):
    """A semantic version."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(SEMVER, "Has to be a semantic version, such as 1.4.0.", max_length=VERSION_MAX, **kwargs)


class WavesField(serializers.ListField):
    """Names of waves in the order they are promoted: not empty, each once."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=StringField(max_length=WAVE_MAX), min_length=1, max_length=WAVES_MAX, **kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        names = super().to_internal_value(data)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise serializers.ValidationError(f"Has to name each wave once, but has {', '.join(twice)} twice.")
        return names


class DefineRolloutSerializer(StrictSerializer):
    """What is absent stays as it is; null goes back to the default."""

    target_version = VersionField()
    stable_version = VersionField(**OPTIONAL, help_text="What waves run that are not promoted; the pinned version.")
    waves = WavesField(**OPTIONAL)
    shadow_mode = BooleanField(**OPTIONAL, help_text="Promoted waves stay stable and run the target beside it.")


class PromoteSerializer(StrictSerializer):
    wave = StringField(max_length=WAVE_MAX, **OPTIONAL, help_text="How far; only the next wave when absent.")


class ScopeSelectorSerializer(StrictSerializer):
    scope = ChoiceField(choices=choices_of(SCOPES))
    payload_id = StringField(max_length=253)


class SetSessionScopeSerializer(StrictSerializer):
    principal = StringField(max_length=254, help_text="A tenant's name, or a person's e-mail address.")
    scopes = serializers.ListField(child=ScopeSelectorSerializer(), max_length=1000)


class ReportSerializer(StrictSerializer):
    """One report of a tenant's pod."""

    kind = ChoiceField(choices=ParticipationEvent.Kind.choices)
    idempotency_key = StringField(max_length=200)
    occurred_at = DateTimeField(**OPTIONAL)
    contract_version = VersionField(**OPTIONAL)
    outcome = ChoiceField(choices=ParticipationEvent.Outcome.choices, **OPTIONAL)
    payload = JsonObjectField(**OPTIONAL)

    def validate_payload(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(to_json(value)) > PAYLOAD_MAX_BYTES:
            raise serializers.ValidationError(f"Has to be at most {PAYLOAD_MAX_BYTES} bytes of JSON.")
        return value


# -- answers; selectors and views build them, these describe them -----------------------------------------------------


class RolloutSerializer(ResponseSerializer):
    target_version = serializers.CharField()
    stable_version = serializers.CharField()
    waves = serializers.ListField(child=serializers.CharField())
    promoted_waves = serializers.ListField(child=serializers.CharField())
    shadow_mode = serializers.BooleanField()
    next_wave = serializers.CharField(allow_null=True, help_text="What the next promotion moves.")


class ResolutionSerializer(ResponseSerializer):
    tenant = serializers.CharField()
    version = serializers.CharField()
    promoted = serializers.BooleanField()
    shadow = serializers.BooleanField()
    wave = serializers.CharField()


class ParticipationItemSerializer(ResponseSerializer):
    tenant = serializers.CharField()
    last_seen_at = serializers.DateTimeField(allow_null=True)
    running_contract_version = serializers.CharField(allow_null=True)
    expected_contract_version = serializers.CharField()
    participating = serializers.BooleanField(help_text="Seen within the last 15 minutes.")
    drifted = serializers.BooleanField(help_text="Runs another version than expected.")
    policy_violations = serializers.IntegerField(help_text="Among the reports that are still kept.")
    severity = serializers.ChoiceField(choices=choices_of(SEVERITIES))


class ParticipationReportSerializer(ResponseSerializer):
    """Counts are of the whole fleet, whatever is filtered."""

    total = serializers.IntegerField()
    participating = serializers.IntegerField()
    drifted = serializers.IntegerField()
    critical = serializers.IntegerField()
    warning = serializers.IntegerField()
    tenants = ParticipationItemSerializer(many=True)


class GrantedScopeSerializer(ResponseSerializer):
    scope = serializers.ChoiceField(choices=choices_of(SCOPES))
    payload_id = serializers.CharField()


class SessionScopeSerializer(ResponseSerializer):
    session_key = serializers.CharField()
    principal = serializers.CharField()
    scopes = GrantedScopeSerializer(many=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class SetSessionScopeAnswerSerializer(SessionScopeSerializer):
    rejected = GrantedScopeSerializer(many=True)


class ClearedSerializer(ResponseSerializer):
    session_key = serializers.CharField()
    cleared = serializers.BooleanField()
