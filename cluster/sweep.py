"""The guarantee behind the fast path: every few seconds, find what lags and wake a worker for it.

A lost message, a dead worker or a broker that was away costs time, not data.
"""

import logging
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from cluster.client import cluster_client, ping
from cluster.errors import KubeError, KubeTransientError
from cluster.intent import SYNC_TASK
from cluster.kinds import Kind, all_kinds, kind_named, row_id_of
from cluster.locks import object_lock
from cluster.models import ClusterHealth, Outcome, Tombstone
from cluster.reconcile import note_reachable, note_unreachable
from opencrane.tasks import enqueue_on_commit

log = logging.getLogger(__name__)

BATCH = 500
PING_SECONDS = 2.0
# A row is not swept twice while its message may still wait in the queue.
SWEPT_FOR = timedelta(seconds=15)
# The message of the write itself gets a moment to arrive first.
FAST_PATH = timedelta(seconds=1)
KEPT_FOR = timedelta(hours=1)
# A request of a killed worker lands within seconds; the later looks are for what nobody thought of.
TOMBSTONE_CHECKS = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 30, 60, 300, 1800))


def sweep() -> int:
    """Wake workers for every kind's lagging rows and look after tombstones; returns how many rows were woken."""
    with object_lock("sweep", "all") as held:
        if not held:
            return 0
        _look_after_cluster()
        woken = sum(_wake_lagging(kind) for kind in all_kinds())
        _bury()
        return woken


def _wake_lagging(kind: Kind[Any]) -> int:
    now = timezone.now()
    with transaction.atomic(durable=True):
        due = list(
            kind.model._default_manager.filter(
                Q(sync_swept_at__isnull=True) | Q(sync_swept_at__lt=now - SWEPT_FOR),
                observed_generation__lt=F("generation"),
                sync_not_before__lte=now - FAST_PATH,
            )
            .order_by("sync_not_before")
            .values_list("pk", flat=True)[:BATCH]
        )
        kind.model._default_manager.filter(pk__in=due).update(sync_swept_at=now)
        for object_id in due:
            enqueue_on_commit(SYNC_TASK, kind.name, str(object_id))
    return len(due)


def _look_after_cluster() -> None:
    """While the cluster is away, ask it again: writes are refused on that ground, and backoffs end when it is back."""
    if not ClusterHealth.objects.filter(unreachable_since__isnull=False).exists():
        return
    try:
        ping(PING_SECONDS)
    except KubeTransientError as exc:
        with transaction.atomic(durable=True):
            note_unreachable(exc.message)
    else:
        with transaction.atomic(durable=True):
            note_reachable()


def _bury() -> None:
    """Delete resources that carry the id of a row that is gone."""
    now = timezone.now()
    for tombstone in Tombstone.objects.filter(next_check_at__lte=now).order_by("next_check_at")[:BATCH]:
        try:
            _remove_late_resource(tombstone)
        except KubeError as exc:
            log.warning("could not look for %s %s: %s", tombstone.kind, tombstone.name, exc.message)
            return
        wait = TOMBSTONE_CHECKS[min(tombstone.checks, len(TOMBSTONE_CHECKS) - 1)]
        Tombstone.objects.filter(pk=tombstone.pk).update(checks=F("checks") + 1, next_check_at=now + wait)


def _remove_late_resource(tombstone: Tombstone) -> None:
    kind = kind_named(tombstone.kind)
    live = cluster_client().get(kind.resource, tombstone.name)
    if live is None or row_id_of(live) != str(tombstone.object_id):
        return
    uid = live["metadata"]["uid"]
    if kind.model._default_manager.filter(cluster_uid=uid).exists():
        return
    log.warning("deleting %s %s, whose row is gone", kind.name, tombstone.name)
    cluster_client().delete(kind.resource, tombstone.name, uid=uid)


def purge_expired() -> int:
    """Drop outcomes and tombstones older than an hour; returns how many."""
    limit = timezone.now() - KEPT_FOR
    outcomes, _ = Outcome.objects.filter(created_at__lt=limit).delete()
    tombstones, _ = Tombstone.objects.filter(created_at__lt=limit).delete()
    return outcomes + tombstones
