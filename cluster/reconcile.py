"""The sync engine: bring one object in the cluster to what its row says now.

Level-triggered: a run looks at the row and the live object, never at the message that woke it, so it may run twice,
late or in parallel. One reconciler per object holds an advisory lock; no transaction and no row lock is open while the
cluster is asked. What makes it safe should that lock be lost midway (PostgreSQL restarted) are the preconditions: every
apply after the first carries the uid and the resourceVersion that were read.
"""

import logging
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from psycopg.types.json import Jsonb

from cluster import replay, rows
from cluster.client import ClusterClient, cluster_client
from cluster.crds import WHAT_TO_DO
from cluster.errors import KubeConflictError, KubeGoneError, KubeRefusedError, KubeTransientError
from cluster.kinds import Kind, Spec, all_kinds, kind_named, row_id_of, same
from cluster.locks import object_lock
from cluster.models import ClusterHealth, Outcome, Revision, SyncedModel, Tombstone
from cluster.resources import FIELD_MANAGER, OPERATOR, KubeObject
from cluster.rows import fetch, fetch_one
from cluster.wait import CHANNEL, announcement
from opencrane.errors import ClusterRejectedError, ConflictError

log = logging.getLogger(__name__)

MAX_DELAY_SECONDS = 15.0
CONFLICT_TRIES = 8
FINALIZER_DELAY = timedelta(seconds=2)


class NameTakenError(Exception):
    """The cluster has an object of this name that is not ours."""


class ResourceGoneError(Exception):
    """The object was deleted, or deleted and made again, behind our back."""


@dataclass
class Attempt:
    """What one run works on: the row as read, its unconfirmed revisions, and what they name."""

    kind: Kind[Any]
    row: SyncedModel
    revisions: list[Revision]
    client: ClusterClient
    named: set[str] = field(default_factory=set)

    @property
    def first(self) -> bool:
        """Whether the object has never been confirmed, or is to be made again."""
        return not self.row.cluster_uid or any(r.action == Revision.Action.RESYNC for r in self.revisions)


def sync_object(kind_name: str, object_id: UUID) -> None:
    """Bring one object up to its row; returns quietly when there is nothing to do or someone else is at it.

    Ends with the write confirmed, refused (and taken back), or put off with its error noted on the row. Looks again
    after the lock is released: a write that came in meanwhile found the lock taken and left it to us.
    """
    kind = kind_named(kind_name)
    while True:
        with object_lock(kind.name, object_id) as held:
            if not held:
                return
            while _step(kind, object_id):
                pass
        if not _is_due(kind, object_id):
            return


def _is_due(kind: Kind[Any], object_id: UUID) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {kind.model._meta.db_table}"  # noqa: S608 - a table of ours
            " WHERE id = %s AND observed_generation < generation AND sync_not_before <= now()",
            [object_id],
        )
        return cursor.fetchone() is not None


def _step(kind: Kind[Any], object_id: UUID) -> bool:
    """One attempt; True when there may be more to do at once."""
    row = fetch_one(kind.model, "id = %s", object_id)
    if row is None or not row.in_flight or row.sync_not_before > timezone.now():
        return False
    ours = "object_id = %s AND generation <= %s ORDER BY generation"
    revisions = fetch(Revision, ours, row.pk, row.generation)
    try:
        attempt = Attempt(kind, row, revisions, cluster_client())
        if row.deleting:
            return _delete(attempt)
        attempt.named = {name for revision in revisions for name in revision.fields}
        live, confirmed = bring_up(attempt)
    except KubeTransientError as exc:
        _put_off(kind, row, exc.message, unreachable=exc.unreachable)
        return False
    except (KubeConflictError, KubeGoneError) as exc:
        _put_off(kind, row, f"The object keeps changing under us: {exc.message}")
        return False
    except KubeRefusedError as exc:
        return _refused(kind, row, revisions, exc)
    except NameTakenError as exc:
        detail = "Repair adopts the resource of that name into OpenCrane."
        return _take_back(kind, row, revisions, code=kind.exists_code, message=str(exc), detail=detail)
    except ResourceGoneError as exc:
        detail = "Repair takes over what the cluster has; POST .../sync makes the resource again."
        return _take_back(kind, row, revisions, code=ConflictError.code, message=str(exc), detail=detail)
    return _confirm(attempt, live, confirmed)


