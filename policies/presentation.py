"""A policy as the API and the console show it."""

from typing import Any

from policies.models import AccessPolicy
from policies.selectors import COUNT_CAP, namespace, tenant_count


def policy_detail(policy: AccessPolicy) -> dict[str, Any]:
    """Everything that can be written, ids, times, sync state, and how many tenants it is for."""
    domains = policy.domains or {}
    count = tenant_count(policy)
    return {
        "id": policy.pk,
        "name": policy.name,
        "namespace": namespace(),
        "description": policy.description or None,
        "tenantSelector": policy.tenant_selector,
        "domains": domains.get("allow") or [],
        "domainPolicy": {
            "allow": domains.get("allow") or [],
            "deny": domains.get("deny") or [],
            "defaultDeny": bool(domains.get("defaultDeny")),
        },
        "egressRules": policy.egress_rules or [],
        "mcpServers": policy.mcp_servers or {},
        "tenantCount": min(count, COUNT_CAP),
        "tenantCountIsCapped": count > COUNT_CAP,
        "sync": policy.sync_detail(),
        "status": policy.status,
        "labels": policy.resource_labels,
        "createdAt": policy.created_at,
        "updatedAt": policy.updated_at,
    }
