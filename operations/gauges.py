"""Figures of servers, webhooks and the drift alert for Prometheus."""

from collections.abc import Iterable

from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily, Metric

from opencrane.metrics import register_collector
from operations import selectors
from operations.models import Delivery


@register_collector("server")
def server_metrics() -> Iterable[Metric]:
    """The last sample of the machines."""
    cpu = GaugeMetricFamily("opencrane_server_cpu_percent", "Of all cores, when last sampled.", labels=["source"])
    memory = GaugeMetricFamily("opencrane_server_memory_bytes", "Memory.", labels=["source", "state"])
    storage = GaugeMetricFamily("opencrane_server_storage_bytes", "Storage of the host.", labels=["state"])
    sample = selectors.newest_server_sample()
    if sample is not None:
        cpu.add_metric([sample.source], sample.cpu_percent)
        memory.add_metric([sample.source, "used"], sample.memory_used)
        memory.add_metric([sample.source, "total"], sample.memory_total)
        storage.add_metric(["used"], sample.storage_used)
        storage.add_metric(["total"], sample.storage_total)
    yield from (cpu, memory, storage)


@register_collector("webhooks")
def webhook_metrics() -> Iterable[Metric]:
    """Deliveries that did not arrive, yet or for good."""
    family = GaugeMetricFamily("opencrane_webhook_deliveries", "Deliveries that did not arrive.", labels=["status"])
    unfinished = Delivery.objects.exclude(status=Delivery.Status.DELIVERED).order_by()
    counts = dict(unfinished.values_list("status").annotate(count=Count("pk")))
    for status in (Delivery.Status.PENDING, Delivery.Status.FAILED):
        family.add_metric([status.value], counts.get(status, 0))
    yield family


@register_collector("drift_alert")
def alert_metrics() -> Iterable[Metric]:
    """Whether drift has reached its threshold."""
    family = GaugeMetricFamily("opencrane_drift_alert", "Whether drift is at or above its threshold.")
    family.add_metric([], int(selectors.drift_alert().is_above))
    yield family


@register_collector("audit")
def audit_metrics() -> Iterable[Metric]:
    """Whether the audit trail is as it was sealed, as far as the scheduled check has come."""
    family = GaugeMetricFamily("opencrane_audit_intact", "Whether the audit trail is as it was sealed.")
    check = selectors.audit_verification()
    if check is not None:
        family.add_metric([], int(not check.broken_why))
    yield family
