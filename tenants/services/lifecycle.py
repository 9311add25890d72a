"""What people can ask of a tenant: make, change, suspend, resume, apply again, delete.

Each function commits the row, its revision and its audit entry in one transaction and returns a `Write`; the caller
decides whether to wait for the cluster. None of them talks to the cluster.
"""

from collections.abc import Callable

from django.db import transaction

from budgets.services import keys
from cluster import intent
from cluster.kinds import Spec
from cluster.wait import Write
from opencrane.actor import Actor
from opencrane.errors import ReferenceNotFoundError
from opencrane.rows import unique
from policies.selectors import policy_exists
from policies.services.propagation import subjects_changed
from tenants import selectors
from tenants.errors import TenantExistsError, TenantNotFoundError
from tenants.models import Tenant
from tenants.services import retained
from tenants.services.kind import TENANT

Precondition = Callable[[int], None]


def create_tenant(*, name: str, values: Spec, adopt_retained: bool = False, actor: Actor) -> Write:
    """Make a tenant.

    Args:
        name: a DNS label, checked by the caller (`tenants.rules`).
        values: spec fields, checked by the caller; absent or None is not set.
        adopt_retained: whether it gets the volume and key that an earlier tenant of the name has left; the caller has
            checked that an administrator says so.

    Raises:
        UpstreamError: the cluster is known to be away; nothing was written.
        TenantExistsError: the name is taken, also by a tenant that is being deleted.
        ReferenceNotFoundError: `policyRef` or `clusterTenantRef` names nothing, or there is no data to adopt.
        RetainedDataError: an earlier tenant of the name has left data, and nothing was said about it.
    """
    intent.require_reachable_cluster()
    tenant = Tenant(name=name)
    TENANT.assign(tenant, values)
    taken = TenantExistsError(f"There is a tenant named {name} already.")
    with unique("tenant_name_key", taken), transaction.atomic(durable=True):
        require_references(values)
        retained.take_over(tenant, adopt=adopt_retained)
        write = intent.created(TENANT, tenant, actor=actor)
        message = f"Created tenant {name}" + (
            f" with the data that an earlier one left ({tenant.data_uid})." if adopt_retained else "."
        )
        TENANT.record(tenant, "created", message, after=TENANT.spec(tenant), actor=actor)
        subjects_changed(tenant_ids=[tenant.pk])
    return write


def update_tenant(*, name: str, changes: Spec, precondition: Precondition = lambda _: None, actor: Actor) -> Write:
    """Set the given spec fields; None clears one. Changing nothing raises no generation and audits nothing.

    Args:
        precondition: called with the row's generation under its lock; raises when the caller's view is stale.

    Raises:
        TenantNotFoundError, PreconditionFailedError, ReferenceNotFoundError, ConflictError (being deleted),
        UpstreamError (the cluster is known to be away).
    """
    return _change(name, changes, "updated", "Changed {fields} of tenant {name}.", precondition, actor)


def suspend_tenant(*, name: str, reason: str = "", precondition: Precondition = lambda _: None, actor: Actor) -> Write:
    """Ask for a tenant's workloads to be stopped; its data stays. Idempotent."""
    message = "Suspended tenant {name}." + (f" Reason: {reason}" if reason else "")
    return _change(name, {"suspended": True}, "suspended", message, precondition, actor)


def resume_tenant(*, name: str, reason: str = "", precondition: Precondition = lambda _: None, actor: Actor) -> Write:
    """Ask for a suspended tenant's workloads to run again. Idempotent."""
    message = "Resumed tenant {name}." + (f" Reason: {reason}" if reason else "")
    return _change(name, {"suspended": False}, "resumed", message, precondition, actor)


def _change(name: str, changes: Spec, verb: str, message: str, precondition: Precondition, actor: Actor) -> Write:
    intent.require_reachable_cluster()
    with transaction.atomic(durable=True):
        tenant = _locked(name)
        precondition(tenant.generation)
        intent.require_writable(tenant)
        spec = TENANT.spec(tenant)
        require_references({key: value for key, value in changes.items() if spec.get(key) != value})
        write, before, after = intent.updated(TENANT, tenant, changes, actor=actor)
        if before or after:
            text = message.format(fields=", ".join(sorted({*before, *after})), name=name)
            TENANT.record(tenant, verb, text, before=before, after=after, actor=actor)
        if {"monthlyBudgetUsd", "clusterTenantRef"} & {*before, *after}:
            keys.tenant_changed(tenant.pk)
        if "email" in after:
            subjects_changed(tenant_ids=[tenant.pk])
    return write


def resync_tenant(*, name: str, actor: Actor) -> Write:
    """Apply the whole row again, also to make a resource that someone deleted. Lifts the backoff of a failing row."""
    with transaction.atomic(durable=True):
        tenant = _locked(name)
        write, is_new = intent.resynced(TENANT, tenant, actor=actor)
        if is_new:
            TENANT.record(tenant, "resynced", f"Applied tenant {name} again.", actor=actor)
    return write


def delete_tenant(
    *,
    name: str,
    reason: str = "",
    purge: bool = False,
    precondition: Precondition = lambda _: None,
    actor: Actor,
) -> Write:
    """Have a tenant removed; its row stays readable until the cluster says the resource is gone.

    A second call joins the first one's wait. Volume and encryption key stay in the cluster, unless `purge` says that
    they go as well.
    """
    intent.require_reachable_cluster()
    with transaction.atomic(durable=True):
        tenant = _locked(name)
        if not tenant.deleting:
            precondition(tenant.generation)
            if tenant.is_purged != purge:
                tenant.is_purged = purge
                tenant.save(update_fields=["is_purged"])
        write, is_new = intent.deleted(TENANT, tenant, actor=actor)
        if is_new:
            message = f"Asked for tenant {name} to be deleted{' with its data' if purge else ''}."
            message += f" Reason: {reason}" if reason else ""
            TENANT.record(tenant, "delete_requested", message, actor=actor)
    return write


def require_references(values: Spec) -> None:
    """Refuse references to what does not exist or is being deleted.

    Raises:
        ReferenceNotFoundError: names every such field.
    """
    missing: dict[str, list[str]] = {}
    policy, customer = values.get("policyRef"), values.get("clusterTenantRef")
    if policy and not policy_exists(policy):
        missing["policyRef"] = [f"There is no access policy named {policy}."]
    if customer and not selectors.cluster_tenant_exists(customer):
        missing["clusterTenantRef"] = [f"There is no cluster tenant named {customer}."]
    if missing:
        raise ReferenceNotFoundError(fields=missing)


def _locked(name: str) -> Tenant:
    tenant = intent.locked_row(TENANT, name)
    if tenant is None:
        raise TenantNotFoundError(f"There is no tenant named {name}.")
    return tenant


def try_now(*, names: list[str]) -> int:
    """Lift the backoff of tenants whose writes are in flight; returns how many there were."""
    return intent.try_now(TENANT, list(Tenant.objects.filter(name__in=names).values_list("pk", flat=True)))
