"""The form of a tenant."""

from collections.abc import Collection
from typing import Any

from opencrane.console.forms import FormField, ObjectForm, Section, lines_of
from opencrane.console.values import pretty_json
from tenants import rules
from tenants.api.serializers import CreateTenantSerializer, UpdateTenantSerializer
from tenants.models import Tenant
from tenants.presentation import tenant_detail

SECTIONS = (
    Section(
        "Who",
        (
            FormField(
                "name",
                "Name",
                help="Lower-case letters, digits and dashes, at most 53. Cannot be changed later.",
                is_required=True,
                is_fixed=True,
            ),
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


class TenantForm(ObjectForm[Tenant]):
    sections = SECTIONS
    creates, updates = CreateTenantSerializer, UpdateTenantSerializer
    is_spec = True
    object_max = rules.OVERRIDES_MAX_BYTES

    @classmethod
    def blank(cls, name: str = "") -> "TenantForm":
        return cls({"skillMode": "all", "name": name}, is_new=True)

    @classmethod
    def of(cls, tenant: Tenant) -> "TenantForm":
        detail = tenant_detail(tenant)
        form = cls({"skillMode": "all" if detail["skillAllowlist"] is None else "listed"})
        for field in form.fields:
            outer, _, inner = field.name.partition(".")
            if outer in detail:
                value = (detail[outer] or {}).get(inner) if inner else detail[outer]
                form.raw[field.name] = _text(value, field.kind)
        return form

    def body(self, touched: Collection[str] | None = None) -> dict[str, Any]:
        if touched is not None and "skillMode" in touched:
            touched = {*touched, "skillAllowlist"}
        found = super().body(touched)
        found.pop("skillMode", None)
        return found

    def value(self, field: FormField) -> Any:
        if field.name != "skillAllowlist":
            return super().value(field)
        # None listed is not the same as no list.
        return lines_of(self.raw.get(field.name, "")) if self.raw.get("skillMode") == "listed" else None


def _text(value: Any, kind: str) -> str:
    if value is None:
        return ""
    if kind == "lines":
        return "\n".join(value)
    return pretty_json(value) if kind == "object" else str(value)
