"""Reads of the audit trail and of jobs."""

from datetime import timedelta
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from operations.errors import JobNotFoundError
from operations.models import Job

# A worker beats every 5 s; one that has been silent for this long is taken for dead.
SILENT = timedelta(seconds=30)
# A queued job younger than this is still on its way through the broker.
ON_ITS_WAY = timedelta(seconds=8)


def job_by_id(job_id: UUID) -> Job:
    """The job.

    Raises:
        JobNotFoundError: there is none.
    """
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise JobNotFoundError
    return job


def job_for_update(job_id: UUID) -> Job:
    """The job, its row locked until the transaction ends.

    Raises:
        JobNotFoundError: there is none.
    """
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        raise JobNotFoundError
    return job


def jobs_to_start(limit: int = 500) -> list[UUID]:
    """Jobs no worker has: queued ones whose message seems lost, and running ones whose worker has gone silent."""
    lost = Q(status=Job.Status.QUEUED, created_at__lt=Now() - ON_ITS_WAY)
    silent = Q(status=Job.Status.RUNNING, heartbeat_at__lt=Now() - SILENT)
    return list(Job.objects.filter(lost | silent).order_by("created_at").values_list("pk", flat=True)[:limit])
