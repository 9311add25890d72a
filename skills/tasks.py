"""Celery tasks of skills."""

from uuid import UUID

from celery import shared_task

from skills.services import backfill as _backfill  # noqa: F401  (registers its runner)
from skills.services import bulk as _bulk  # noqa: F401  (registers its runner)
from skills.services import publishing, scanning, syncing


@shared_task(name="skills.push_bundle", soft_time_limit=180, time_limit=210)
def push_bundle(bundle_id: str) -> None:
    publishing.push_bundle(bundle_id=UUID(bundle_id))


@shared_task(name="skills.push_due", soft_time_limit=30, time_limit=45)
def push_due() -> None:
    """Every 10 s: hand out pushes whose time has come. The messages expire with the next sweep."""
    for bundle_id in publishing.pushes_due():
        push_bundle.apply_async(args=(str(bundle_id),), expires=10)


@shared_task(name="skills.start_scans", soft_time_limit=30, time_limit=45)
def start_scans() -> None:
    """Every 15 s: hand out scans that are due. The messages expire with the next sweep, so that they do not pile up."""
    for bundle_id in scanning.scans_due():
        scan_bundle.apply_async(args=(str(bundle_id),), expires=15)


# The sandbox ends a scan long before; these are for a worker that hangs around it.
@shared_task(name="skills.scan_bundle", soft_time_limit=1300, time_limit=1320)
def scan_bundle(bundle_id: str) -> None:
    scanning.scan_bundle(bundle_id=UUID(bundle_id))


@shared_task(name="skills.sync_due", soft_time_limit=30, time_limit=45)
def sync_due() -> None:
    """Every minute: start the scheduled syncs whose time has come."""
    syncing.start_due()
