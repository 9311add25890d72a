"""A list of grants in bodies and answers, wherever one stands."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from opencrane.api.fields import ChoiceField, IntegerField, StringField, choices_of
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from policies.models import Grant, Scope

SCOPES = [Scope.ORG.value, Scope.DEPARTMENT.value, Scope.PROJECT.value, Scope.PERSONAL.value]
PRIORITY_MAX = 1_000_000
MAX_GRANTS = 5000
OPTIONAL: dict[str, Any] = {"required": False, "allow_null": True}


@extend_schema_field({"type": ["string", "null"], "description": "As answers have it; nothing is read from it."})
class IgnoredField(serializers.Field[Any, Any, Any, Any]):
    """What answers carry and callers send back with the rest."""

    def to_internal_value(self, data: Any) -> Any:
        return None

    def to_representation(self, value: Any) -> Any:
        return value


class GrantSerializer(StrictSerializer):
    """One grant. Groups and tenants go by id or name, people by e-mail address."""

    id = IgnoredField(**OPTIONAL)
    created_at = IgnoredField(**OPTIONAL)
    payload_id = StringField(max_length=253, **OPTIONAL)
    subject_type = ChoiceField(choices=Grant.SubjectType.choices, **OPTIONAL)
    subject_id = StringField(max_length=254, **OPTIONAL)
    subject_name = StringField(max_length=254, **OPTIONAL)
    access = ChoiceField(choices=Grant.Access.choices, **OPTIONAL, help_text="`allow` where it is absent.")
    scope = ChoiceField(choices=choices_of(SCOPES), **OPTIONAL)
    priority = IntegerField(min_value=-PRIORITY_MAX, max_value=PRIORITY_MAX, **OPTIONAL)
    note = StringField(max_length=500, **OPTIONAL)


def grants_field() -> Any:
    """A list of grants for a body, which replaces the old list whole where it is present."""
    return GrantSerializer(many=True, required=False, allow_null=True, max_length=MAX_GRANTS)  # type: ignore[call-arg]


class GrantAnswerSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    payload_id = serializers.CharField()
    subject_type = serializers.ChoiceField(choices=Grant.SubjectType.choices)
    subject_id = serializers.CharField(help_text="UUID of a group or tenant; a person's e-mail address.")
    subject_name = serializers.CharField()
    access = serializers.ChoiceField(choices=Grant.Access.choices)
    scope = serializers.ChoiceField(choices=Scope.choices)
    priority = serializers.IntegerField()
    note = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()
