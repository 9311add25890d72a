"""What people can ask of a policy: make, change, delete.

Each function commits the row, its revision and its audit entry in one transaction and returns a `Write`; the caller
decides whether to wait for the cluster. None of them talks to the cluster.
"""

from collections.abc import Callable
from typing import Any

from django.db import transaction

from cluster import intent
from cluster.kinds import Spec
from cluster.wait import Write
from opencrane.actor import Actor
from opencrane.rows import unique
from policies import selectors
from policies.errors import PolicyExistsError, PolicyInUseError, PolicyNotFoundError
from policies.models import AccessPolicy
from policies.services.kind import ACCESS_POLICY
from policies.services.propagation import policy_changed

Precondition = Callable[[int], None]
SHOWN_REFERRERS = 10


def create_policy(*, name: str, values: Spec, actor: Actor) -> Write:
    """Make a policy.

    Args:
        name: a DNS label, checked by the caller (`policies.rules`).
        values: spec fields, checked by the caller; absent or None is not set. `domains` may be a bare list of the
            allowed ones.

    Raises:
        UpstreamError: the cluster is known to be away; nothing was written.
        PolicyExistsError: the name is taken, also by a policy that is being deleted.
    """
    intent.require_reachable_cluster()
    policy = AccessPolicy(name=name)
    ACCESS_POLICY.assign(policy, _with_domains(values, None))
    taken = PolicyExistsError(f"There is an access policy named {name} already.")
    with unique("accesspolicy_name_key", taken), transaction.atomic(durable=True):
        write = intent.created(ACCESS_POLICY, policy, actor=actor)
        after = ACCESS_POLICY.spec(policy)
        ACCESS_POLICY.record(policy, "created", f"Created access policy {name}.", after=after, actor=actor)
        policy_changed(name, [policy.tenant_selector])
    return write


def update_policy(*, name: str, changes: Spec, precondition: Precondition = lambda _: None, actor: Actor) -> Write:
    """Set the given spec fields; None clears one. Changing nothing raises no generation and audits nothing.

    Args:
        changes: as `values` of `create_policy`; a bare list of `domains` leaves denied domains and the default alone.
        precondition: called with the row's generation under its lock; raises when the caller's view is stale.

    Raises:
        PolicyNotFoundError, PreconditionFailedError, ConflictError (being deleted), UpstreamError (the cluster is
        known to be away).
    """
    intent.require_reachable_cluster()
    with transaction.atomic(durable=True):
        policy = _locked(name)
        precondition(policy.generation)
        intent.require_writable(policy)
        selector = policy.tenant_selector
        write, before, after = intent.updated(
            ACCESS_POLICY, policy, _with_domains(changes, policy.domains), actor=actor
        )
        if before or after:
            fields = ", ".join(sorted({*before, *after}))
            message = f"Changed {fields} of access policy {name}."
            ACCESS_POLICY.record(policy, "updated", message, before=before, after=after, actor=actor)
            policy_changed(name, [selector, policy.tenant_selector])
    return write


def delete_policy(*, name: str, reason: str = "", precondition: Precondition = lambda _: None, actor: Actor) -> Write:
    """Have a policy removed; its row stays readable until the cluster says the resource is gone.

    Tenants that are about to name it hold the row FOR KEY SHARE until they commit, so nobody can slip in between the
    look and the mark: either we see the tenant, or the tenant finds the policy gone. A second call joins the wait.

    Raises:
        PolicyInUseError: tenants name it in `policyRef`.
        PolicyNotFoundError, PreconditionFailedError, UpstreamError (the cluster is known to be away).
    """
    intent.require_reachable_cluster()
    with transaction.atomic(durable=True):
        policy = _locked(name)
        if not policy.deleting:
            precondition(policy.generation)
            _require_unused(name)
        write, is_new = intent.deleted(ACCESS_POLICY, policy, actor=actor)
        if is_new:
            message = f"Asked for access policy {name} to be deleted." + (f" Reason: {reason}" if reason else "")
            ACCESS_POLICY.record(policy, "delete_requested", message, actor=actor)
    return write


def _require_unused(name: str) -> None:
    referrers = selectors.tenants_naming(name, SHOWN_REFERRERS + 1)
    if referrers:
        shown = ", ".join(referrers[:SHOWN_REFERRERS])
        more = " and others" if len(referrers) > SHOWN_REFERRERS else ""
        raise PolicyInUseError(
            f"Tenants refer to the access policy {name}.", detail=f"policyRef of {shown}{more}; clear it there first."
        )


def _with_domains(values: Spec, present: dict[str, Any] | None) -> Spec:
    """Spec fields in which a bare list of domains has become the object it stands for."""
    if not isinstance(values.get("domains"), list):
        return values
    return values | {"domains": (present or {}) | {"allow": values["domains"]}}


def _locked(name: str) -> AccessPolicy:
    policy = intent.locked_row(ACCESS_POLICY, name)
    if policy is None:
        raise PolicyNotFoundError(f"There is no access policy named {name}.")
    return policy
