"""Repair: the custom resource wins. Rows are made or changed to match; nothing is ever deleted, on either side."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from cluster.client import cluster_client
from cluster.drift import FIELD_MISMATCH, IDENTITY, MISSING_PROJECTION, Comparison, Mismatch, compare, mismatch_of
from cluster.errors import KubeError
from cluster.intent import locked_row
from cluster.kinds import Kind, Spec, kind_named, row_id_of
from cluster.locks import object_lock
from cluster.models import DriftFinding, SyncedModel, Tombstone
from cluster.resources import KubeObject
from opencrane.actor import Actor
from opencrane.errors import ConflictError, UpstreamError

LOCK_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What repair did, or would do, about one mismatch."""

    name: str
    action: str
    reason: str
    fields: list[str] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self, *, dry_run: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self.name, "action": self.action, "reason": self.reason, "dryRun": dry_run,
        }  # fmt: skip
        if self.fields:
            body["fields"] = self.fields
        if self.differences:
            body["differences"] = self.differences
        return body


def found_drift(kind_name: str) -> tuple[list[Mismatch], Comparison]:
    """A whole comparison, or no answer at all.

    Raises:
        UpstreamError: the cluster could not be listed to the end.
    """
    counts = Comparison()
    try:
        return list(compare(kind_named(kind_name), counts)), counts
    except KubeError as exc:
        raise UpstreamError(
            "The Kubernetes cluster could not be listed.", detail=f"{exc.message} Nothing was compared or changed."
        ) from exc


def require_listing(counts: Comparison) -> None:
    """An empty listing while rows exist is no ground for a repair: more likely the wrong cluster or namespace."""
    if counts.source_count == 0 and counts.projection_count > 0:
        raise ConflictError(
            f"The cluster lists no resource at all, while {counts.projection_count} rows exist.",
            detail="Nothing was changed. Check the kubeconfig and the namespace before repairing.",
        )


def plan(kind_name: str, *, names: list[str] | None = None) -> list[Entry]:
    """What a repair, of everything or only of `names`, would do; changes nothing.

    Raises:
        UpstreamError, ConflictError: as `found_drift` and `require_listing`.
    """
    mismatches, counts = found_drift(kind_name)
    require_listing(counts)
    return [_planned(mismatch) for mismatch in _chosen(mismatches, names)]


def _chosen(mismatches: list[Mismatch], names: list[str] | None) -> list[Mismatch]:
    wanted = None if names is None else set(names)
    return [mismatch for mismatch in mismatches if wanted is None or mismatch.name in wanted]


def _planned(mismatch: Mismatch) -> Entry:
    if mismatch.issue == MISSING_PROJECTION:
        return Entry(mismatch.name, "created", "the cluster has a resource that has no row")
    if mismatch.issue == FIELD_MISMATCH:
        return Entry(mismatch.name, "updated", "cluster and row differ", mismatch.fields, mismatch.differences)
    return Entry(mismatch.name, "skipped", "the row has no resource; it may be on its way out")


def apply(
    kind_name: str,
    *,
    names: list[str] | None,
    actor: Actor,
    on_start: Callable[[int], None] = lambda total: None,
) -> Iterator[Entry]:
    """Repair every mismatch, or only those of `names`; yields each entry as it is done. Repeatable.

    Args:
        on_start: told how many mismatches there are, before the first is repaired.

    Raises:
        UpstreamError, ConflictError: before anything has changed.
    """
    kind = kind_named(kind_name)
    mismatches, counts = found_drift(kind_name)
    require_listing(counts)
    chosen = _chosen(mismatches, names)
    on_start(len(chosen))
    for mismatch in chosen:
        if mismatch.issue in {MISSING_PROJECTION, FIELD_MISMATCH}:
            yield repair_one(kind, mismatch.name, actor=actor)
        else:
            yield _planned(mismatch)


def repair_one(kind: Kind[Any], name: str, *, actor: Actor) -> Entry:
    """Bring one row in line with its resource, both read anew under the object's lock."""
    known = kind.model._default_manager.filter(name=name).values_list("pk", flat=True).first()
    with object_lock(kind.name, known or name, wait_seconds=LOCK_WAIT_SECONDS) as held:
        if not held:
            return Entry(name, "skipped", "a write to it is under way")
        try:
            live = cluster_client().get(kind.resource, name)
        except KubeError as exc:
            return Entry(name, "skipped", f"the cluster did not answer: {exc.message}")
        if live is None:
            return Entry(name, "skipped", "the row has no resource; it may be on its way out")
        if not kind.concerns(live):
            return Entry(name, "skipped", "the resource belongs to another installation")
        if live["metadata"].get("deletionTimestamp"):
            return Entry(name, "skipped", "the resource is being deleted in the cluster")
        try:
            spec = kind.validated(name, live.get("spec") or {})
        except ValueError as exc:
            return Entry(name, "skipped", f"OpenCrane cannot hold it: {exc}")
        try:
            return _write(kind, name, live, spec, actor)
        except IntegrityError:
            return Entry(name, "skipped", "a row of that name was made meanwhile")


@transaction.atomic(durable=True)
def _write(kind: Kind[Any], name: str, live: KubeObject, spec: Spec, actor: Actor) -> Entry:
    row = locked_row(kind, name)
    if row is None:
        object_id = _uuid(row_id_of(live))
        if object_id is not None and Tombstone.objects.filter(object_id=object_id).exists():
            return Entry(name, "skipped", "its row was just deleted; the resource is being removed")
        row = _new_row(kind, name, object_id)
        kind.assign(row, dict.fromkeys(kind.fields) | spec)
        _adopt(row, live, spec)
        row.save(force_insert=True)
        kind.on_repaired(row, "created", {}, spec, actor)
        _forget_finding(kind, name)
        return Entry(name, "created", "the cluster has a resource that has no row")
    if row.in_flight:
        return Entry(name, "skipped", "a write to it is under way")
    mismatch = mismatch_of(kind, name, row, live)
    if mismatch is None:
        _forget_finding(kind, name)
        return Entry(name, "skipped", "they agree by now")
    changed = [field for field in mismatch.fields if field != IDENTITY]
    old = kind.spec(row)
    kind.assign(row, {field: spec.get(field) for field in changed})
    _adopt(row, live, spec)
    row.updated_at = timezone.now()
    row.save()
    before = {field: old[field] for field in changed if field in old}
    after = {field: spec[field] for field in changed if field in spec}
    kind.on_repaired(row, "updated", before, after, actor)
    _forget_finding(kind, name)
    return Entry(name, "updated", "the custom resource wins", mismatch.fields, mismatch.differences)


def _new_row(kind: Kind[Any], name: str, object_id: UUID | None) -> SyncedModel:
    """A row for an orphaned resource. One that carries a row id gets it back: usage and audit refer to it."""
    if object_id is None or kind.model._default_manager.filter(pk=object_id).exists():
        return kind.model(name=name)
    return kind.model(pk=object_id, name=name)


def _adopt(row: SyncedModel, live: KubeObject, spec: Spec) -> None:
    row.generation += 1
    row.observed_generation = row.generation
    row.confirmed_spec = {key: value for key, value in (live.get("spec") or {}).items() if key in spec}
    row.cluster_uid = live["metadata"]["uid"]
    row.resource_generation = live["metadata"].get("generation", 0)
    row.sync_error, row.sync_failing_since, row.sync_attempts = "", None, 0


def _forget_finding(kind: Kind[Any], name: str) -> None:
    DriftFinding.objects.filter(kind=kind.name, name=name).delete()


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
