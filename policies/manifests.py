"""Policy row to spec and back. Pure."""

from collections.abc import Mapping
from typing import Any

from cluster.kinds import Spec
from policies.models import AccessPolicy

# Spec field to model attribute, for every field that is dual-written.
ATTRIBUTES: Mapping[str, str] = {
    "description": "description",
    "tenantSelector": "tenant_selector",
    "domains": "domains",
    "egressRules": "egress_rules",
    "mcpServers": "mcp_servers",
}


def policy_spec(policy: AccessPolicy) -> Spec:
    """The spec of a policy's custom resource; a field that is not set is absent."""
    spec = {name: getattr(policy, attribute) for name, attribute in ATTRIBUTES.items()}
    return {name: value for name, value in spec.items() if value is not None and (name != "description" or value)}


def assign_spec(policy: AccessPolicy, values: Mapping[str, Any]) -> None:
    """Set the attributes behind spec fields; None clears."""
    for name, value in values.items():
        setattr(policy, ATTRIBUTES[name], (value or "") if name == "description" else value)
