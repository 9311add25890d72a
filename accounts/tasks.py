"""Celery: parse, and call one service."""

from celery import shared_task

from accounts.services import cleanup


@shared_task(name="accounts.purge_expired", soft_time_limit=300, time_limit=330)
def purge_expired() -> None:
    """Every hour: let go of sessions and device grants that have ended."""
    cleanup.purge_expired()
