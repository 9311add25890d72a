"""A cluster tenant as the API and the console show it."""

from typing import Any

from tenants.models import ClusterTenant
from tenants.services.cluster_kind import provisioner_of


def phase_of(row: ClusterTenant) -> str:
    """pending, provisioning, ready or failed: the provisioner's word; pending before its first."""
    return row.status_phase or "pending"


def status_of(row: ClusterTenant) -> dict[str, Any]:
    """What has become of the place; what is not known yet is absent."""
    known = {
        "message": row.status_message,
        "boundNamespace": row.bound_namespace,
        "kubeconfigSecretRef": row.kubeconfig_secret_ref,
    }
    provisioner = row.provisioner or provisioner_of(row.isolation_tier)
    return {"phase": phase_of(row), "provisioner": provisioner} | {key: value for key, value in known.items() if value}


def cluster_tenant_detail(row: ClusterTenant) -> dict[str, Any]:
    """Everything that can be written, ids, times, sync state and what the provisioner says."""
    return {
        "id": row.pk,
        "name": row.name,
        "displayName": row.display_name,
        "baseDomain": row.base_domain,
        "isolationTier": row.isolation_tier,
        "compute": row.compute or {"mode": "shared"},
        "resources": {"quota": row.resources.get("quota") or {}},
        "status": status_of(row),
        "sync": row.sync_detail(),
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    }
