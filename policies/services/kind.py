"""The access policy as the sync engine knows it."""

from collections.abc import Mapping
from typing import Any

from cluster.kinds import Spec
from cluster.models import Revision
from cluster.names import check_name
from cluster.resources import ACCESS_POLICIES
from opencrane.actor import Actor
from operations.dualwrite import AuditedKind
from policies import manifests, rules
from policies.errors import PolicyExistsError
from policies.models import AccessPolicy
from policies.services.propagation import policy_changed


class AccessPolicyKind(AuditedKind[AccessPolicy]):
    """Policies: custom resource `accesspolicies.opencrane.io`, row `policies_accesspolicy`."""

    name = "AccessPolicy"
    noun = "policy"
    resource = ACCESS_POLICIES
    model = AccessPolicy
    attributes = manifests.ATTRIBUTES
    exists_code = PolicyExistsError.code

    def spec(self, row: AccessPolicy) -> Spec:
        return manifests.policy_spec(row)

    def assign(self, row: AccessPolicy, values: Mapping[str, Any]) -> None:
        manifests.assign_spec(row, values)

    def validated(self, name: str, spec: Spec) -> Spec:
        check_name(name, rules.NAME_MAX)
        return rules.checked_spec(spec)

    def on_rejected(self, row: AccessPolicy, revision: Revision, message: str) -> None:
        super().on_rejected(row, revision, message)
        selectors = [spec.get("tenantSelector") for spec in (revision.before, revision.after)]
        policy_changed(row.name, [row.tenant_selector, *selectors])

    def on_deleted(self, row: AccessPolicy, revision: Revision | None) -> None:
        super().on_deleted(row, revision)
        policy_changed(row.name, [row.tenant_selector])

    def on_repaired(self, row: AccessPolicy, action: str, before: Spec, after: Spec, actor: Actor) -> None:
        super().on_repaired(row, action, before, after, actor)
        policy_changed(row.name, [row.tenant_selector, before.get("tenantSelector")])


ACCESS_POLICY = AccessPolicyKind()
