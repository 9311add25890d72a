"""Where a tenant's pod lives and what it is called in the cluster."""

from cluster.client import cluster_client
from tenants.models import Tenant

SERVICE_ACCOUNT_PREFIX = "openclaw-"


def namespace_of(tenant: Tenant) -> str:
    """The namespace of a tenant's workloads: that of its cluster tenant, else the one of its custom resource."""
    if tenant.cluster_tenant_ref:
        return f"opencrane-{tenant.cluster_tenant_ref}"
    return cluster_client().namespace


def service_account_of(tenant: Tenant) -> str:
    """The name of the ServiceAccount that a tenant's pod runs as."""
    return f"{SERVICE_ACCOUNT_PREFIX}{tenant.name}"
