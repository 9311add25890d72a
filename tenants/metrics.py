"""Figures of the fleet for Prometheus."""

from collections.abc import Iterable

from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily, Metric

from opencrane.metrics import register_collector
from tenants.models import Phase, Tenant


@register_collector("tenants")
def tenant_metrics() -> Iterable[Metric]:
    """Tenants by the phase that operators are shown."""
    family = GaugeMetricFamily("opencrane_tenants", "Tenants by phase.", labels=["phase"])
    found = dict(Tenant.objects.order_by().values_list("phase").annotate(count=Count("pk")))
    for phase in Phase.values:
        family.add_metric([phase], found.get(phase, 0))
    yield family
