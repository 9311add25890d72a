"""Where a tenant's pod lives and what it is called in the cluster."""

from cluster.client import cluster_client

SERVICE_ACCOUNT_PREFIX = "openclaw-"


def namespace_of(cluster_tenant: str) -> str:
    """The namespace of a tenant's workloads: that of its cluster tenant, else (empty) that of its custom resource."""
    return f"opencrane-{cluster_tenant}" if cluster_tenant else cluster_client().namespace


def service_account_of(name: str) -> str:
    """The name of the ServiceAccount that a tenant's pod runs as."""
    return f"{SERVICE_ACCOUNT_PREFIX}{name}"
