"""Forms that are checked by the API's own serializers: what people fill in, as a body, and its errors at the inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django.http import HttpRequest
from rest_framework import serializers

from opencrane.api.serializers import flatten_errors
from opencrane.console.pages import complaint, sentence
from opencrane.console.values import parse_object
from opencrane.errors import DomainError

OBJECT_MAX = 65_536


@dataclass(frozen=True, slots=True)
class FormField:
    """One input. A dotted name is a field within an object of the API.

    `secret` inputs never show what was typed; `checks` are some of the options, `flag` is a checkbox.
    """

    name: str
    label: str
    kind: Literal["text", "email", "number", "object", "select", "secret", "checks", "flag"] = "text"
    help: str = ""
    is_required: bool = False
    options: tuple[tuple[str, str], ...] = ()


class ApiForm:
    """What was filled in, and what is wrong with it: input name to reasons, `body` for what belongs to none."""

    def __init__(self, fields: Sequence[FormField], raw: Mapping[str, Any]) -> None:
        self.fields = fields
        self.raw: dict[str, Any] = dict(raw)
        self.errors: dict[str, list[str]] = {}

    @classmethod
    def posted(cls, fields: Sequence[FormField], request: HttpRequest) -> "ApiForm":
        """The form as it came."""
        raw: dict[str, Any] = {}
        for field in fields:
            if field.kind == "checks":
                raw[field.name] = request.POST.getlist(field.name)
            elif field.kind == "flag":
                raw[field.name] = request.POST.get(field.name) == "on"
            else:
                raw[field.name] = request.POST.get(field.name, "").replace("\r\n", "\n").strip()
        return cls(fields, raw)

    def body(self, *, blank: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The body of a request: blank inputs are left out, or null for the names in `blank`."""
        found: dict[str, Any] = {}
        for field in self.fields:
            value = self._value(field)
            if value is None or value == "":
                if field.name not in blank:
                    continue
                value = None
            where = found
            *path, last = field.name.split(".")
            for part in path:
                where = where.setdefault(part, {})
            where[last] = value
        return found

    def checked(self, serializer_class: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        """What the API makes of a body; None when `errors` says why it would refuse."""
        serializer = serializer_class(data=body)
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            self.note(flatten_errors(exc.detail))
        return None if self.errors else dict(serializer.validated_data)

    def refuse(self, error: DomainError, request: HttpRequest) -> "ApiForm":
        """Note a service's refusal at the field it is about, or above all fields."""
        if error.code.endswith("_EXISTS"):
            self.note({"name": [sentence(error)]})
        elif error.fields:
            self.note(error.fields)
            self.errors.setdefault("body", []).append(error.message)
        else:
            self.note({"body": [complaint(request, error)]})
        return self

    def note(self, fields: Mapping[str, Sequence[str]]) -> None:
        """Put reasons at the inputs that their paths lead to: `events.0` belongs to `events`."""
        names = [field.name for field in self.fields]
        for path, reasons in fields.items():
            where = next((name for name in names if path == name or path.startswith(f"{name}.")), "body")
            self.errors.setdefault(where, []).extend(reasons)

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The inputs for the template."""
        return [
            {
                "field": field,
                "value": "" if field.kind == "secret" else self.raw.get(field.name, ""),
                "errors": self.errors.get(field.name, []),
            }
            for field in self.fields
        ]

    def _value(self, field: FormField) -> Any:
        value = self.raw.get(field.name)
        if field.kind == "object" and value:
            try:
                return parse_object(value, max_length=OBJECT_MAX)
            except ValueError as exc:
                self.note({field.name: [str(exc)]})
                return None
        if field.kind == "number" and isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value[:18])
        return value