# -- bringing the object up -------------------------------------------------------------------------------------------


def bring_up(attempt: Attempt) -> tuple[KubeObject, Spec]:
    """Apply what the row wants; returns the live object and the spec that now counts as confirmed.

    Raises:
        NameTakenError, ResourceGoneError: the object is not, or no longer, ours.
        KubeRefusedError, KubeTransientError, KubeConflictError: as `cluster.errors` says.
    """
    conflict: KubeConflictError | None = None
    for _ in range(CONFLICT_TRIES):
        try:
            return _create(attempt) if attempt.first else _update(attempt)
        except KubeConflictError as exc:
            # Stale read: someone wrote between our read and our apply. Read again and decide again.
            conflict = exc
    assert conflict is not None  # noqa: S101 - the loop above ran at least once
    raise conflict


def _create(attempt: Attempt) -> tuple[KubeObject, Spec]:
    kind, row, client = attempt.kind, attempt.row, attempt.client
    live = client.get(kind.resource, row.name)
    spec = kind.spec(row)
    if live is None:
        was_absent, live = client.apply(kind.resource, kind.manifest(row, spec), force=False)
        if was_absent:
            return live, _confirmed(kind, live)
        # It came up between read and apply, and we have merged into it. Ours if nobody else is in it (a request of a
        # killed worker that landed late); then apply again, as that one may have been older or newer than ours.
        if _has_other_managers(live):
            _withdraw(attempt, live)
            raise NameTakenError(f"The cluster already has a resource {kind.name} named {row.name}.")
        raise KubeConflictError("the object appeared while it was being made")
    if row_id_of(live) != str(row.pk) and live["metadata"]["uid"] != row.cluster_uid:
        raise NameTakenError(f"The cluster already has a resource {kind.name} named {row.name}.")
    if live["metadata"].get("deletionTimestamp"):
        raise KubeTransientError(f"{kind.name} {row.name} is still being deleted in the cluster")
    return _force(attempt, live, spec)


def _update(attempt: Attempt) -> tuple[KubeObject, Spec]:
    kind, row = attempt.kind, attempt.row
    live = attempt.client.get(kind.resource, row.name)
    if live is None:
        raise ResourceGoneError(f"{kind.name} {row.name} was deleted in the cluster.")
    if live["metadata"]["uid"] != row.cluster_uid:
        raise ResourceGoneError(f"{kind.name} {row.name} was deleted in the cluster and made again by someone else.")
    return _force(attempt, live, update_spec(kind, row, live, attempt.named))


def update_spec(kind: Kind[Any], row: SyncedModel, live: KubeObject, named: set[str]) -> Spec:
    """What to apply over `live`: every named field as the row has it, every other one only if nobody changed it.

    A field that someone changed in the cluster and that no write has named since stays out of the manifest: the
    cluster keeps its value, and it shows as drift.
    """
    wanted, confirmed, spec = kind.spec(row), row.confirmed_spec or {}, live.get("spec") or {}
    out: Spec = {}
    for name in kind.fields:
        if name in named:
            if wanted.get(name) is not None:
                out[name] = wanted[name]
        elif confirmed.get(name) is not None and same(spec.get(name), confirmed.get(name)):
            out[name] = confirmed[name]
    return out


