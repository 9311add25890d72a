"""What can be done to many cluster tenants at once."""

from operations.services import bulk
from operations.services.bulk import BulkAction, BulkKind
from tenants.models import ClusterTenant
from tenants.services import cluster_tenants

CLUSTER_TENANTS = BulkKind(
    job="cluster-tenants.bulk",
    noun="cluster tenant",
    model=ClusterTenant,
    actions={
        "sync": BulkAction(
            label="Try now",
            icon="sync",
            future="applied to the cluster again, and their places looked at",
            done="applied",
            warning="Places that could not be made are tried again at once.",
            run=lambda name, _reason, actor: cluster_tenants.resync_cluster_tenant(name=name, actor=actor),
        ),
        "delete": bulk.deletion(
            lambda name, reason, actor: cluster_tenants.delete_cluster_tenant(
                name=name, purge=False, reason=reason, actor=actor
            ),
            "Their quotas and policies go; their namespaces stay, with all that is in them: a purge is asked "
            "for one by one. Those that tenants refer to are left as they are, and the result names the tenants.",
            takes_reason=True,
        ),
    },
)
bulk.register(CLUSTER_TENANTS)
