"""The cluster tenant as the sync engine knows it."""

from collections.abc import Mapping
from typing import Any

from cluster.client import cluster_client
from cluster.kinds import Spec
from cluster.models import Revision
from cluster.names import check_name
from cluster.resources import CLUSTER_TENANTS, KubeObject
from opencrane.tasks import enqueue_on_commit
from operations.dualwrite import AuditedKind
from tenants import cluster_manifests, cluster_rules
from tenants.errors import ClusterTenantExistsError
from tenants.models import ClusterTenant, Deprovisioning

DEPROVISION_TASK = "tenants.deprovision"


class ClusterTenantKind(AuditedKind[ClusterTenant]):
    """Cluster tenants: custom resource `clustertenants.opencrane.io`, row `tenants_clustertenant`."""

    name = "ClusterTenant"
    noun = "cluster_tenant"
    resource = CLUSTER_TENANTS
    model = ClusterTenant
    attributes = cluster_manifests.ATTRIBUTES
    exists_code = ClusterTenantExistsError.code

    def spec(self, row: ClusterTenant) -> Spec:
        return cluster_manifests.cluster_tenant_spec(row)

    def assign(self, row: ClusterTenant, values: Mapping[str, Any]) -> None:
        cluster_manifests.assign_spec(row, values)

    def validated(self, name: str, spec: Spec) -> Spec:
        check_name(name, cluster_rules.NAME_MAX)
        return cluster_rules.checked_spec(spec)

    def manifest(self, row: ClusterTenant, spec: Spec, *, uid: str = "", resource_version: str = "") -> KubeObject:
        made = super().manifest(row, spec, uid=uid, resource_version=resource_version)
        made["metadata"]["labels"][cluster_manifests.INSTALLATION] = cluster_client().namespace
        return made

    def concerns(self, resource: KubeObject) -> bool:
        """Not those of another installation in the same cluster; those that people made belong to everyone."""
        labels = resource["metadata"].get("labels") or {}
        return labels.get(cluster_manifests.INSTALLATION, cluster_client().namespace) == cluster_client().namespace

    def on_deleted(self, row: ClusterTenant, revision: Revision | None) -> None:
        Deprovisioning.objects.bulk_create(
            [
                Deprovisioning(
                    pk=row.pk,
                    name=row.name,
                    namespace=row.bound_namespace or cluster_manifests.namespace_of(row.name),
                    provisioner=row.provisioner or provisioner_of(row.isolation_tier),
                    purge=row.purge,
                )
            ],
            ignore_conflicts=True,
        )
        enqueue_on_commit(DEPROVISION_TASK, str(row.pk))
        super().on_deleted(row, revision)

    def projected(self, resource: KubeObject) -> dict[str, Any]:
        status = resource.get("status") or {}
        return {
            "status_phase": str(status.get("phase") or "")[:20],
            "status_message": str(status.get("message") or ""),
            "bound_namespace": str(status.get("boundNamespace") or "")[:253],
            "provisioner": str(status.get("provisioner") or "")[:40],
            "kubeconfig_secret_ref": str(status.get("kubeconfigSecretRef") or "")[:600],
        }


CLUSTER_TENANT = ClusterTenantKind()


def provisioner_of(tier: str) -> str:
    """Who makes the place for a tier: `shared`, built in, or `external`, over HTTP."""
    return "external" if tier == ClusterTenant.IsolationTier.DEDICATED_CLUSTER else "shared"
