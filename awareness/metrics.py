"""Figures of the rollout for Prometheus."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from awareness.selectors import participation_counts
from opencrane.metrics import register_collector


@register_collector("participation")
def participation_metrics() -> Iterable[Metric]:
    """Tenants by what their pods report."""
    counts = participation_counts()
    family = GaugeMetricFamily(
        "opencrane_participation", "Tenants by severity of what they report.", labels=["severity"]
    )
    fine = counts["total"] - counts["critical"] - counts["warning"]
    for severity, number in (("ok", fine), ("warning", counts["warning"]), ("critical", counts["critical"])):
        family.add_metric([severity], number)
    yield family
    drifted = GaugeMetricFamily(
        "opencrane_participation_drifted", "Tenants that run another contract version than they should."
    )
    drifted.add_metric([], counts["drifted"])
    yield drifted
