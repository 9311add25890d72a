"""What people can ask of a cluster tenant: make, change, apply again, delete.

As with tenants, each function commits row, revision and audit entry together and returns a `Write` to wait for. The
provisioner follows once the cluster has the resource.
"""

from collections.abc import Callable

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from cluster import intent
from cluster.kinds import Spec
from cluster.wait import Write
from opencrane.actor import Actor
from opencrane.errors import ConflictError
from opencrane.rows import unique
from opencrane.tasks import enqueue_on_commit
from tenants import selectors
from tenants.errors import (
    ClusterTenantExistsError,
    ClusterTenantInUseError,
    ClusterTenantNotFoundError,
    TierUnavailableError,
)
from tenants.models import ClusterTenant, Deprovisioning
from tenants.services.cluster_kind import CLUSTER_TENANT, provisioner_of

Precondition = Callable[[int], None]
PROVISION_TASK = "tenants.provision"
SHOWN_REFERRERS = 10


def create_cluster_tenant(*, name: str, values: Spec, actor: Actor) -> Write:
    """Make a cluster tenant.

    Args:
        name: a DNS label, checked by the caller (`tenants.cluster_rules`).
        values: spec fields, checked by the caller.

    Raises:
        TierUnavailableError: no provisioner serves the tier.
        ClusterTenantExistsError: the name is taken, also by one whose place is still being cleared away.
        UpstreamError: the cluster is known to be away; nothing was written.
    """
    require_tier(values["isolationTier"])
    intent.require_reachable_cluster()
    row = ClusterTenant(name=name)
    CLUSTER_TENANT.assign(row, values)
    taken = ClusterTenantExistsError(f"There is a cluster tenant named {name} already.")
    with unique("clustertenant_name_key", taken), transaction.atomic(durable=True):
        if Deprovisioning.objects.filter(name=name).exists():
            raise ClusterTenantExistsError(
                f"What the former cluster tenant {name} had is still being cleared away.",
                detail="Try again when that has ended; the console shows how far it is.",
            )
        write = intent.created(CLUSTER_TENANT, row, actor=actor)
        message = f"Created cluster tenant {name}."
        CLUSTER_TENANT.record(row, "created", message, after=CLUSTER_TENANT.spec(row), actor=actor)
        enqueue_on_commit(PROVISION_TASK, str(row.pk))
    return write


def update_cluster_tenant(
    *, name: str, changes: Spec, precondition: Precondition = lambda _: None, actor: Actor
) -> Write:
    """Set the given spec fields; None clears one. Changing nothing raises no generation and audits nothing.

    Raises:
        ClusterTenantNotFoundError, PreconditionFailedError, TierUnavailableError, UpstreamError.
        ConflictError: it is being deleted, or would move to another provisioner.
    """
    if changes.get("isolationTier"):
        require_tier(changes["isolationTier"])
    intent.require_reachable_cluster()
    with transaction.atomic(durable=True):
        row = _locked(name)
        precondition(row.generation)
        intent.require_writable(row)
        tier = changes.get("isolationTier") or row.isolation_tier
        if provisioner_of(tier) != provisioner_of(row.isolation_tier):
            raise ConflictError(
                f"A cluster tenant cannot move from tier {row.isolation_tier} to {tier}.",
                detail="Make another one of that tier, and let the tenants refer to it.",
            )
        write, before, after = intent.updated(CLUSTER_TENANT, row, changes, actor=actor)
        if before or after:
            message = f"Changed {', '.join(sorted({*before, *after}))} of cluster tenant {name}."
            CLUSTER_TENANT.record(row, "updated", message, before=before, after=after, actor=actor)
            ClusterTenant.objects.filter(pk=row.pk).update(provision_attempts=0, provision_not_before=Now())
            enqueue_on_commit(PROVISION_TASK, str(row.pk))
    return write


def resync_cluster_tenant(*, name: str, actor: Actor) -> Write:
    """Apply the whole row again, and have the provisioner look again; lifts the backoff of both."""
    with transaction.atomic(durable=True):
        row = _locked(name)
        write, is_new = intent.resynced(CLUSTER_TENANT, row, actor=actor)
        if is_new:
            CLUSTER_TENANT.record(row, "resynced", f"Applied cluster tenant {name} again.", actor=actor)
        ClusterTenant.objects.filter(pk=row.pk).update(provision_attempts=0, provision_not_before=Now())
        enqueue_on_commit(PROVISION_TASK, str(row.pk))
    return write


def delete_cluster_tenant(
    *, name: str, purge: bool, reason: str = "", precondition: Precondition = lambda _: None, actor: Actor
) -> Write:
    """Have a cluster tenant removed, and then its quota and policies; its namespace only with `purge`.

    A second call joins the first one's wait, and may still ask for the purge.

    Raises:
        ClusterTenantInUseError: tenants refer to it.
        ClusterTenantNotFoundError, PreconditionFailedError, UpstreamError (the cluster is known to be away).
    """
    intent.require_reachable_cluster()
    with transaction.atomic(durable=True):
        row = _locked(name)
        if not row.deleting:
            precondition(row.generation)
            _require_unused(name)
        if purge and not row.purge:
            row.purge = True
            row.save(update_fields=["purge"])
        write, is_new = intent.deleted(CLUSTER_TENANT, row, actor=actor)
        if is_new:
            what = "with its namespace and all that is in it" if purge else "without its namespace"
            message = f"Asked for cluster tenant {name} to be deleted, {what}."
            message += f" Reason: {reason}" if reason else ""
            CLUSTER_TENANT.record(row, "delete_requested", message, after={"purge": purge}, actor=actor)
    return write


def require_tier(tier: str) -> None:
    """Refuse a tier that nobody serves.

    Raises:
        TierUnavailableError
    """
    if provisioner_of(tier) == "external" and not settings.CLUSTER_PROVISIONER_URL:
        raise TierUnavailableError(
            f"No provisioner serves the tier {tier}.",
            detail="It needs an external provisioner: CLUSTER_PROVISIONER_URL is not set.",
            fields={"isolationTier": ["Is not available here."]},
        )


def _require_unused(name: str) -> None:
    referrers = selectors.tenants_in(name, SHOWN_REFERRERS + 1)
    if referrers:
        shown = ", ".join(referrers[:SHOWN_REFERRERS])
        more = " and others" if len(referrers) > SHOWN_REFERRERS else ""
        raise ClusterTenantInUseError(
            f"Tenants refer to the cluster tenant {name}.",
            detail=f"clusterTenantRef of {shown}{more}; move or delete them first.",
        )


def _locked(name: str) -> ClusterTenant:
    row = intent.locked_row(CLUSTER_TENANT, name)
    if row is None:
        raise ClusterTenantNotFoundError(f"There is no cluster tenant named {name}.")
    return row
