"""A tenant as the API and the console show it."""

from typing import Any

from tenants.manifests import number
from tenants.models import RetainedData, Tenant
from workloads import naming


def tenant_detail(tenant: Tenant) -> dict[str, Any]:
    """Everything that can be written, ids, times, sync state and what the cluster says; unset is None."""
    budget = tenant.monthly_budget_usd
    return {
        "id": tenant.pk,
        "name": tenant.name,
        "displayName": tenant.display_name,
        "email": tenant.email,
        "team": tenant.team or None,
        "phase": tenant.phase,
        "ingressHost": tenant.ingress_host or None,
        "suspended": tenant.suspended,
        "monthlyBudgetUsd": None if budget is None else number(budget),
        "resources": tenant.resources,
        "skillAllowlist": tenant.skill_allowlist,
        "policyRef": tenant.policy_ref or None,
        "configOverrides": tenant.config_overrides,
        "openclawVersion": tenant.openclaw_version or None,
        "openclawImage": tenant.openclaw_image or None,
        "clusterTenantRef": tenant.cluster_tenant_ref or None,
        "mcpPolicy": tenant.mcp_policy,
        "awarenessWave": tenant.awareness_wave or None,
        "sync": tenant.sync_detail(),
        "status": tenant.status,
        "labels": tenant.resource_labels,
        "createdAt": tenant.created_at,
        "updatedAt": tenant.updated_at,
    }


def retained_data(data: RetainedData) -> dict[str, Any]:
    """What a deleted tenant has left, and where."""
    return {
        "id": data.pk,
        "tenant": data.tenant,
        "namespace": data.namespace,
        "volumeClaim": naming.claim_name(data.tenant, data.data_uid),
        "keySecret": naming.key_name(data.tenant, data.data_uid),
        "status": "deleting" if data.is_going else "retained",
        "error": data.error or None,
        "createdAt": data.created_at,
    }
