"""Figures about money for Prometheus."""

from collections.abc import Iterable

from django.db import connection
from django.db.models import Count, Q
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from budgets import rules, selectors
from budgets.models import LitellmKey, UsageImport
from opencrane.metrics import register_collector


@register_collector("budgets")
def budget_metrics() -> Iterable[Metric]:
    """What was spent, and budgets by alert state."""
    everybody = selectors.global_spend()
    yield GaugeMetricFamily("opencrane_spend_usd", "Spent by everybody this month.", value=float(everybody.spend_usd))
    family = GaugeMetricFamily("opencrane_budget_state", "Budgets by alert state.", labels=["scope", "state"])
    with connection.cursor() as cursor:
        cursor.execute(selectors.BUDGET_STATES, [selectors.this_month()] * 2)
        found = {(scope, state): many for scope, state, many in cursor.fetchall()}
    found["global", everybody.state] = 1
    for scope in ("global", "account", "tenant"):
        for state in rules.ALERT_STATES:
            family.add_metric([scope, state], found.get((scope, state), 0))
    yield family


@register_collector("litellm")
def litellm_metrics() -> Iterable[Metric]:
    """Keys by state, and how the import goes."""
    live = LitellmKey.objects.exclude(state=LitellmKey.State.REVOKED).order_by()
    found = dict(live.values_list("state").annotate(many=Count("pk")))
    family = GaugeMetricFamily("opencrane_litellm_keys", "Virtual keys by state.", labels=["state"])
    for state in LitellmKey.State.values:
        if state != LitellmKey.State.REVOKED:
            family.add_metric([state], found.get(state, 0))
    yield family
    counted = live.aggregate(
        failing=Count("pk", filter=Q(failing_since__isnull=False)),
        drifted=Count("pk", filter=Q(state=LitellmKey.State.ACTIVE) & ~Q(drift="")),
    )
    yield GaugeMetricFamily("opencrane_litellm_keys_failing", "Keys whose last attempt failed.", counted["failing"])
    yield GaugeMetricFamily("opencrane_litellm_keys_drifted", "Keys that are not as meant.", counted["drifted"])
    progress = UsageImport.objects.filter(pk=1).first()
    if progress is not None and progress.last_success_at is not None:
        age = (timezone.now() - progress.last_success_at).total_seconds()
        yield GaugeMetricFamily("opencrane_usage_import_age_seconds", "Since usage was last imported.", value=age)
