"""How busy this host is, and what is kept of it."""

from datetime import timedelta
from typing import Any

import psutil
import pytest
from django.utils import timezone

from conftest import ApiClient
from operations.models import DriftSample, ServerSample
from operations.services.server_metrics import purge_samples
from tenants.models import Tenant

GIB = 1024**3


def sample(minutes_ago: float, **values: Any) -> ServerSample:
    figures = {
        "source": "host",
        "cpu_percent": 10.0,
        "memory_used": GIB,
        "memory_total": 4 * GIB,
        "storage_used": 5 * GIB,
        "storage_total": 9 * GIB,
        "active_tenants": 3,
    }
    return ServerSample.objects.create(at=timezone.now() - timedelta(minutes=minutes_ago), **figures | values)


@pytest.mark.django_db
def test_the_newest_sample_is_shown_while_it_is_young(api: ApiClient, django_assert_num_queries: Any) -> None:
    sample(5, cpu_percent=99)
    newest = sample(1.5)
    with django_assert_num_queries(1):
        shown = api.get("/api/v1/metrics/server").json()
    assert shown == {
        "cpuPercent": 10.0,
        "memoryUsedBytes": GIB,
        "memoryTotalBytes": 4 * GIB,
        "storageUsedBytes": 5 * GIB,
        "storageTotalBytes": 9 * GIB,
        "activeTenants": 3,
        "source": "host",
        "sampledAt": newest.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


@pytest.mark.django_db(transaction=True)
def test_a_first_sample_is_taken_in_the_request(api: ApiClient) -> None:
    """Also when the last one is old. Here the cluster has no metrics API, so it is of this host."""
    Tenant.objects.create(name="anna", display_name="Anna", email="anna@example.com", status_phase="Running")
    Tenant.objects.create(name="ben", display_name="Ben", email="b@example.com", status_phase="Running", suspended=True)
    sample(3)
    shown = api.get("/api/v1/metrics/server").json()
    assert shown["source"] == "host"
    assert shown["activeTenants"] == 1
    assert 0 <= shown["cpuPercent"] <= 100
    assert 0 < shown["memoryUsedBytes"] < shown["memoryTotalBytes"] == psutil.virtual_memory().total
    assert shown["storageTotalBytes"] == psutil.disk_usage("/").total
    assert api.get("/api/v1/metrics/server").json() == shown
    assert ServerSample.objects.count() == 2


@pytest.mark.django_db
def test_history_is_averaged_and_does_not_mix_hosts_and_clusters(api: ApiClient) -> None:
    for minutes in range(0, 60, 5):
        sample(minutes, cpu_percent=20 if minutes < 30 else 40)
    sample(7, source="metrics.k8s.io", cpu_percent=100)
    now = timezone.now()
    since = now - timedelta(hours=10)
    points = api.get("/api/v1/metrics/server/history", {"since": since.isoformat(), "until": now.isoformat()}).json()
    assert {point["cpuPercent"] for point in points} == {20.0, 40.0}
    assert [point["at"] for point in points] == sorted(point["at"] for point in points)
    long = api.get("/api/v1/metrics/server/history", {"since": "2020-01-01", "until": now.isoformat()}).json()
    assert [point["cpuPercent"] for point in long] == [30.0]
    assert api.get("/api/v1/metrics/server/history?until=2020-01-01").json() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=yesterday", "since"),
        ("since=2999-01-01", "since"),
        ("since=1900-01-01", "since"),
        ("until=0001-01-01", "until"),
    ],
)
def test_spans_that_make_no_sense(api: ApiClient, query: str, field: str) -> None:
    for path in ("server", "projection-drift"):
        response = api.get(f"/api/v1/metrics/{path}/history?{query}")
        assert (response.status_code, list(response.json()["fields"])) == (400, [field])


@pytest.mark.django_db
def test_samples_are_kept_for_a_time(settings: Any) -> None:
    settings.METRICS_DAYS = 2
    counts = {"source_count": 1, "projection_count": 1, "drift_count": 0, "pending_count": 0, "lag_seconds": 0}
    for days in (1, 3):
        sample(days * 24 * 60)
        DriftSample.objects.create(kind="Tenant", at=timezone.now() - timedelta(days=days), **counts)
    assert purge_samples() == 2
    assert (ServerSample.objects.count(), DriftSample.objects.count()) == (1, 1)
