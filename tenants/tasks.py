"""Celery: parse, and call one service. What else workers have to know of tenants: the runners of their jobs."""

from uuid import UUID

from celery import shared_task

from tenants.services import bulk, idle, release, retained  # noqa: F401  (bulk registers its runner)


@shared_task(name="tenants.purge_retained", soft_time_limit=50, time_limit=60)
def purge_retained(data_id: str) -> None:
    retained.purge(UUID(data_id))


@shared_task(name="tenants.sweep_retained", soft_time_limit=280, time_limit=290)
def sweep_retained() -> None:
    """Every ten minutes: finish what was asked for, forget what is gone."""
    retained.sweep()


@shared_task(name="tenants.release_tenant", soft_time_limit=50, time_limit=60)
def release_tenant(name: str) -> None:
    release.take_finalizer(name)


@shared_task(name="tenants.suspend_idle", soft_time_limit=280, time_limit=290)
def suspend_idle() -> None:
    """Every minute: suspend who has not been active for a setting's minutes."""
    idle.suspend_idle()
