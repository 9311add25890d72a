"""The form of a tenant: fields as people fill them in, checked by the API's own serializers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from rest_framework import serializers

from opencrane.api.serializers import camelize, flatten_errors
from opencrane.console.values import parse_object, pretty_json
from tenants import rules
from tenants.api.serializers import CreateTenantSerializer, UpdateTenantSerializer
from tenants.models import Tenant
from tenants.presentation import tenant_detail

Raw = dict[str, str]


@dataclass(frozen=True, slots=True)
class FormField:
    """One input. A dotted name is a field within an object of the API."""

    name: str
    label: str
    kind: Literal["text", "email", "number", "lines", "object", "select"] = "text"
    help: str = ""
    is_required: bool = False
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    fields: tuple[FormField, ...]


NAME = FormField(
    "name", "Name", help="Lower-case letters, digits and dashes, at most 53. Cannot be changed later.", is_required=True
)
SECTIONS = (
    Section(
        "Who",
        (
            FormField("displayName", "Display name", is_required=True),
            FormField("email", "E-mail", "email", is_required=True),
            FormField("team", "Team", help="A Kubernetes label value, such as sales."),
            FormField("clusterTenantRef", "Cluster tenant", help="Name of the customer it belongs to, if any."),
        ),
    ),
    Section(
        "Limits",
        (
            FormField("monthlyBudgetUsd", "Monthly budget in US dollars", "number", "Blank: no budget."),
            FormField("resources.cpu", "CPU", help="A Kubernetes quantity, such as 500m or 2."),
            FormField("resources.memory", "Memory", help="A Kubernetes quantity, such as 512Mi or 2Gi."),
        ),
    ),
    Section(
        "What it may use",
        (
            FormField("policyRef", "Access policy", help="Name of an existing AccessPolicy."),
            FormField(
                "skillMode",
                "Skills",
                "select",
                options=(("all", "All it is entitled to"), ("listed", "Only those listed")),
            ),
            FormField("skillAllowlist", "Listed skills", "lines", "One name per line; none listed means none at all."),
            FormField("mcpPolicy.allow", "MCP servers: only these", "lines", "One name per line; blank: no limit."),
            FormField("mcpPolicy.deny", "MCP servers: never these", "lines", "One name per line."),
        ),
    ),
    Section(
        "Runtime",
        (
            FormField("openclawVersion", "OpenClaw version", help="An image tag. Blank: the fleet's."),
            FormField("openclawImage", "OpenClaw image", help="An image reference. Blank: the fleet's."),
            FormField("awarenessWave", "Awareness wave", help="personal, project, department or org. Blank: the last."),
            FormField(
                "configOverrides", "Config overrides", "object", "An object, as JSON or YAML. No secrets, please."
            ),
        ),
    ),
)
_FIELDS = {each.name: each for section in SECTIONS for each in section.fields} | {"name": NAME}
# Several inputs that are one field of the API.
_PARTS = {
    "resources": ("resources.cpu", "resources.memory"),
    "mcpPolicy": ("mcpPolicy.allow", "mcpPolicy.deny"),
    "skillAllowlist": ("skillMode", "skillAllowlist"),
}


@dataclass
class TenantForm:
    """What was filled in, and what is wrong with it.

    Attributes:
        raw: text of every input.
        errors: input name to reasons; `body` for what belongs to none.
    """

    raw: Raw
    is_new: bool
    errors: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def blank(cls) -> "TenantForm":
        return cls({"skillMode": "all"}, is_new=True)

    @classmethod
    def of(cls, tenant: Tenant) -> "TenantForm":
        """The form as it is when nothing has been changed."""
        return cls(raw_of(tenant), is_new=False)

    @classmethod
    def posted(cls, post: Mapping[str, str], *, is_new: bool) -> "TenantForm":
        return cls({name: post.get(name, "").replace("\r\n", "\n") for name in _FIELDS}, is_new=is_new)

    def created(self) -> dict[str, Any] | None:
        """The checked body of a create; None when `errors` says why not."""
        data = self._data(set(_FIELDS) - {"skillMode"})
        body = {name: value for name, value in data.items() if value is not None}
        for required in ("name", "displayName", "email"):
            body.setdefault(required, "")
        return self._checked(CreateTenantSerializer, body)

    def changes(self, tenant: Tenant) -> dict[str, Any] | None:
        """The checked fields that differ from the tenant's; None when `errors` says why not.

        What was not touched is not named, so that somebody else's change of it stays.
        """
        before = raw_of(tenant)
        touched = {name for name in before if self.raw.get(name, "").strip() != before[name].strip()}
        body = self._data(touched)
        for required in ("displayName", "email"):
            if required in body and body[required] is None:
                body[required] = ""
        return self._checked(UpdateTenantSerializer, body)

    def note(self, fields: Mapping[str, list[str]]) -> None:
        """Take over what a serializer or a service has against the fields, each at its input."""
        for path, reasons in fields.items():
            self.errors.setdefault(_input_for(path), []).extend(reasons)

    def sections(self) -> list[dict[str, Any]]:
        """The form for the template."""
        shown = []
        for section in SECTIONS:
            fields = (NAME, *section.fields) if self.is_new and section is SECTIONS[0] else section.fields
            inputs = [
                {"field": each, "value": self.raw.get(each.name, ""), "errors": self.errors.get(each.name, [])}
                for each in fields
            ]
            shown.append({"title": section.title, "inputs": inputs})
        return shown

    # -- parts --------------------------------------------------------------------------------------------------------

    def _checked(self, serializer_class: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        serializer = serializer_class(data=body)
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            self.note(flatten_errors(exc.detail))
        if self.errors:
            return None
        return {camelize(key): value for key, value in serializer.validated_data.items()}

    def _data(self, names: set[str]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        grouped = {part: whole for whole, parts in _PARTS.items() for part in parts}
        for name in names:
            whole = grouped.get(name)
            if whole is None:
                data[name] = self._value(name)
            elif whole not in data:
                data[whole] = self._whole(whole)
        return data

    def _whole(self, name: str) -> Any:
        if name == "skillAllowlist":
            return self._lines(name) if self.raw.get("skillMode") == "listed" else None
        parts = {part.partition(".")[2]: self._value(part) for part in _PARTS[name]}
        return {key: value for key, value in parts.items() if value} or None

    def _value(self, name: str) -> Any:
        text = self.raw.get(name, "").strip()
        if not text:
            return None
        match _FIELDS[name].kind:
            case "number":
                return self._number(name, text)
            case "lines":
                return self._lines(name)
            case "object":
                try:
                    return parse_object(text, max_length=rules.OVERRIDES_MAX_BYTES)
                except ValueError as exc:
                    self.errors.setdefault(name, []).append(str(exc))
                    return None
        return text

    def _number(self, name: str, text: str) -> int | float | None:
        try:
            number = Decimal(text)
            if number.is_finite() and abs(number) < Decimal(10) ** 15:
                return int(number) if number == number.to_integral_value() else float(number)
        except InvalidOperation:
            pass
        self.errors.setdefault(name, []).append("Has to be a number, such as 25 or 12.50.")
        return None

    def _lines(self, name: str) -> list[str]:
        return [line.strip() for line in self.raw.get(name, "").split("\n") if line.strip()]


def raw_of(tenant: Tenant) -> Raw:
    """A tenant as the text of its form's inputs."""
    detail = tenant_detail(tenant)
    raw: Raw = {}
    for name, each in _FIELDS.items():
        if name in {"name", "skillMode"}:
            continue
        outer, _, inner = name.partition(".")
        value = detail[outer]
        if inner:
            value = (value or {}).get(inner)
        raw[name] = _text(value, each.kind)
    raw["skillMode"] = "all" if detail["skillAllowlist"] is None else "listed"
    return raw


def _text(value: Any, kind: str) -> str:
    if value is None:
        return ""
    if kind == "lines":
        return "\n".join(value)
    if kind == "object":
        return pretty_json(value)
    return str(value)


def _input_for(path: str) -> str:
    """The input that shows an error of this path: itself, or the nearest one around it."""
    while path:
        if path in _FIELDS:
            return path
        path = path.rpartition(".")[0]
    return "body"
