"""Metrics: how busy the machines are, and how far rows and resources disagree, over time."""

from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any, Final

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from cluster.kinds import all_kinds
from opencrane.console.charts import Chart, Series, Tone, chart
from opencrane.console.pages import ConsolePage
from operations import selectors
from operations.models import ServerSample

SPANS = {"3h": ("3 hours", 3), "24h": ("24 hours", 24), "7d": ("7 days", 7 * 24), "30d": ("30 days", 30 * 24)}
FIRST_SPAN = "24h"
STALE = timedelta(minutes=3)
TONES: Final[tuple[Tone, ...]] = ("main", "second", "third")


class MetricsPage(ConsolePage):
    resource = "metrics"
    title = "Metrics"
    template_name = "operations/metrics.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        span = request.GET.get("span", "")
        span = span if span in SPANS else FIRST_SPAN
        now = timezone.now()
        since = now - timedelta(hours=SPANS[span][1])
        sample = selectors.newest_server_sample()
        points = selectors.server_history(since, now)
        drift = selectors.drift_history(since, now)
        known = selectors.drift_evaluations()
        return self.render(
            {
                "span": span,
                "spans": [(key, words) for key, (words, _) in SPANS.items()],
                "sample": sample,
                "is_stale": sample is not None and sample.at < now - STALE,
                "usage": usage_of(sample) if sample else [],
                "charts": server_charts(points) if len(points) > 1 else [],
                "drift_charts": drift_charts(drift) if drift else [],
                "kinds": [
                    {"name": kind.name, "found": known.get(kind.name), "lag": selectors.projection_lag(kind.name)}
                    for kind in all_kinds()
                ],
                "alert": selectors.drift_alert(),
                "threshold": settings.PROJECTION_DRIFT_ALERT_THRESHOLD,
                "days": settings.METRICS_DAYS,
            }
        )


def usage_of(sample: ServerSample) -> list[dict[str, Any]]:
    """CPU, memory and storage as bars: a word, percent, and what of what."""
    parts = [{"label": "CPU", "percent": round(sample.cpu_percent), "used": None, "total": None}]
    for label, used, total in (
        ("Memory", sample.memory_used, sample.memory_total),
        ("Storage of this host", sample.storage_used, sample.storage_total),
    ):
        percent = round(100 * used / total) if total else 0
        parts.append({"label": label, "percent": percent, "used": used, "total": total})
    return parts


def server_charts(points: list[dict[str, Any]]) -> list[Chart]:
    """Charts of the machines."""
    labels = [_moment(point["at"]) for point in points]

    def line(label: str, key: str, tone: Tone = "main") -> Series:
        return Series(label, [point[key] for point in points], tone=tone)

    memory = [line("used", "memoryUsedBytes"), line("total", "memoryTotalBytes", "limit")]
    storage = [line("used", "storageUsedBytes"), line("total", "storageTotalBytes", "limit")]
    return [
        chart("CPU", "percent", labels, [line("CPU in percent", "cpuPercent")]),
        chart("Memory", "bytes", labels, memory),
        chart("Storage", "bytes", labels, storage),
        chart("Tenants that run", "count", labels, [line("tenants", "activeTenants")]),
    ]


def drift_charts(points: list[dict[str, Any]]) -> list[Chart]:
    """Charts of drift and of lag, a line for each kind."""
    moments = sorted({point["at"] for point in points})
    kinds = sorted({point["kind"] for point in points})
    found = {(point["at"], point["kind"]): point for point in points}

    def lines(key: str) -> list[Series]:
        return [
            Series(kind, [found[at, kind][key] if (at, kind) in found else None for at in moments], tone=tone)
            for kind, tone in zip(kinds, cycle(TONES))
        ]

    labels = [_moment(at) for at in moments]
    return [
        chart("Drift: mismatches found", "count", labels, lines("driftCount")),
        chart("Lag: age of the oldest unconfirmed write", "seconds", labels, lines("maxProjectionLagSeconds")),
    ]


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%d %b %H:%M")


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("metrics/", MetricsPage.as_view(), "metrics")
    site.add_navigation("Operations", "Metrics", "monitoring", "admin:metrics", resource="metrics", position=44)
