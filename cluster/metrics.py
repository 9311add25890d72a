"""Figures of the sync engine for Prometheus, from one cheap query per kind at each scrape."""

from collections.abc import Iterable

from django.db.models import Count, F, Min, Q
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from cluster.kinds import all_kinds
from cluster.models import ClusterHealth, Definition, DriftEvaluation
from opencrane.metrics import register_collector


@register_collector("sync")
def sync_metrics() -> Iterable[Metric]:
    """Writes that the cluster has not confirmed: how many, how old the oldest attempt, how many fail."""
    depth = GaugeMetricFamily("opencrane_sync_queue_depth", "Rows ahead of the cluster.", labels=["kind"])
    failing = GaugeMetricFamily("opencrane_sync_failing", "Of these, rows whose last attempt failed.", labels=["kind"])
    age = GaugeMetricFamily(
        "opencrane_sync_oldest_seconds", "Age of the oldest write that is not confirmed.", labels=["kind"]
    )
    now = timezone.now()
    for kind in all_kinds():
        found = kind.model._default_manager.filter(observed_generation__lt=F("generation")).aggregate(
            depth=Count("pk"), failing=Count("pk", filter=Q(sync_failing_since__isnull=False)), oldest=Min("updated_at")
        )
        depth.add_metric([kind.name], found["depth"])
        failing.add_metric([kind.name], found["failing"])
        age.add_metric([kind.name], (now - found["oldest"]).total_seconds() if found["oldest"] else 0)
    yield from (depth, failing, age)


@register_collector("cluster")
def cluster_metrics() -> Iterable[Metric]:
    """Whether the workers reach the API server."""
    away = ClusterHealth.objects.filter(unreachable_since__isnull=False).exists()
    yield GaugeMetricFamily("opencrane_cluster_reachable", "Whether workers reach the cluster.", value=0 if away else 1)


@register_collector("definitions")
def definition_metrics() -> Iterable[Metric]:
    """Whether the cluster's definitions of our kinds are those of this version."""
    outdated = GaugeMetricFamily(
        "opencrane_definition_outdated",
        "Whether the cluster's definition of a kind is missing or of another version.",
        labels=["definition"],
    )
    for definition in Definition.objects.all():
        outdated.add_metric([definition.name], 1 if definition.problem else 0)
    yield outdated


@register_collector("drift")
def drift_metrics() -> Iterable[Metric]:
    """What the last scheduled comparison of each kind found."""
    count = GaugeMetricFamily("opencrane_drift_count", "Mismatches between cluster and rows.", labels=["kind"])
    pending = GaugeMetricFamily("opencrane_drift_pending", "Rows left out as writes were in flight.", labels=["kind"])
    age = GaugeMetricFamily("opencrane_drift_evaluation_age_seconds", "Since the last comparison.", labels=["kind"])
    seconds = GaugeMetricFamily("opencrane_drift_evaluation_seconds", "How long it took.", labels=["kind"])
    failed = GaugeMetricFamily("opencrane_drift_evaluation_failed", "Whether the latest one failed.", labels=["kind"])
    now = timezone.now()
    for evaluation in DriftEvaluation.objects.all():
        labels = [evaluation.kind]
        count.add_metric(labels, evaluation.drift_count)
        pending.add_metric(labels, evaluation.pending_count)
        age.add_metric(labels, (now - evaluation.evaluated_at).total_seconds())
        seconds.add_metric(labels, evaluation.duration_seconds)
        failed.add_metric(labels, 1 if evaluation.failed_at else 0)
    yield from (count, pending, age, seconds, failed)
