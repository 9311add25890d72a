"""/healthz, /readyz and /metrics: for Kubernetes, load balancers and Prometheus.

`/healthz` says that the process answers and nothing else, so that a database outage does not restart it. `/readyz`
asks each dependency with connections of its own: it answers while every pooled connection is taken. Metrics show
names of tenants and need a credential, unless OPENCRANE_METRICS_PUBLIC is set for scrapers inside the cluster.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Lock
from typing import Any, ClassVar

import psycopg
import structlog
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from opencrane import metrics
from opencrane.api.errors import MethodNotAllowedError
from opencrane.api.responses import error_response, json_response
from opencrane.api.viewsets import ApiViewSet
from opencrane.errors import DependencyUnavailableError
from opencrane.masking import mask_text
from opencrane.tasks import impatient_options

log = structlog.get_logger(__name__)

PROBE_SECONDS = 2.0
# A little more than the probes' own limits, for those that cannot be held to them (name resolution).
_PATIENCE_SECONDS = 2.5


def _probe_database() -> None:
    parameters = connections["default"].get_connection_params()
    for django_only in ("cursor_factory", "context", "prepare_threshold", "pool"):
        parameters.pop(django_only, None)
    parameters |= {"connect_timeout": int(PROBE_SECONDS), "options": "-c statement_timeout=2000"}
    with psycopg.connect(**parameters, autocommit=True) as connection:
        connection.execute("SELECT 1")


def _probe_broker() -> None:
    from opencrane.celery import app

    # One try to connect and one to ask, within the probe's time.
    with app.connection_for_read(transport_options=impatient_options(PROBE_SECONDS / 2)) as connection:
        connection.default_channel.client.ping()  # type: ignore[attr-defined]


def _probe_cluster() -> None:
    # Late, because the Kubernetes client takes long to import and the web process may do without.
    from cluster import client

    client.ping(timeout=PROBE_SECONDS)


class _Probe:
    """One dependency's check. Whoever asks while it runs gets the same answer, so that a hung one costs one thread."""

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self.name = name
        self._check = check
        self._lock = Lock()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"probe-{name}")
        self._running: Future[dict[str, Any]] | None = None

    def start(self) -> Future[dict[str, Any]]:
        with self._lock:
            if self._running is None or self._running.done():
                self._running = self._executor.submit(self._run)
            return self._running

    def _run(self) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            self._check()
        except Exception as exc:  # noqa: BLE001  (any failure of a dependency is the answer here)
            error = mask_text(str(exc).strip() or type(exc).__name__)
            return {"ok": False, "error": error.splitlines()[0][:500]}
        return {"ok": True, "milliseconds": round((time.perf_counter() - started) * 1000, 1)}


_probes = (
    _Probe("database", _probe_database),
    _Probe("broker", _probe_broker),
    _Probe("cluster", _probe_cluster),
)


def check_dependencies() -> dict[str, dict[str, Any]]:
    """Each dependency by name: `{ok: true, milliseconds}` or `{ok: false, error}`; takes at most 2.5 s."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    started = [(probe.name, probe.start()) for probe in _probes]
    results: dict[str, dict[str, Any]] = {}
    for name, future in started:
        try:
            results[name] = future.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            results[name] = {"ok": False, "error": f"No answer within {_PATIENCE_SECONDS} s."}
    return results


def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process can answer."""
    return _method_refusal(request) or json_response(b'{"status":"alive"}')


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when database, broker and cluster answer, else 503 that names those which do not."""
    refusal = _method_refusal(request)
    if refusal is not None:
        return refusal
    checks = check_dependencies()
    away = [name for name, check in checks.items() if not check["ok"]]
    if not away:
        return json_response({"status": "ready", "checks": checks})
    log.warning("not ready", **{name: checks[name]["error"] for name in away})
    error = DependencyUnavailableError(
        f"Not ready: {', '.join(away)}.",
        detail=" ".join(f"{name}: {checks[name]['error']}" for name in away),
    )
    return json_response({**error.envelope(), "status": "unavailable", "checks": checks}, error.http_status)


def _method_refusal(request: HttpRequest) -> HttpResponse | None:
    if request.method in {"GET", "HEAD"}:
        return None
    response = error_response(MethodNotAllowedError())
    response["Allow"] = "GET, HEAD"
    return response


class MetricsViewSet(ApiViewSet):
    """Prometheus' text format."""

    resource: ClassVar[str] = "metrics"
    produces = ("text/plain", "application/openmetrics-text", "application/json")

    @extend_schema(exclude=True)
    def show(self, request: Any) -> HttpResponse:
        return HttpResponse(metrics.render(), content_type=metrics.CONTENT_TYPE)


class PublicMetricsViewSet(MetricsViewSet):
    """The same for everyone who can reach the port."""

    public = True


def metrics_view() -> Any:
    """The metrics view as OPENCRANE_METRICS_PUBLIC wants it."""
    view = PublicMetricsViewSet if settings.METRICS_PUBLIC else MetricsViewSet
    return view.as_view({"get": "show"})
