"""Read a source and keep its inventory, as a job: `skills.sync_source`. Starting over repeats nothing."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from cluster.wait import waiting_slot
from opencrane.actor import SYSTEM, Actor
from opencrane.errors import ConflictError, UpstreamError
from operations import jobs
from operations.errors import JobConflictError
from operations.jobs import JobRun
from operations.models import Job, JobItem
from operations.repairs import refusal
from operations.services import audit
from operations.services.jobs import start_job, wait_for_job
from skills import source_reading, source_rules
from skills.models import SourceItem, ThirdPartySource
from skills.source_reading import SYNC, exclusive_key
from skills.upstream import git, mcp_registry
from skills.upstream.found import Found, SourceError

log = structlog.get_logger(__name__)

KIND: Final = SYNC
BATCH = 100
BATCH_BYTES = 16 * 1024 * 1024
DUE_AT_ONCE = 50
ADDED, CHANGED, UNCHANGED, GONE = "added", "changed", "unchanged", "gone"
SKIPPED, FAILED = JobItem.Outcome.SKIPPED.value, JobItem.Outcome.FAILED.value
_State = ThirdPartySource.State
_TOLD = ("kind", "name", "version", "digest", "description", "details", "content_type", "problem")


def start_sync(*, source_id: UUID | None, actor: Actor) -> Job:
    """Start the job.

    Raises:
        ThirdPartySourceNotFoundError
        ConflictError: the source waits for approval, or is filled by hand.
        JobConflictError: a sync of it is under way.
    """
    source = source_reading.source_by_id(source_id)
    _check(source)
    params = {"sourceId": str(source.pk), "source": source.name}
    return start_job(kind=KIND, params=params, actor=actor, exclusive_key=exclusive_key(source.pk))


def sync_and_wait(*, source_id: UUID | None, actor: Actor) -> Job:
    """Start the job and give it as long as a repair to end; what is returned may still be running.

    Raises:
        As `start_sync`, and UpstreamError: the source could not be read.
    """
    job = start_sync(source_id=source_id, actor=actor)
    with waiting_slot() as taken:
        if taken:
            job = wait_for_job(job.pk, settings.REPAIR_WAIT_SECONDS)
    if job.status == Job.Status.FAILED and (job.result or {}).get("code"):
        raise refusal(job)
    return job


def start_due() -> int:
    """Start the syncs whose time has come; returns how many. Each is due again after the interval, come what may."""
    started = 0
    for source_id in source_reading.sources_due(DUE_AT_ONCE):
        again = timezone.now() + timedelta(seconds=settings.SOURCE_INTERVAL_SECONDS)
        claimed = ThirdPartySource.objects.filter(pk=source_id, next_sync_at__lte=timezone.now())
        if not claimed.update(next_sync_at=again):
            continue
        try:
            start_sync(source_id=source_id, actor=SYSTEM)
        except (JobConflictError, ConflictError) as exc:
            log.info("no scheduled sync", source=str(source_id), why=exc.detail or exc.message)
            continue
        started += 1
    return started


@jobs.register(KIND)
def run_sync(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """The runner: one item for each thing that the source offers, named by its upstream id.

    What is no longer offered is marked, not deleted, and only by a run that read the source to its end.
    """
    source = source_reading.source_by_id(UUID(params["sourceId"]))
    _check(source)
    counts = dict.fromkeys((ADDED, CHANGED, UNCHANGED, GONE, SKIPPED, FAILED), 0)
    seen: set[str] = set()
    revision = ""
    try:
        with ExitStack() as stack:
            offered: Iterator[Found]
            if source.type in source_rules.GIT_TYPES:
                clone = stack.enter_context(git.cloned(source.url, source.ref, settings.OUTBOUND_ALLOW))
                job.checkpoint()
                offered, revision = git.read_skills(clone), clone.commit
            else:
                offered = mcp_registry.read_servers(source.url, settings.OUTBOUND_ALLOW)
            for batch in _batches(offered):
                seen |= {each.upstream_id for each in batch}
                _report(job, counts, _kept(source, batch, job.only_keys), total=None)
                job.checkpoint()
    except SourceError as exc:
        _end(source, error=exc.message, revision="", actor=actor, counts=counts)
        raise UpstreamError(f"The source {source.name} could not be read.", detail=exc.message) from exc
    if job.only_keys is None:
        _report(job, counts, _gone(source, seen), total=None)
    done = sum(counts.values())
    job.progress(done, done)
    _end(source, error="", revision=revision, actor=actor, counts=counts)
    return {"sourceId": str(source.pk), "revision": revision or None, **counts}


def _check(source: ThirdPartySource) -> None:
    if source.type == ThirdPartySource.Type.MANUAL_UPLOAD:
        raise ConflictError("The source is filled by hand; there is nothing to sync.")
    if source.state == _State.PENDING_APPROVAL:
        raise ConflictError("The source waits for approval; it is not read before that.")


def _batches(offered: Iterator[Found]) -> Iterator[list[Found]]:
    """As many as fit into memory with their content."""
    batch: list[Found] = []
    size = 0
    for each in offered:
        batch.append(each)
        size += len(each.content or b"")
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@transaction.atomic
def _kept(source: ThirdPartySource, batch: list[Found], only_keys: frozenset[str] | None) -> list[tuple[str, str, str]]:
    """Bring the inventory in line with what was found: (upstream id, outcome, why) of each."""
    wanted = {each.upstream_id: each for each in batch if only_keys is None or each.upstream_id in only_keys}
    rows = SourceItem.objects.select_for_update().filter(source=source, upstream_id__in=list(wanted))
    present = {(row.kind, row.upstream_id): row for row in rows}
    told: list[tuple[str, str, str]] = []
    added: list[SourceItem] = []
    for each in wanted.values():
        row = present.get((each.kind, each.upstream_id))
        if row is None:
            row = SourceItem(source=source, upstream_id=each.upstream_id)
            _fill(row, each)
            added.append(row)
            outcome = ADDED
        elif row.is_gone or any(getattr(row, name) != getattr(each, name) for name in _TOLD if name != "details"):
            _fill(row, each)
            row.is_gone, row.changed_at = False, timezone.now()
            row.save()
            outcome = CHANGED
        else:
            if row.details != each.details:
                SourceItem.objects.filter(pk=row.pk).update(details=each.details)
            outcome = UNCHANGED
        if each.problem:
            # A server without an endpoint is as its author wants it; a skill that cannot be read is not.
            outcome = FAILED if each.kind == SourceItem.Kind.SKILL else SKIPPED
        told.append((each.upstream_id, outcome, each.problem))
    SourceItem.objects.bulk_create(added)
    return told


def _fill(row: SourceItem, found: Found) -> None:
    for name in _TOLD:
        setattr(row, name, getattr(found, name))
    row.content = found.content


@transaction.atomic
def _gone(source: ThirdPartySource, seen: set[str]) -> list[tuple[str, str, str]]:
    rows = SourceItem.objects.filter(source=source, is_gone=False)
    gone = [row for row in rows.values_list("pk", "upstream_id") if row[1] not in seen]
    SourceItem.objects.filter(pk__in=[pk for pk, _ in gone]).update(is_gone=True, changed_at=timezone.now())
    return [(upstream_id, GONE, "The source does not offer it any more.") for _, upstream_id in gone]


def _report(job: JobRun, counts: dict[str, int], told: list[tuple[str, str, str]], *, total: int | None) -> None:
    for key, outcome, why in told:
        job.item(key, outcome, why)
        counts[outcome] += 1
    job.progress(sum(counts.values()), total)


@transaction.atomic(durable=True)
def _end(source: ThirdPartySource, *, error: str, revision: str, actor: Actor, counts: dict[str, int]) -> None:
    """Record how a sync ended; nothing, if the source was changed meanwhile and waits for approval again."""
    row = ThirdPartySource.objects.select_for_update().filter(pk=source.pk).first()
    if row is None or row.state == _State.PENDING_APPROVAL or (row.url, row.type) != (source.url, source.type):
        return
    was = row.state
    row.state = _State.ERROR if error else _State.HEALTHY
    row.sync_error = error
    if not error:
        row.last_synced_at, row.revision = timezone.now(), revision
    row.save(update_fields=["state", "sync_error", "last_synced_at", "revision"])
    is_news = was != row.state or any(counts[name] for name in (ADDED, CHANGED, GONE))
    if is_news:
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing found"
        audit.record(
            action="third_party_source.sync_failed" if error else "third_party_source.synced",
            resource=f"ThirdPartySource/{source.name}",
            message=f"Could not read third-party source {source.name}: {error}"
            if error
            else f"Synced {source.name}: {said}.",
            after={"syncStatus": str(row.state), **counts},
            actor=actor,
        )
