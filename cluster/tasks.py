"""Celery: parse, and call one service."""

from contextlib import suppress
from uuid import UUID

from celery import shared_task

from cluster import definitions, reconcile
from cluster import sweep as sweeping
from cluster.errors import KubeTransientError


@shared_task(name="cluster.sync_object", soft_time_limit=110, time_limit=120)
def sync_object(kind: str, object_id: str) -> None:
    reconcile.sync_object(kind, UUID(object_id))


@shared_task(name="cluster.sweep", soft_time_limit=50, time_limit=60)
def sweep() -> None:
    sweeping.sweep()


@shared_task(name="cluster.check_definitions", soft_time_limit=50, time_limit=60)
def check_definitions() -> None:
    with suppress(KubeTransientError):
        definitions.check_definitions()


@shared_task(name="cluster.purge_expired", soft_time_limit=110, time_limit=120)
def purge_expired() -> None:
    sweeping.purge_expired()
