"""Celery tasks of policies."""

from celery import shared_task

from policies.services import bulk, propagation  # noqa: F401  (bulk registers the runners of its jobs)


@shared_task(name="policies.push_due", soft_time_limit=300, time_limit=330)
def push_due() -> None:
    """On each change, and every 10 s: tell Cognee what it does not know yet."""
    propagation.push_due()
