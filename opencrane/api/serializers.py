"""Bases for serializers: camelCase outside and snake_case inside, and strict about what comes in."""

import re
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

_UNDERSCORE = re.compile(r"_([a-z0-9])")


def camelize(name: str) -> str:
    """`monthly_budget_usd` as `monthlyBudgetUsd`."""
    return _UNDERSCORE.sub(lambda match: match.group(1).upper(), name)


class _CamelCase(serializers.Serializer[Any]):
    """Declare fields in snake_case; callers see camelCase, `validated_data` and `validate_<field>` keep snake_case."""

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, field in super().get_fields().items():
            outside = camelize(name)
            if outside != name:
                if field.source is None:
                    field.source = name
                if method := getattr(self, f"validate_{name}", None):
                    setattr(self, f"validate_{outside}", method)
            fields[outside] = field
        return fields


class ResponseSerializer(_CamelCase):
    """Describes a response in the OpenAPI document; rows are turned into JSON by selectors, not by this."""


class StrictSerializer(_CamelCase):
    """For request bodies: a field it does not have is an error that names it, since a typo must not be lost."""

    default_error_messages = {"unknown": "There is no such field."}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)
        writable = {name for name, field in self.fields.items() if not field.read_only}
        errors: dict[str, Any] = {str(name): [self.error_messages["unknown"]] for name in data if name not in writable}
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as exc:
            errors |= exc.detail  # type: ignore[arg-type]
        if errors:
            raise serializers.ValidationError(errors)
        return value


class ErrorSerializer(ResponseSerializer):
    """What every refusal and failure looks like. Branch on `code`; the sentence may change."""

    error = serializers.CharField(help_text="One sentence for people.")
    code = serializers.CharField(help_text="For programs: UPPER_SNAKE, never renamed.")
    detail = serializers.CharField(required=False, help_text="What to do next, or facts beyond the sentence.")
    # Called `fields` outside; a serializer has an attribute of that name.
    field_errors = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="Path of each offending field, with the reasons.",
    )

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        fields["fields"] = fields.pop("fieldErrors")
        return fields


class AcceptedSerializer(ResponseSerializer):
    """The answer to work that goes on as a job."""

    job_id = serializers.UUIDField()
    status = serializers.CharField()


def flatten_errors(detail: Any, path: str = "") -> dict[str, list[str]]:
    """DRF's nested error details as one list of reasons for each JSON path, for example `resources.cpu`.

    Errors of the body as a whole stand under `body`.
    """
    flat: dict[str, list[str]] = {}
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            inner = path if key == "non_field_errors" else f"{path}.{key}" if path else str(key)
            for where, reasons in flatten_errors(value, inner).items():
                flat.setdefault(where, []).extend(reasons)
    elif isinstance(detail, list | tuple):
        for index, value in enumerate(detail):
            if isinstance(value, Mapping | list):
                for where, reasons in flatten_errors(value, f"{path}.{index}" if path else str(index)).items():
                    flat.setdefault(where, []).extend(reasons)
            else:
                flat.setdefault(path or "body", []).append(str(value))
    else:
        flat[path or "body"] = [str(detail)]
    return flat
