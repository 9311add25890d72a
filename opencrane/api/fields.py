"""Serializer fields that take what the contract says and nothing that merely looks like it.

DRF's own fields turn 5 into "5" and "true" into True; a caller who sends the wrong type has made a mistake and is told.
"""

import datetime
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.validators import MaxLengthValidator, RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_VALUE = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, without a sign.
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"


def full_match(pattern: str, message: str) -> RegexValidator:
    """A validator for the whole value; unlike a bare `$`, it does not let a trailing newline through."""
    return RegexValidator(re.compile(pattern.removesuffix("$") + r"\Z"), message)


class StringField(serializers.CharField):
    """Text of JSON type string; trimmed, and not blank."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        # CharField would look at str(data) first and call `[]` blank or valid by its text.
        if data is not serializers.empty and data is not None and not isinstance(data, str):
            self.fail("invalid")
        return super().run_validation(data)


class RuledField(StringField):
    """Text that a rule of ours takes; subclasses say which."""

    def normal(self, text: str) -> str:
        """The text as it is kept.

        Raises:
            ValueError: the rule refuses it; the sentence says why.
        """
        raise NotImplementedError

    def to_internal_value(self, data: Any) -> str:
        try:
            return self.normal(super().to_internal_value(data))
        except ValueError as exc:
            raise serializers.ValidationError(str(exc)) from exc


class PatternField(StringField):
    """Text that matches a pattern as a whole."""

    def __init__(self, pattern: str, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validators.append(full_match(pattern, message))


class DnsLabelField(PatternField):
    """A DNS label (RFC 1123), as names in Kubernetes are; at most 63 characters unless `max_length` says less."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 63)
        message = "Has to be lower-case letters, digits and dashes, with a letter or digit at both ends."
        super().__init__(DNS_LABEL, message, **kwargs)


class LabelValueField(PatternField):
    """A Kubernetes label value that is not empty."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 63)
        message = "Has to be letters, digits, dashes, dots and underscores, with a letter or digit at both ends."
        super().__init__(LABEL_VALUE, message, **kwargs)


class QuantityField(PatternField):
    """A Kubernetes quantity, such as `500m` or `2Gi`; not negative."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 32)
        super().__init__(QUANTITY, "Has to be a Kubernetes quantity, such as 500m or 2Gi.", **kwargs)


class EmailField(serializers.EmailField):
    """An e-mail address of JSON type string; at most 254 characters (RFC 5321)."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 254)
        super().__init__(**kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if data is not serializers.empty and data is not None and not isinstance(data, str):
            self.fail("invalid")
        return super().run_validation(data)


class ChoiceField(serializers.ChoiceField):
    """One of some words, of JSON type string."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data.strip())


class BooleanField(serializers.BooleanField):
    """JSON true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class IntegerField(serializers.IntegerField):
    """A JSON number without a fraction; within 64 bits unless `min_value` and `max_value` say less."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_value", 2**63 - 1)
        kwargs.setdefault("min_value", -(2**63))
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, float) and data.is_integer() and abs(data) < 2**53:
            return int(data)
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class MoneyField(serializers.DecimalField):
    """US dollars as a JSON number, not negative; a Decimal of at most six places within."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_digits", 18)
        kwargs.setdefault("decimal_places", 6)
        kwargs.setdefault("min_value", Decimal(0))
        kwargs.setdefault("coerce_to_string", False)
        super().__init__(**kwargs)
        self._most_digits: int = kwargs["max_digits"]

    def to_internal_value(self, data: Any) -> Decimal:
        if not isinstance(data, int | float) or isinstance(data, bool):
            self.fail("invalid")
        # repr gives the shortest text of a double, which is what the caller wrote.
        return super().to_internal_value(repr(data))

    def validate_precision(self, value: Decimal) -> Decimal:
        # 1e2 and 2.50 are numbers like any other: judge them without exponent and trailing zeros.
        plain = value.normalize()
        if plain.adjusted() >= self._most_digits:
            self.fail("max_digits", max_digits=self._most_digits)
        if plain == plain.to_integral_value():
            plain = plain.quantize(Decimal(1))
        return super().validate_precision(plain)


class UuidField(serializers.UUIDField):
    """A UUID of JSON type string."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class DateTimeField(serializers.DateTimeField):
    """An RFC 3339 time of JSON type string; UTC where it has no offset."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default_timezone=datetime.UTC, **kwargs)

    def to_internal_value(self, value: Any) -> datetime.datetime:
        if not isinstance(value, str):
            self.fail("invalid", format="2026-01-31T12:00:00Z")
        try:
            return super().to_internal_value(value).astimezone(datetime.UTC)
        except OverflowError:
            self.fail("invalid", format="2026-01-31T12:00:00Z")


class StringListField(serializers.ListField):
    """A list of strings: trimmed, without blanks and duplicates, in the order given.

    Args:
        item: the field for each string; any text when absent.
        max_items: how many may remain.
    """

    def __init__(self, item: StringField | None = None, *, max_items: int = 1000, **kwargs: Any) -> None:
        super().__init__(child=item or StringField(max_length=253), **kwargs)
        self.max_items = max_items
        self.validators.append(MaxLengthValidator(max_items, f"Has to be at most {max_items} entries."))

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list):
            self.fail("not_a_list", input_type=type(data).__name__)
        found: dict[str, None] = {}
        errors: dict[int, Any] = {}
        for index, item in enumerate(data):
            if isinstance(item, str) and not item.strip():
                continue
            try:
                found[self.child.run_validation(item)] = None
            except serializers.ValidationError as exc:
                errors[index] = exc.detail
        if errors:
            raise serializers.ValidationError(errors)  # type: ignore[arg-type]
        return list(found)


@extend_schema_field({"type": "object", "additionalProperties": True})
class JsonObjectField(serializers.Field[Any, Any, Any, Any]):
    """Any JSON object, kept as it is."""

    default_error_messages = {"invalid": "Has to be a JSON object."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field({})
class JsonField(serializers.Field[Any, Any, Any, Any]):
    """Any JSON value, kept as it is."""

    def to_internal_value(self, data: Any) -> Any:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


def choices_of(values: Sequence[str]) -> list[tuple[str, str]]:
    """Choices for a ChoiceField whose labels are the values."""
    return [(value, value) for value in values]