def _force(attempt: Attempt, live: KubeObject, spec: Spec) -> tuple[KubeObject, Spec]:
    """Apply over the object that was read, and remove named, cleared fields that others hold on to."""
    kind, row = attempt.kind, attempt.row
    metadata = live["metadata"]
    manifest = kind.manifest(row, spec, uid=metadata["uid"], resource_version=metadata["resourceVersion"])
    _, applied = attempt.client.apply(kind.resource, manifest, force=True)
    left_over = sorted(name for name in attempt.named if name not in spec and name in applied["spec"])
    if left_over:
        applied = _remove(attempt, applied, left_over)
    confirmed = _confirmed(kind, applied)
    for name in kind.fields:
        # What was left to the cluster stays drift: the value we last confirmed is the one to compare with.
        if name not in attempt.named and name not in spec:
            confirmed.pop(name, None)
            if row.confirmed_spec and name in row.confirmed_spec:
                confirmed[name] = row.confirmed_spec[name]
    return applied, confirmed


def _remove(attempt: Attempt, applied: KubeObject, names: list[str]) -> KubeObject:
    """Server-side apply only gives up our own ownership; a cleared field that others hold has to be removed."""
    version = applied["metadata"]["resourceVersion"]
    operations: list[dict[str, Any]] = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
    operations += [{"op": "remove", "path": f"/spec/{name}"} for name in names]
    return attempt.client.json_patch(attempt.kind.resource, attempt.row.name, operations)


def _confirmed(kind: Kind[Any], live: KubeObject) -> Spec:
    """The dual-written fields as the server has them, defaults and normal forms included."""
    spec = live.get("spec") or {}
    return {name: spec[name] for name in kind.fields if spec.get(name) is not None}


def _has_other_managers(live: KubeObject) -> bool:
    # The operator puts its finalizer on whatever it finds.
    return any(
        not (entry["manager"] in {FIELD_MANAGER, OPERATOR} and entry["operation"] == "Apply")
        and not entry.get("subresource")
        for entry in live["metadata"].get("managedFields", [])
    )


def _withdraw(attempt: Attempt, live: KubeObject) -> None:
    """Take our fields out of someone else's object again: applying nothing gives up all we own."""
    metadata = {"name": attempt.row.name, "uid": live["metadata"]["uid"]}
    resource = attempt.kind.resource
    empty = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    attempt.client.apply(resource, empty, force=False)


# -- deleting ---------------------------------------------------------------------------------------------------------


def _delete(attempt: Attempt) -> bool:
    """Remove the resource; the row goes once the cluster says it is gone."""
    kind, row, client = attempt.kind, attempt.row, attempt.client
    live = client.get(kind.resource, row.name)
    ours = live is not None and (live["metadata"]["uid"] == row.cluster_uid or row_id_of(live) == str(row.pk))
    if live is not None and ours:
        _annotate(attempt, live, kind.deletion_annotations(row))
    gone = live is None or not ours or client.delete(kind.resource, row.name, uid=live["metadata"]["uid"])
    if not gone:
        finalizers = ", ".join((live or {}).get("metadata", {}).get("finalizers") or []) or "finalizers"
        kind.model._default_manager.filter(pk=row.pk).update(
            sync_not_before=timezone.now() + FINALIZER_DELAY,
            sync_error=f"Waiting in the cluster for: {finalizers}",
            sync_failing_since=None,
        )
        # From here on the projector wakes a worker when the object goes; it may just have gone before.
        if client.get(kind.resource, row.name) is None:
            kind.model._default_manager.filter(pk=row.pk).update(sync_not_before=timezone.now())
            return True
        return False
    with transaction.atomic(durable=True):
        locked = fetch_one(kind.model, "id = %s FOR UPDATE", row.pk)
        if locked is None:
            return False
        kind.on_deleted(locked, attempt.revisions[-1] if attempt.revisions else None)
        _drop(kind, locked)
        generations = {revision.generation for revision in attempt.revisions} | {locked.generation}
        _settle(kind, locked, confirmed=generations, rejected={})
    return False


