"""Celery: parse, and call one service. What else workers have to know of tenants: the runners of their jobs."""

from uuid import UUID

from celery import shared_task

from tenants import selectors
from tenants.services import bulk, cluster_bulk, idle, provisioning, release, retained  # noqa: F401  (jobs register)


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


@shared_task(name="tenants.provision", soft_time_limit=70, time_limit=80)
def provision(cluster_tenant_id: str) -> None:
    provisioning.provision(cluster_tenant_id=UUID(cluster_tenant_id))


@shared_task(name="tenants.deprovision", soft_time_limit=70, time_limit=80)
def deprovision(cluster_tenant_id: str) -> None:
    provisioning.deprovision(cluster_tenant_id=UUID(cluster_tenant_id))


@shared_task(name="tenants.sweep_places", soft_time_limit=30, time_limit=45)
def sweep_places() -> None:
    """Every 10 s: wake a worker for each cluster tenant's place that is behind, or due to be looked at."""
    for cluster_tenant_id in selectors.places_due():
        provision.apply_async(args=(str(cluster_tenant_id),), expires=10)
    for cluster_tenant_id in selectors.places_to_clear():
        deprovision.apply_async(args=(str(cluster_tenant_id),), expires=10)
