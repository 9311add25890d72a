"""Figures of the operator process, in a registry of its own; served by that process alone."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

registry = CollectorRegistry()
_seconds = Histogram(
    "opencrane_operator_reconcile_seconds",
    "Time of one look at a tenant or policy.",
    buckets=(0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=registry,
)
_looks = Counter(
    "opencrane_operator_reconciles", "Looks at tenants and policies, by how they ended.", ["outcome"], registry=registry
)
_writes = Counter("opencrane_operator_writes", "Writes to the cluster, by kind.", ["kind"], registry=registry)
queue_depth = Gauge("opencrane_operator_queue_depth", "Tenants and policies that wait.", registry=registry)
is_leader = Gauge("opencrane_operator_leader", "Whether this replica leads.", registry=registry)
tenants = Gauge("opencrane_operator_tenants", "Tenants that it looks after.", registry=registry)
definition_outdated = Gauge(
    "opencrane_operator_definition_outdated",
    "Whether the cluster's definition of a kind is missing or of another version.",
    ["definition"],
    registry=registry,
)


def observe(outcome: str, seconds: float) -> None:
    _seconds.observe(seconds)
    _looks.labels(outcome).inc()


def count_write(kind: str) -> None:
    _writes.labels(kind).inc()


def serve(port: int) -> None:
    """Answer Prometheus on a port, from a thread of its own."""
    start_http_server(port, registry=registry)
