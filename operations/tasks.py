"""Celery tasks of operations."""

from uuid import UUID

from celery import shared_task

from operations import driftchecks as _driftchecks  # noqa: F401  (registers its runner)
from operations import repairs as _repairs  # noqa: F401  (registers its runner)
from operations import selectors
from operations.services import jobs


@shared_task(name="operations.run_job", soft_time_limit=5 * 3600, time_limit=5 * 3600 + 300)
def run_job(job_id: str) -> None:
    jobs.run_job(job_id=UUID(job_id))


@shared_task(name="operations.sweep_jobs", soft_time_limit=30, time_limit=45)
def sweep_jobs() -> None:
    """Every 10 s: hand out jobs whose message or worker was lost. The messages expire with the next sweep."""
    for job_id in selectors.jobs_to_start():
        run_job.apply_async(args=(str(job_id),), expires=10)