def _annotate(attempt: Attempt, live: KubeObject, annotations: dict[str, str]) -> None:
    """Set annotations of a resource that is about to be deleted, unless it has them."""
    metadata = live["metadata"]
    present = metadata.get("annotations") or {}
    if all(present.get(key) == value for key, value in annotations.items()):
        return
    operations: list[dict[str, Any]] = [{"op": "test", "path": "/metadata/uid", "value": metadata["uid"]}]
    operations.append({"op": "add", "path": "/metadata/annotations", "value": present | annotations})
    attempt.client.json_patch(attempt.kind.resource, attempt.row.name, operations)


def _drop(kind: Kind[Any], row: SyncedModel) -> None:
    Tombstone.objects.bulk_create([Tombstone(object_id=row.pk, kind=kind.name, name=row.name)], ignore_conflicts=True)
    rows.delete(row)


# -- how a run ends ---------------------------------------------------------------------------------------------------


# One statement, and so one round trip: this is the end of every write. Should its commit be lost with the machine, the
# row is still ahead and the next run confirms it again; so it need not wait for the disk.
_CONFIRM = """
WITH fresh AS (
    UPDATE {table} SET observed_generation = %(generation)s, confirmed_spec = %(spec)s, cluster_uid = %(uid)s,
        resource_generation = %(resource_generation)s, sync_attempts = 0, sync_error = '', sync_failing_since = NULL,
        sync_swept_at = NULL
    WHERE id = %(id)s AND observed_generation < %(generation)s
    RETURNING generation
), ended AS (
    DELETE FROM cluster_revision WHERE object_id = %(id)s AND generation = ANY(%(generations)s)
        AND EXISTS (SELECT FROM fresh)
), told AS (
    INSERT INTO cluster_outcome (kind, object_id, generation, state, code, message, detail)
    SELECT %(kind)s, %(id)s, number, 'confirmed', '', '', '' FROM unnest(%(generations)s) AS number
    WHERE EXISTS (SELECT FROM fresh)
    ON CONFLICT DO NOTHING
)
SELECT (SELECT generation FROM fresh), pg_notify(%(channel)s, %(payload)s),
    EXISTS (SELECT FROM cluster_clusterhealth WHERE unreachable_since IS NOT NULL),
    set_config('synchronous_commit', 'off', true)
"""


def _confirm(attempt: Attempt, live: KubeObject, confirmed: Spec) -> bool:
    """Record that the cluster has what the row, as it was read, wants; True when the row has moved on since."""
    kind, row = attempt.kind, attempt.row
    generations = sorted({revision.generation for revision in attempt.revisions} | {row.generation})
    values = {
        "id": row.pk,
        "kind": kind.name,
        "generation": row.generation,
        "generations": generations,
        "spec": Jsonb(confirmed),
        "uid": live["metadata"]["uid"],
        "resource_generation": live["metadata"].get("generation", 0),
        "channel": CHANNEL,
        "payload": announcement(row.pk, dict.fromkeys(generations, Outcome.State.CONFIRMED)),
    }
    with connection.cursor() as cursor:
        cursor.execute(_CONFIRM.format(table=kind.model._meta.db_table), values)
        newest, _, was_away, _ = cursor.fetchone()
    if was_away:
        with transaction.atomic(durable=True):
            note_reachable()
    return newest is not None and newest > row.generation


def _refused(kind: Kind[Any], row: SyncedModel, revisions: list[Revision], error: KubeRefusedError) -> bool:
    """The cluster refuses the row as it is: find out which of the unconfirmed writes is to blame."""
    if row.deleting:
        return _undo_delete(kind, row, revisions, error.message)
    try:
        refused = replay.refused_revisions(kind, row, revisions, cluster_client(), error)
    except KubeTransientError as exc:
        _put_off(kind, row, exc.message, unreachable=exc.unreachable)
        return False
    except (KubeConflictError, KubeGoneError) as exc:
        _put_off(kind, row, f"The object keeps changing under us: {exc.message}")
        return False
    # Manifests hold nothing that our own definitions do not declare.
    is_undeclared = any("field not declared in schema" in message for message in refused.values())
    detail = f"The cluster's definition of {kind.resource.name} is that of another version. {WHAT_TO_DO}"
    return _drop_revisions(kind, row, refused, code=ClusterRejectedError.code, detail=detail if is_undeclared else "")


