"""Prometheus metrics of this process, and a registry for figures that apps compute when asked.

A domain app registers a function that yields metric families from one or two cheap queries:

    @metrics.register_collector("sync")
    def collect() -> Iterable[Metric]: ...

It is called at each scrape. One that fails is logged and reported as `opencrane_collector_up 0`; the others go on.
With PROMETHEUS_MULTIPROC_DIR set, timings of all web processes of a host are added up.
"""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric

log = structlog.get_logger(__name__)

Collector = Callable[[], Iterable[Metric]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_own = CollectorRegistry()
_requests = Histogram(
    "opencrane_http_request_seconds",
    "Time from receiving a request to having its response.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
    registry=_own,
)
_collectors: dict[str, Collector] = {}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def register_collector(name: str) -> Callable[[Collector], Collector]:
    """Have a function asked for metrics at each scrape; a second one of the same name replaces the first."""

    def decorate(collector: Collector) -> Collector:
        _collectors[name] = collector
        return collector

    return decorate


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. The route is its pattern, never its path, and odd methods are one: labels stay few."""
    _requests.labels(method if method in _METHODS else "OTHER", route or "none", str(status)).observe(seconds)


class _Registered:
    """All registered collectors as one that prometheus_client can ask."""

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("opencrane_collector_up", "Whether figures could be computed.", labels=["collector"])
        took = GaugeMetricFamily("opencrane_collector_seconds", "How long that took.", labels=["collector"])
        for name, collector in list(_collectors.items()):
            started = time.perf_counter()
            try:
                families = list(collector())
            except Exception:  # one app's failure must not hide the others' figures
                log.exception("metrics collector failed", collector=name)
                families = []
                up.add_metric([name], 0)
            else:
                up.add_metric([name], 1)
            took.add_metric([name], time.perf_counter() - started)
            yield from families
        yield up
        yield took


def render() -> bytes:
    """Everything in Prometheus' text format."""
    registered: Any = CollectorRegistry()
    registered.register(_Registered())
    source: Any = _own
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        source = CollectorRegistry()
        multiprocess.MultiProcessCollector(source)
    return generate_latest(source) + generate_latest(registered)
