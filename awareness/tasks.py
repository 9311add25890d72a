"""Celery: parse, and call one service."""

from celery import shared_task

from awareness.services import participation


@shared_task(name="awareness.purge_events", soft_time_limit=1500, time_limit=1560)
def purge_events() -> None:
    """Every half hour: let reports go that are older than a setting's days."""
    participation.purge_events()