def _take_back(
    kind: Kind[Any], row: SyncedModel, revisions: list[Revision], *, code: str, message: str, detail: str
) -> bool:
    """Nothing of what is in flight can land: drop all of it."""
    return _drop_revisions(
        kind, row, dict.fromkeys((r.generation for r in revisions), message), code=code, detail=detail
    )


def _drop_revisions(kind: Kind[Any], row: SyncedModel, refused: dict[int, str], *, code: str, detail: str) -> bool:
    """Take refused writes out of the row, under its lock, and keep every other one.

    Args:
        refused: generation of each refused write, with what the cluster said.

    A refused create takes the row with it, and with the row everything written to it since.
    """
    with transaction.atomic(durable=True):
        locked = fetch_one(kind.model, "id = %s FOR UPDATE", row.pk)
        if locked is None:
            return False
        waiting = list(Revision.objects.filter(object_id=row.pk).order_by("generation"))
        bad = [revision for revision in waiting if revision.generation in refused]
        create = next((revision for revision in bad if revision.action == Revision.Action.CREATE), None)
        for revision in bad:
            kind.on_rejected(locked, revision, refused[revision.generation])
        if create is not None:
            message = refused[create.generation]
            _drop(kind, locked)
            rejected = {r.generation: refused.get(r.generation, message) for r in waiting} | {
                locked.generation: message
            }
            _settle(kind, locked, confirmed=set(), rejected=rejected, code=code, detail=detail)
            return False
        survivors = [revision for revision in waiting if revision.generation not in refused]
        kind.assign(locked, replay.fold(waiting, survivors))
        _rebase(waiting, survivors)
        locked.generation += 1
        if not survivors:
            locked.observed_generation = locked.generation
        locked.updated_at = timezone.now()
        locked.sync_error, locked.sync_failing_since, locked.sync_attempts = "", None, 0
        locked.save()
        confirmed = set() if survivors else {locked.generation}
        rejected = {revision.generation: refused[revision.generation] for revision in bad}
        _settle(kind, locked, confirmed=confirmed, rejected=rejected, code=code, detail=detail)
    return True


def _rebase(waiting: list[Revision], survivors: list[Revision]) -> None:
    """Give survivors the `before` that is true without the refused writes, so that a later refusal folds right."""
    values = replay.fold(waiting, [])
    for revision in survivors:
        before = {name: values[name] for name in revision.fields if values.get(name) is not None}
        if before != revision.before:
            revision.before = before
            revision.save(update_fields=["before"])
        values |= {name: revision.after.get(name) for name in revision.fields}


def _undo_delete(kind: Kind[Any], row: SyncedModel, revisions: list[Revision], message: str) -> bool:
    """The cluster does not let go of the resource: the row stays, and says so."""
    with transaction.atomic(durable=True):
        locked = fetch_one(kind.model, "id = %s FOR UPDATE", row.pk)
        if locked is None:
            return False
        marks = [revision for revision in revisions if revision.action == Revision.Action.DELETE]
        for revision in marks:
            kind.on_rejected(locked, revision, message)
        locked.deleting = False
        locked.generation += 1
        left = Revision.objects.filter(object_id=row.pk).exclude(action=Revision.Action.DELETE).exists()
        if not left:
            locked.observed_generation = locked.generation
        locked.save(update_fields=["deleting", "generation", "observed_generation"])
        rejected = {revision.generation: message for revision in marks}
        _settle(kind, locked, confirmed=set() if left else {locked.generation}, rejected=rejected)
    return True


