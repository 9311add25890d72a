"""Drift reports and repair, for every dual-written kind: what API, console and CLI call."""

from typing import Any

from django.conf import settings

from cluster import repair
from cluster.kinds import kind_named
from cluster.wait import waiting_slot
from opencrane.actor import Actor
from opencrane.errors import DomainError
from operations import jobs
from operations.jobs import JobRun
from operations.models import Job
from operations.services.jobs import start_job, wait_for_job

REPAIR = "cluster.repair"


def drift_report(kind_name: str) -> dict[str, Any]:
    """Compare every resource of a kind with its row, now.

    Raises:
        UpstreamError: the cluster could not be listed.
    """
    mismatches, counts = repair.found_drift(kind_name)
    report: list[dict[str, Any]] = []
    for mismatch in mismatches:
        entry: dict[str, Any] = {"name": mismatch.name, "issue": mismatch.issue}
        if mismatch.fields:
            entry |= {"fields": mismatch.fields, "differences": mismatch.differences}
        if mismatch.managers:
            entry["managers"] = mismatch.managers
        report.append(entry)
    return {
        "resource": kind_name,
        "mode": "detect-only",
        "comparedFields": sorted(kind_named(kind_name).fields),
        "summary": {
            "sourceCount": counts.source_count,
            "projectionCount": counts.projection_count,
            "driftCount": counts.drift_count,
            "pendingCount": counts.pending_count,
        },
        "mismatches": report,
    }


def repair_plan(kind_name: str, *, names: list[str] | None = None) -> dict[str, Any]:
    """What a repair would do; changes nothing.

    Raises:
        UpstreamError: the cluster could not be listed.
        ConflictError: it lists nothing, while rows exist.
    """
    entries = repair.plan(kind_name, names=names)
    return _report(kind_name, entries, dry_run=True)


def start_repair(kind_name: str, *, names: list[str] | None = None, actor: Actor) -> Job:
    """Start the job that lets the custom resources win; all of them, or those of `names`.

    Raises:
        ConflictError: a repair of this kind is under way.
    """
    params = {"kind": kind_name, "names": names}
    return start_job(kind=REPAIR, params=params, actor=actor, exclusive_key=f"{REPAIR}:{kind_name}")


def repair_and_wait(kind_name: str, *, names: list[str] | None = None, actor: Actor) -> Job:
    """Start a repair and give it 10 s to end; the job that is returned may still be running.

    Raises:
        UpstreamError, ConflictError: the job failed before anything changed.
    """
    job = start_repair(kind_name, names=names, actor=actor)
    with waiting_slot() as taken:
        if taken:
            job = wait_for_job(job.pk, settings.REPAIR_WAIT_SECONDS)
    if job.status == Job.Status.FAILED and (job.result or {}).get("code"):
        raise refusal(job)
    return job


def refusal(job: Job) -> DomainError:
    """The error that a repair job ended with, as the caller who waits for it gets to see it."""
    told = job.result or {}
    error = DomainError(str(told.get("error", job.error)), detail=str(told.get("detail", "")), code=str(told["code"]))
    error.http_status = int(told.get("status", 500))
    return error


@jobs.register(REPAIR)
def run_repair(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """The job's runner: repairs each mismatch and reports it as an item. Starting over repeats nothing."""
    total = 0

    def started(count: int) -> None:
        nonlocal total
        total = count
        job.progress(0, total)

    names = params.get("names")
    if job.only_keys is not None:
        names = sorted(job.only_keys)
    entries = []
    for entry in repair.apply(params["kind"], names=names, actor=actor, on_start=started):
        entries.append(entry)
        job.item(entry.name, entry.action, entry.reason, entry.as_json(dry_run=False))
        job.progress(len(entries), total)
        job.checkpoint()
    return _report(params["kind"], entries, dry_run=False)


def _report(kind_name: str, entries: list[repair.Entry], *, dry_run: bool) -> dict[str, Any]:
    skipped = sum(entry.action == "skipped" for entry in entries)
    return {
        "resource": kind_name,
        "mode": "dry-run" if dry_run else "apply",
        "repairedCount": len(entries) - skipped,
        "skippedCount": skipped,
        "entries": [entry.as_json(dry_run=dry_run) for entry in entries],
    }
