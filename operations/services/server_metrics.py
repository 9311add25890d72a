"""How busy the machines are, sampled once a minute."""

import time
from datetime import timedelta

import psutil
import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from cluster.errors import KubeError
from cluster.kinds import kind_named
from cluster.locks import object_lock
from cluster.nodes import NodeUsage, node_usage
from cluster.wait import waiting_slot
from opencrane.tasks import enqueue_on_commit
from operations import selectors
from operations.models import DriftSample, ServerSample

log = structlog.get_logger(__name__)

TASK = "operations.sample_server"
INTERVAL = timedelta(seconds=60)
# psutil compares two moments; from one alone it would tell the average since some earlier call.
_CPU_WINDOW_SECONDS = 0.2
_WORKER_SECONDS = 2.0
_BATCH = 50_000


def take_sample() -> ServerSample | None:
    """Sample now: the cluster's nodes where it has the metrics API, else this host. For workers.

    None when another process is at it, or has just been.
    """
    with object_lock("server-sample", "all") as held:
        newest = selectors.newest_server_sample()
        if not held or (newest is not None and newest.at > timezone.now() - INTERVAL / 2):
            return None
        try:
            usage = node_usage()
        except KubeError as exc:
            log.info("no metrics of the cluster, sampling this host", error=exc.message)
            usage = None
        return _store(usage)


def fresh_sample() -> ServerSample:
    """The newest sample, if it is no older than two intervals; else a first one, by a worker, or here if none comes.

    Only workers may ask the cluster for nodes, so a sample taken here is of this host.
    """
    newest = selectors.newest_server_sample()
    if newest is not None and newest.at > timezone.now() - 2 * INTERVAL:
        return newest
    enqueue_on_commit(TASK)
    until = time.monotonic() + _WORKER_SECONDS
    with waiting_slot() as may_wait:
        while True:
            newest = selectors.newest_server_sample()
            if newest is not None and newest.at > timezone.now() - 2 * INTERVAL:
                return newest
            if not may_wait or time.monotonic() > until:
                return _store(None)
            time.sleep(0.05)


@transaction.atomic
def _store(usage: NodeUsage | None) -> ServerSample:
    disk = psutil.disk_usage(settings.METRICS_PATH)
    memory = psutil.virtual_memory()
    sample = ServerSample.objects.create(
        source=ServerSample.Source.HOST if usage is None else ServerSample.Source.CLUSTER,
        cpu_percent=psutil.cpu_percent(_CPU_WINDOW_SECONDS)
        if usage is None
        else 100 * usage.cpu_used / usage.cpu_total,
        memory_used=memory.total - memory.available if usage is None else usage.memory_used,
        memory_total=memory.total if usage is None else usage.memory_total,
        storage_used=disk.used,
        storage_total=disk.total,
        active_tenants=kind_named("Tenant").model._default_manager.filter(phase="Running").count(),
    )
    sample.refresh_from_db(fields=["at"])
    return sample


@transaction.atomic(durable=True)
def purge_samples() -> int:
    """Drop samples of servers and of drift that are older than OPENCRANE_METRICS_DAYS; returns how many."""
    limit = timezone.now() - timedelta(days=settings.METRICS_DAYS)
    gone = 0
    for model in (ServerSample, DriftSample):
        old = model._default_manager.filter(at__lt=limit).order_by("at").values_list("pk", flat=True)[:_BATCH]
        gone += model._default_manager.filter(pk__in=list(old)).delete()[0]
    return gone