_SETTLE = """
WITH ended AS (
    DELETE FROM cluster_revision WHERE object_id = %(id)s AND generation = ANY(%(generations)s)
), told AS (
    INSERT INTO cluster_outcome (kind, object_id, generation, state, code, message, detail)
    SELECT %(kind)s, %(id)s, told.* FROM unnest(
        %(generations)s::bigint[], %(states)s::text[], %(codes)s::text[], %(messages)s::text[], %(details)s::text[]
    ) AS told
    ON CONFLICT DO NOTHING
)
SELECT pg_notify(%(channel)s, %(payload)s),
    EXISTS (SELECT FROM cluster_clusterhealth WHERE unreachable_since IS NOT NULL),
    set_config('synchronous_commit', 'off', true)
"""


def _settle(
    kind: Kind[Any],
    row: SyncedModel,
    *,
    confirmed: set[int],
    rejected: dict[int, str],
    code: str = ClusterRejectedError.code,
    detail: str = "",
) -> None:
    """Record how generations ended, drop their revisions and tell whoever waits; in the caller's transaction.

    The cluster has answered. Should the commit be lost with the machine, the next run asks it again, as in `_CONFIRM`.
    """
    states = dict.fromkeys(sorted(confirmed), Outcome.State.CONFIRMED.value)
    states |= dict.fromkeys(sorted(rejected), Outcome.State.REJECTED.value)
    refused = [number in rejected for number in states]
    values: dict[str, Any] = {
        "kind": kind.name,
        "id": row.pk,
        "generations": list(states),
        "states": list(states.values()),
        "codes": [code if is_refused else "" for is_refused in refused],
        "messages": [rejected.get(number, "") for number in states],
        "details": [detail if is_refused else "" for is_refused in refused],
        "channel": CHANNEL,
        "payload": announcement(row.pk, states),
    }
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE, values)
        _, was_away, _ = cursor.fetchone()
    if was_away:
        note_reachable()


def _put_off(kind: Kind[Any], row: SyncedModel, error: str, *, unreachable: bool = False) -> None:
    """Note the failure and try again later: exponential, capped at 15 s, with jitter so that a fleet spreads out."""
    delay = min(MAX_DELAY_SECONDS, 0.5 * 2 ** min(row.sync_attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
    log.warning("sync of %s %s put off for %.1f s: %s", kind.name, row.name, delay, error)
    with transaction.atomic(durable=True):
        # Only while it is still this generation that failed: a newer one is tried at once.
        kind.model._default_manager.filter(pk=row.pk, generation=row.generation).update(
            sync_attempts=F("sync_attempts") + 1,
            sync_not_before=timezone.now() + timedelta(seconds=delay),
            sync_error=error,
            sync_failing_since=Coalesce(F("sync_failing_since"), Now()),
            sync_swept_at=None,
        )
        if unreachable:
            note_unreachable(error)


# -- the cluster's health, as the workers see it ----------------------------------------------------------------------


def note_unreachable(error: str) -> None:
    """Remember that no answer came, so that the web process refuses writes for a while."""
    now = timezone.now()
    changed = ClusterHealth.objects.filter(pk=1).update(
        unreachable_since=Coalesce(F("unreachable_since"), now), last_unreachable_at=now, error=error
    )
    if not changed:
        ClusterHealth.objects.bulk_create(
            [ClusterHealth(pk=1, unreachable_since=now, last_unreachable_at=now, error=error)], ignore_conflicts=True
        )


def note_reachable() -> None:
    """The cluster answers again: forget that it was away, and try at once whatever was put off meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE cluster_clusterhealth SET unreachable_since = NULL, last_unreachable_at = NULL, error = ''"
            " WHERE unreachable_since IS NOT NULL"
        )
        recovered = cursor.rowcount > 0
    if recovered:
        for kind in all_kinds():
            kind.model._default_manager.filter(observed_generation__lt=F("generation")).update(
                sync_not_before=Now(), sync_attempts=0, sync_swept_at=None
            )
