"""The tenant as the sync engine knows it."""

from collections.abc import Mapping
from typing import Any

from awareness.services.participation import forget_tenant
from cluster.kinds import Spec
from cluster.models import Revision
from cluster.resources import TENANTS, KubeObject
from operations.dualwrite import AuditedKind
from tenants import manifests, rules
from tenants.errors import TenantExistsError
from tenants.models import Tenant


class TenantKind(AuditedKind[Tenant]):
    """Tenants: custom resource `tenants.opencrane.io`, row `tenants_tenant`."""

    name = "Tenant"
    noun = "tenant"
    resource = TENANTS
    model = Tenant
    attributes = manifests.ATTRIBUTES
    exists_code = TenantExistsError.code

    def spec(self, row: Tenant) -> Spec:
        return manifests.tenant_spec(row)

    def assign(self, row: Tenant, values: Mapping[str, Any]) -> None:
        manifests.assign_spec(row, values)

    def validated(self, name: str, spec: Spec) -> Spec:
        rules.check_name(name)
        return rules.checked_spec(spec)

    def on_deleted(self, row: Tenant, revision: Revision | None) -> None:
        forget_tenant(row.pk)
        super().on_deleted(row, revision)

    def projected(self, resource: KubeObject) -> dict[str, Any]:
        status = resource.get("status") or {}
        return {
            "status_phase": str(status.get("phase") or "")[:20],
            "status_observed_generation": int(status.get("observedGeneration") or 0),
            "pod_name": str(status.get("podName") or "")[:253],
            "ingress_host": str(status.get("ingressHost") or "")[:253],
            "status_message": str(status.get("message") or ""),
        }


TENANT = TenantKind()
