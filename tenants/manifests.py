"""Tenant row to spec and back. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cluster.kinds import Spec
from tenants.models import Tenant

# Spec field to model attribute, for every field that is dual-written.
ATTRIBUTES: Mapping[str, str] = {
    "displayName": "display_name",
    "email": "email",
    "team": "team",
    "openclawImage": "openclaw_image",
    "openclawVersion": "openclaw_version",
    "monthlyBudgetUsd": "monthly_budget_usd",
    "resources": "resources",
    "skillAllowlist": "skill_allowlist",
    "mcpPolicy": "mcp_policy",
    "configOverrides": "config_overrides",
    "policyRef": "policy_ref",
    "clusterTenantRef": "cluster_tenant_ref",
    "awarenessWave": "awareness_wave",
    "suspended": "suspended",
}
_TEXT = frozenset(
    {
        "displayName",
        "email",
        "team",
        "openclawImage",
        "openclawVersion",
        "policyRef",
        "clusterTenantRef",
        "awarenessWave",
    }
)


def tenant_spec(tenant: Tenant) -> Spec:
    """The spec of a tenant's custom resource; a field that is not set is absent."""
    spec: Spec = {}
    for name, attribute in ATTRIBUTES.items():
        value = getattr(tenant, attribute)
        if value is None or (name in _TEXT and value == ""):
            continue
        spec[name] = number(value) if isinstance(value, Decimal) else value
    return spec


def assign_spec(tenant: Tenant, values: Mapping[str, Any]) -> None:
    """Set the attributes behind spec fields; None clears."""
    for name, value in values.items():
        attribute = ATTRIBUTES[name]
        if name == "suspended":
            setattr(tenant, attribute, bool(value))
        elif name == "monthlyBudgetUsd":
            setattr(tenant, attribute, None if value is None else Decimal(str(value)))
        elif name in _TEXT:
            setattr(tenant, attribute, value or "")
        else:
            setattr(tenant, attribute, value)


def number(value: Decimal) -> int | float:
    """A decimal as the JSON number that reads the same: 25 rather than 25.0."""
    return int(value) if value == value.to_integral_value() else float(value)
