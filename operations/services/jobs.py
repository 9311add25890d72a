"""Start, run, wait for, cancel and retry jobs."""

import contextlib
import time
import uuid
from typing import Any
from uuid import UUID

import structlog
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from opencrane.actor import Actor
from opencrane.errors import DomainError
from opencrane.masking import mask, mask_text
from opencrane.tasks import enqueue_on_commit
from operations import jobs
from operations.errors import (
    JobCancelledError,
    JobConflictError,
    JobLostError,
    JobNotCancellableError,
    JobNotRetryableError,
)
from operations.models import Job, JobItem
from operations.selectors import SILENT, job_by_id, job_for_update
from operations.services import audit
from operations.services.webhooks import emit

log = structlog.get_logger(__name__)

TASK = "operations.run_job"
# A job that kills its worker each time (memory, a crash in a library) has to end some day.
MAX_ATTEMPTS = 5
_FIRST_POLL_SECONDS, _LAST_POLL_SECONDS = 0.02, 0.25


@transaction.atomic(durable=True)
def start_job(*, kind: str, params: dict[str, Any], actor: Actor, exclusive_key: str = "") -> Job:
    """Queue a job and note it in the audit trail; a worker takes it after commit.

    Args:
        kind: a kind some runner is registered for (`operations.jobs.register`).
        params: what the runner gets; a JSON object without secrets, shown to everyone who may see jobs.
        actor: who asked; the runner acts in their name.
        exclusive_key: only one unfinished job may have it; empty for no such limit.

    Raises:
        JobConflictError: an unfinished job has the same exclusive_key; `detail` names it.
    """
    return _create(kind=kind, params=params, actor=actor, exclusive_key=exclusive_key, retry_of=None)


def _create(*, kind: str, params: dict[str, Any], actor: Actor, exclusive_key: str, retry_of: Job | None) -> Job:
    job = Job(
        kind=kind,
        params=params,
        exclusive_key=exclusive_key,
        retry_of=retry_of,
        actor_kind=actor.kind,
        actor_name=actor.name,
        actor_id=actor.user_id,
        actor_token=actor.token,
        request_id=actor.request_id,
        address=actor.address,
    )
    try:
        with transaction.atomic():
            job.save(force_insert=True)
    except IntegrityError as exc:
        if "job_exclusive" not in str(exc):
            raise
        other = Job.objects.filter(exclusive_key=exclusive_key, status__in=Job.ACTIVE).first()
        detail = f"Job {other.pk} is {other.status}; wait for it or cancel it." if other else "It has just ended."
        raise JobConflictError(detail=detail) from exc
    audit.record(
        action="job.started" if retry_of is None else "job.retried",
        resource=f"Job/{job.pk}",
        message=f"Started {kind}" if retry_of is None else f"Started {kind} again after job {retry_of.pk}",
        after={"kind": kind, "params": params},
        actor=actor,
    )
    enqueue_on_commit(TASK, str(job.pk))
    return job


@transaction.atomic(durable=True)
def cancel_job(*, job_id: UUID, actor: Actor) -> Job:
    """Stop a job: a queued one at once, a running one at its next checkpoint. What it has done stays done.

    Asking again changes nothing.

    Raises:
        JobNotFoundError: no such job.
        JobNotCancellableError: it has ended.
    """
    job = job_for_update(job_id)
    if job.is_finished:
        raise JobNotCancellableError(detail=f"The job is {job.status}.")
    if job.cancel_requested:
        return job
    job.cancel_requested = True
    fields = ["cancel_requested"]
    if job.status == Job.Status.QUEUED:
        job.status = Job.Status.CANCELLED
        fields.append("status")
    job.save(update_fields=fields)
    if job.status == Job.Status.CANCELLED:
        Job.objects.filter(pk=job.pk).update(finished_at=Now())
    audit.record(
        action="job.cancelled",
        resource=f"Job/{job.pk}",
        message=f"Cancelled {job.kind}",
        actor=actor,
    )
    return job


@transaction.atomic(durable=True)
def retry_job(*, job_id: UUID, actor: Actor) -> Job:
    """Start a new job with the parameters of one that went wrong; it works on the failed items only, if there are any.

    Raises:
        JobNotFoundError: no such job.
        JobNotRetryableError: it is under way, or nothing in it went wrong.
        JobConflictError: as for `start_job`.
    """
    job = job_for_update(job_id)
    went_wrong = job.status in (Job.Status.FAILED, Job.Status.CANCELLED) or bool(jobs.failed_keys(job.pk))
    if not job.is_finished or not went_wrong:
        raise JobNotRetryableError(detail=f"The job is {job.status}.")
    return _create(kind=job.kind, params=job.params, actor=actor, exclusive_key=job.exclusive_key, retry_of=job)


