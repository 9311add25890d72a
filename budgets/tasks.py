"""Celery tasks of money: parse, and call one service."""

import contextlib
from uuid import UUID

from celery import shared_task

from budgets import usage_export  # noqa: F401  (registers its runner)
from budgets.services import crossings, imports, key_check, key_sweep, key_sync, provider_keys
from opencrane.errors import UpstreamError


@shared_task(name="budgets.import_usage", soft_time_limit=540, time_limit=600)
def import_usage() -> None:
    imports.import_usage()


@shared_task(name="budgets.raise_crossings", soft_time_limit=30, time_limit=45)
def raise_crossings() -> None:
    crossings.raise_crossings()


@shared_task(name="budgets.sync_key", soft_time_limit=75, time_limit=90)
def sync_key(key_id: str) -> None:
    key_sync.sync_key(key_id=UUID(key_id))


@shared_task(name="budgets.sweep_keys", soft_time_limit=30, time_limit=45)
def sweep_keys() -> None:
    with contextlib.suppress(UpstreamError):
        # Without a cluster there is nowhere to put a key; health checks say so.
        key_sweep.sweep_keys()


@shared_task(name="budgets.check_keys", soft_time_limit=270, time_limit=300)
def check_keys() -> None:
    key_check.check_keys()


@shared_task(name="budgets.sync_provider_keys", soft_time_limit=45, time_limit=60)
def sync_provider_keys() -> None:
    provider_keys.sync()


@shared_task(name="budgets.sweep_provider_keys", soft_time_limit=45, time_limit=60)
def sweep_provider_keys() -> None:
    provider_keys.sweep()
