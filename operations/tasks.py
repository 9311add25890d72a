"""Celery tasks of operations."""

from uuid import UUID

from celery import shared_task

from operations import (
    audit_export,  # noqa: F401  (registers its runner)
    job_files,
    sealing,
    selectors,
)
from operations import driftchecks as _driftchecks  # noqa: F401  (registers its runner)
from operations import repairs as _repairs  # noqa: F401  (registers its runner)
from operations.services import deliveries, drift_metrics, jobs, platform_dns, server_metrics, webhooks


@shared_task(name="operations.run_job", soft_time_limit=5 * 3600, time_limit=5 * 3600 + 300)
def run_job(job_id: str) -> None:
    jobs.run_job(job_id=UUID(job_id))


@shared_task(name="operations.sweep_jobs", soft_time_limit=30, time_limit=45)
def sweep_jobs() -> None:
    """Every 10 s: hand out jobs whose message or worker was lost. The messages expire with the next sweep."""
    for job_id in selectors.jobs_to_start():
        run_job.apply_async(args=(str(job_id),), expires=10)


@shared_task(name="operations.send_deliveries", soft_time_limit=40, time_limit=50)
def send_deliveries(webhook_id: str) -> None:
    deliveries.send_due(webhook_id=UUID(webhook_id))


@shared_task(name="operations.sweep_deliveries", soft_time_limit=30, time_limit=45)
def sweep_deliveries() -> None:
    """Every 10 s: wake a sender for each webhook that has something due. The messages expire with the next sweep."""
    webhooks.follow_settings()
    for webhook_id in selectors.webhooks_due():
        send_deliveries.apply_async(args=(str(webhook_id),), expires=10)


@shared_task(name="operations.purge_old", soft_time_limit=110, time_limit=120)
def purge_old() -> None:
    """Every hour: drop what is kept for a time only."""
    deliveries.purge_events()
    job_files.purge_files()
    server_metrics.purge_samples()


@shared_task(name="operations.evaluate_drift", soft_time_limit=1700, time_limit=1800)
def evaluate_drift(kind: str) -> None:
    drift_metrics.evaluate(kind)


@shared_task(name="operations.sample_server", soft_time_limit=40, time_limit=50)
def sample_server() -> None:
    server_metrics.take_sample()


@shared_task(name="operations.seal_audit", soft_time_limit=110, time_limit=120)
def seal_audit() -> None:
    """Every 30 s: seal the audit entries that have come since."""
    sealing.seal_entries()


@shared_task(name="operations.check_audit", soft_time_limit=280, time_limit=290)
def check_audit() -> None:
    """Every 5 min: check a part of the sealed audit trail, all of it in turn."""
    sealing.check_some()


@shared_task(name="operations.apply_dns", soft_time_limit=50, time_limit=60)
def apply_dns(row_id: str) -> None:
    platform_dns.apply_dns(row_id=int(row_id))


@shared_task(name="operations.sweep_dns", soft_time_limit=30, time_limit=45)
def sweep_dns() -> None:
    """Every 10 s: wake a worker for what platform DNS was asked to be and is not yet."""
    for row_id in selectors.dns_due():
        apply_dns.apply_async(args=(str(row_id),), expires=10)