def wait_for_job(job_id: UUID, timeout_seconds: float) -> Job:
    """The job once it has ended, or as it is when the time is up.

    Holds no database connection while it sleeps.

    Raises:
        JobNotFoundError: no such job.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = _FIRST_POLL_SECONDS
    while True:
        job = job_by_id(job_id)
        left = deadline - time.monotonic()
        if job.is_finished or left <= 0:
            return job
        if not connection.in_atomic_block:
            connection.close()
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LAST_POLL_SECONDS)


def run_job(*, job_id: UUID) -> None:
    """Run a job to its end, unless it has one already or another worker is at it. Safe to run twice or in parallel."""
    claimed = _claim(job_id)
    if claimed is None:
        return
    job, lease = claimed
    actor = actor_of_job(job)
    runner = jobs.runner_for(job.kind)
    if runner is None:
        _finish(job, lease, status=Job.Status.FAILED, error=f"No worker knows jobs of kind {job.kind}.")
        return
    only_keys = (jobs.failed_keys(job.retry_of_id) or None) if job.retry_of_id else None
    run = jobs.JobRun(job=job, lease=lease, only_keys=only_keys)
    with run, structlog.contextvars.bound_contextvars(job_id=str(job.pk), actor=actor.name):
        try:
            result = runner(run, job.params, actor)
            run.flush()
        except JobLostError:
            log.warning("job taken over by another worker", kind=job.kind)
        except JobCancelledError:
            _flush_quietly(run)
            _finish(job, lease, status=Job.Status.CANCELLED)
        except DomainError as exc:
            _flush_quietly(run)
            told = exc.envelope() | {"status": exc.http_status}
            sentence = " ".join(filter(None, [exc.message, exc.detail]))
            _finish(job, lease, status=Job.Status.FAILED, result=told, error=sentence)
        except (OperationalError, InterfaceError):
            # Nothing can be written down now. The heartbeat goes stale, and the sweep starts the job over.
            log.exception("database away during job", kind=job.kind)
        except Exception as exc:
            log.exception("job crashed", kind=job.kind)
            _flush_quietly(run)
            _finish(job, lease, status=Job.Status.FAILED, error=f"The job crashed ({type(exc).__name__}); see the log.")
        else:
            _finish(job, lease, status=Job.Status.SUCCEEDED, result=result)


def actor_of_job(job: Job) -> Actor:
    """Who started the job, as the audit trail should name them."""
    return Actor(
        kind=job.actor_kind,
        name=job.actor_name,
        user_id=job.actor_id,
        request_id=job.request_id,
        address=job.address,
        token=job.actor_token,
    )


@transaction.atomic
def _claim(job_id: UUID) -> tuple[Job, UUID] | None:
    job = Job.objects.select_for_update(skip_locked=True).filter(pk=job_id, status__in=Job.ACTIVE).first()
    if job is None:
        return None
    if job.status == Job.Status.RUNNING:
        silent = Job.objects.filter(pk=job_id, heartbeat_at__lt=Now() - SILENT).exists()
        if not silent:
            return None
        if job.cancel_requested or job.attempts >= MAX_ATTEMPTS:
            gave_up = f"The worker died {job.attempts} times while at it."
            status = Job.Status.CANCELLED if job.cancel_requested else Job.Status.FAILED
            _end(job, status=status, error="" if job.cancel_requested else gave_up)
            return None
    lease = uuid.uuid4()
    Job.objects.filter(pk=job_id).update(
        status=Job.Status.RUNNING,
        lease=lease,
        attempts=F("attempts") + 1,
        started_at=Now(),
        heartbeat_at=Now(),
        done=0,
        total=None,
    )
    # What a dead worker noted is noted again by the new run.
    JobItem.objects.filter(job_id=job_id).delete()
    return job, lease


def _flush_quietly(run: jobs.JobRun) -> None:
    with contextlib.suppress(JobLostError):
        run.flush()


@transaction.atomic
def _finish(
    job: Job, lease: UUID, *, status: Job.Status, result: dict[str, Any] | None = None, error: str = ""
) -> None:
    still_ours = Job.objects.select_for_update().filter(pk=job.pk, lease=lease, status=Job.Status.RUNNING).first()
    if still_ours is not None:
        _end(still_ours, status=status, result=result, error=error)


def _end(job: Job, *, status: Job.Status, result: dict[str, Any] | None = None, error: str = "") -> None:
    Job.objects.filter(pk=job.pk).update(
        status=status,
        result=None if result is None else mask(result),
        error=mask_text(error),
        finished_at=Now(),
        lease=None,
    )
    if status != Job.Status.CANCELLED:
        audit.record(
            action=f"job.{status}",
            resource=f"Job/{job.pk}",
            message=f"{job.kind} {status}" + (f": {error}" if error else ""),
            actor=actor_of_job(job),
        )
    if status == Job.Status.FAILED:
        emit(
            event="job.failed",
            payload={"jobId": str(job.pk), "kind": job.kind, "error": mask_text(error), "startedBy": job.actor_name},
            dedupe_key=str(job.pk),
        )
