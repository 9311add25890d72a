"""The tenant as the sync engine knows it."""

from collections.abc import Mapping
from typing import Any

from awareness.services.participation import forget_tenant
from budgets.services import keys
from cluster.kinds import Spec
from cluster.models import Revision
from cluster.names import check_name
from cluster.resources import TENANTS, KubeObject
from operations.dualwrite import AuditedKind
from tenants import manifests, rules
from tenants.errors import TenantExistsError
from tenants.models import Tenant
from tenants.services import retained
from workloads.naming import DATA_UID, PURGE, claim_prefix


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
        check_name(name, rules.NAME_MAX)
        return rules.checked_spec(spec)

    def manifest(self, row: Tenant, spec: Spec, *, uid: str = "", resource_version: str = "") -> KubeObject:
        made = super().manifest(row, spec, uid=uid, resource_version=resource_version)
        if row.data_uid and row.data_uid != uid:
            made["metadata"]["annotations"][DATA_UID] = row.data_uid
        return made

    def deletion_annotations(self, row: Tenant) -> dict[str, str]:
        return {PURGE: "true"} if row.is_purged else {}

    def on_rejected(self, row: Tenant, revision: Revision, message: str) -> None:
        if revision.action == Revision.Action.CREATE:
            # What it was going to take over stays where it is.
            retained.keep(row)
        super().on_rejected(row, revision, message)

    def on_deleted(self, row: Tenant, revision: Revision | None) -> None:
        forget_tenant(row.pk)
        if not row.is_purged:
            retained.keep(row)
        keys.forget_tenant(row)
        super().on_deleted(row, revision)

    def projected(self, resource: KubeObject) -> dict[str, Any]:
        status = resource.get("status") or {}
        claim = claim_prefix(resource["metadata"].get("name", ""))
        claims = [
            str(entry.get("name"))
            for entry in status.get("objects") or ()
            if entry.get("kind") == "PersistentVolumeClaim" and entry.get("state") != "Missing"
        ]
        # Never cleared: a resource that goes leaves its data behind.
        has_claim = bool(claims) and claims[0].startswith(claim)
        return ({"data_uid": claims[0].removeprefix(claim)[:64]} if has_claim else {}) | {
            "status_phase": str(status.get("phase") or "")[:20],
            "status_observed_generation": int(status.get("observedGeneration") or 0),
            "pod_name": str(status.get("podName") or "")[:253],
            "ingress_host": str(status.get("ingressHost") or "")[:253],
            "status_message": str(status.get("message") or ""),
        }


TENANT = TenantKind()
