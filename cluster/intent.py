"""Writing intent: what a domain service calls, inside its transaction, to have the cluster follow a row.

Row, revision and the domain's audit entry commit together; the task that brings the cluster along goes out after the
commit, and should it get lost, the sweep finds the row. The returned `Write` is how a caller waits.
"""

import uuid
from datetime import timedelta
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from cluster.kinds import Kind, Spec, same
from cluster.models import ClusterHealth, Revision, SyncedModel
from cluster.rows import fetch_one, insert, update
from cluster.wait import Write
from opencrane.actor import Actor
from opencrane.errors import ConflictError, UpstreamError
from opencrane.tasks import enqueue_on_commit

RowT = TypeVar("RowT", bound=SyncedModel)
SYNC_TASK = "cluster.sync_object"
KNOWN_AWAY = timedelta(seconds=5)
_WAKING = ("sync_attempts", "sync_not_before", "sync_swept_at")


def require_reachable_cluster() -> None:
    """Refuse before anything is written, if a worker found the cluster unreachable within the last 5 s.

    Raises:
        UpstreamError: 502 that names the cluster and what it said.
    """
    health = fetch_one(ClusterHealth, "last_unreachable_at > %s", timezone.now() - KNOWN_AWAY)
    if health is not None:
        raise UpstreamError(
            "The Kubernetes cluster is not reachable; nothing was written.",
            detail=f"Unreachable since {health.unreachable_since:%Y-%m-%dT%H:%M:%SZ}: {health.error}",
        )


def locked_row(kind: Kind[RowT], name: str) -> RowT | None:
    """The row under a row lock, or None. Call in the transaction that is going to change it."""
    return fetch_one(kind.model, "name = %s FOR UPDATE", name)


def require_writable(row: SyncedModel) -> None:
    """Refuse a change to a row that is on its way out."""
    if row.deleting:
        raise ConflictError(f"{row.name} is being deleted.", detail="Wait until it is gone, or watch its sync state.")


def created(kind: Kind[RowT], row: RowT, *, actor: Actor) -> Write:
    """Insert `row` as generation 1 and have its resource made.

    Raises:
        IntegrityError: the name is taken; the caller translates by constraint name.
    """
    row.generation = 1
    row.observed_generation = 0
    spec = kind.spec(row)
    insert(row)
    return _note(kind, row, Revision.Action.CREATE, list(kind.fields), {}, spec, actor)


def updated(kind: Kind[RowT], row: RowT, changes: Spec, *, actor: Actor) -> tuple[Write, Spec, Spec]:
    """Set the named spec fields of a locked row and have the cluster follow; None clears a field.

    Returns:
        The write, and the values of the fields that changed, before and after. Both are empty when nothing changed:
        then no generation is raised, and the write stands for the newest one, which may still be in flight.
    """
    require_writable(row)
    before = kind.spec(row)
    changed = {field: value for field, value in changes.items() if not same(before.get(field), value)}
    if not changed:
        return pending(kind, row), {}, {}
    kind.assign(row, changed)
    after = kind.spec(row)
    row.generation += 1
    row.updated_at = timezone.now()
    _wake(row)
    update(row, ["generation", "updated_at", *_WAKING, *(kind.attributes[field] for field in changed)])
    old = {field: before[field] for field in changed if field in before}
    new = {field: after[field] for field in changed if field in after}
    return _note(kind, row, Revision.Action.UPDATE, sorted(changed), old, new, actor), old, new


def resynced(kind: Kind[RowT], row: RowT, *, actor: Actor) -> tuple[Write, bool]:
    """Have the whole row applied again; also brings back a resource that someone deleted.

    Returns:
        The write, and whether a new generation was needed: a row in flight is only tried at once.
    """
    require_writable(row)
    if row.in_flight:
        _wake(row)
        update(row, _WAKING)
        enqueue_on_commit(SYNC_TASK, kind.name, str(row.pk))
        return pending(kind, row), False
    row.generation += 1
    _wake(row)
    update(row, ["generation", *_WAKING])
    spec = kind.spec(row)
    return _note(kind, row, Revision.Action.RESYNC, list(kind.fields), spec, spec, actor), True


def deleted(kind: Kind[RowT], row: RowT, *, actor: Actor) -> tuple[Write, bool]:
    """Mark the row as on its way out and have its resource removed; the row goes when the cluster says so.

    Returns:
        The write, and whether this call marked it: a second one only joins the wait.
    """
    if row.deleting:
        return pending(kind, row), False
    row.deleting = True
    row.generation += 1
    _wake(row)
    update(row, ["deleting", "generation", *_WAKING])
    return _note(kind, row, Revision.Action.DELETE, [], {}, {}, actor), True


def pending(kind: Kind[Any], row: SyncedModel) -> Write:
    """The newest write of a row, to wait for; already confirmed when nothing is in flight."""
    return Write(kind.name, row.pk, row.generation, settled=not row.in_flight)


def try_now(kind: Kind[Any], object_ids: list[uuid.UUID]) -> int:
    """Lift the backoff of rows in flight and wake a worker for each; returns how many there were."""
    with transaction.atomic(durable=True):
        lagging = kind.model._default_manager.filter(pk__in=object_ids, observed_generation__lt=F("generation"))
        count = lagging.update(sync_attempts=0, sync_not_before=timezone.now(), sync_swept_at=None)
        for object_id in object_ids:
            enqueue_on_commit(SYNC_TASK, kind.name, str(object_id))
    return count


def _wake(row: SyncedModel) -> None:
    row.sync_attempts = 0
    row.sync_not_before = timezone.now()
    row.sync_swept_at = None


def _note(
    kind: Kind[Any], row: SyncedModel, action: str, fields: list[str], before: Spec, after: Spec, actor: Actor
) -> Write:
    insert(
        Revision(
            kind=kind.name,
            object_id=row.pk,
            generation=row.generation,
            action=action,
            fields=fields,
            before=before,
            after=after,
            actor=actor.as_json(),
        )
    )
    write = Write(kind.name, row.pk, row.generation)
    enqueue_on_commit(SYNC_TASK, kind.name, str(row.pk))
    return write
