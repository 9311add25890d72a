"""Health, metrics, logs, and a broker that is away or hangs."""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
import structlog
from django.db import connection, transaction
from prometheus_client.core import GaugeMetricFamily

from conftest import ApiClient
from devstack.folder import free_port
from opencrane import health, metrics, tasks
from opencrane.celery import app as celery_app
from opencrane.logging import mask_credentials
from opencrane.masking import mask, mask_text
from opencrane.tasks import enqueue_on_commit

# --- Health


def test_alive_asks_nobody(anonymous_api: ApiClient) -> None:
    # Without the database fixture any query would fail the test.
    assert anonymous_api.get("/healthz").json() == {"status": "alive"}
    assert anonymous_api.head("/healthz").status_code == 200
    refused = anonymous_api.post("/healthz")
    assert (refused.status_code, refused["Allow"]) == (405, "GET, HEAD")


def test_ready_names_each_dependency(anonymous_api: ApiClient, db: None) -> None:
    response = anonymous_api.get("/readyz")
    body = response.json()
    assert set(body["checks"]) == {"database", "broker", "cluster"}
    assert body["checks"]["database"]["ok"] is True
    assert body["checks"]["broker"]["ok"] is True
    away = [name for name, check in body["checks"].items() if not check["ok"]]
    assert response.status_code == (503 if away else 200)


def test_ready_says_what_is_wrong_without_a_secret(
    anonymous_api: ApiClient, db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port("127.0.0.1")
    monkeypatch.setitem(celery_app.conf, "broker_read_url", f"redis://:hunter2@127.0.0.1:{port}/0")
    monkeypatch.setitem(connection.settings_dict, "PORT", str(port))
    monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
    response = anonymous_api.get("/readyz")
    body = response.json()
    assert response.status_code == 503
    assert body["code"] == "DEPENDENCY_UNAVAILABLE"
    for name in ("database", "broker"):
        assert body["checks"][name]["ok"] is False
        assert name in body["error"]
        assert body["checks"][name]["error"] in body["detail"]
    assert b"hunter2" not in response.content


def test_a_probe_that_hangs_is_cut_off_and_asked_once(
    anonymous_api: ApiClient, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.socket()) as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen(8)  # accepts in the kernel, and never answers
        hung.setblocking(False)
        with monkeypatch.context() as patched:
            patched.setitem(celery_app.conf, "broker_read_url", f"redis://127.0.0.1:{hung.getsockname()[1]}/0")
            patched.setattr(health, "_PATIENCE_SECONDS", 0.1)
            for _ in range(6):
                checks = anonymous_api.get("/readyz").json()["checks"]
                assert "No answer within 0.1 s" in checks["broker"]["error"]
                assert set(checks) == {"database", "broker", "cluster"}
        asked = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                hung.accept()[0].close()
                asked += 1
        # The probe itself tries twice, a second apart.
        assert 1 <= asked <= 2
    # Whoever asks next may still get the answer of the probe that hung; the one after that asks anew.
    states = [anonymous_api.get("/readyz").json()["checks"]["broker"]["ok"] for _ in range(2)]
    assert states[-1] is True


# --- Metrics


def test_metrics_need_a_credential(api: ApiClient, anonymous_api: ApiClient, db: None) -> None:
    for path in ("/metrics", "/prom"):
        assert anonymous_api.get(path).status_code == 401
        assert api.get(path, headers={"Accept": "application/openmetrics-text, */*;q=0.1"}).status_code == 200


def test_metrics_count_by_route_and_survive_a_failing_collector(api: ApiClient, db: None) -> None:
    @metrics.register_collector("test good")
    def good() -> Iterator[Any]:
        yield GaugeMetricFamily("opencrane_test_figure", "x", value=7)

    @metrics.register_collector("test bad")
    def bad() -> Iterator[Any]:
        raise RuntimeError("no")

    try:
        api.get("/jobs/1b4e28ba-2fa1-11d2-883f-0016d3cca427")
        api.generic("BREW", "/jobs")
        text = api.get("/metrics").content.decode()
    finally:
        del metrics._collectors["test good"], metrics._collectors["test bad"]
    assert 'opencrane_http_request_seconds_count{method="GET",route="api/v1/jobs/<str:id>",status="404"}' in text
    assert 'method="OTHER"' in text
    assert "opencrane_test_figure 7.0" in text
    assert 'opencrane_collector_up{collector="test bad"} 0.0' in text
    assert 'opencrane_collector_up{collector="jobs"} 1.0' in text


# --- Logs


def test_credentials_are_masked_by_key_and_by_shape() -> None:
    token = "ocp_" + "a" * 48
    assert mask(
        {
            "apiKey": "x",
            "api-key": 5,
            "nested": [
                {"clientSecret": {"a": 1}},
                {"name": "DB_PASSWORD", "value": "p"},
                {"name": "MODE", "value": "m"},
            ],
            "maxTokens": 9,
            "secretName": "litellm",
            "password": None,
            "url": "redis://:pw@host/0",
            "text": f"Bearer abcdefghij {token}",
        }
    ) == {
        "apiKey": "***",
        "api-key": "***",
        "nested": [{"clientSecret": "***"}, {"name": "DB_PASSWORD", "value": "***"}, {"name": "MODE", "value": "m"}],
        "maxTokens": 9,
        "secretName": "litellm",
        "password": None,
        "url": "redis://:***@host/0",
        "text": "Bearer *** ***",
    }
    assert mask_text("postgresql://user:p%40ss@db/x and more") == "postgresql://user:***@db/x and more"


def test_a_log_line_carries_the_request_and_no_credential() -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        fields = {"event": "sent to https://u:p@h/", "token": "t"}
        event = structlog.contextvars.merge_contextvars(None, "info", fields)
    masked = mask_credentials(None, "info", event)
    assert masked == {"event": "sent to https://u:***@h/", "token": "***", "request_id": "r-1"}


def test_lines_of_libraries_have_the_same_shape(capfd: pytest.CaptureFixture[str]) -> None:
    from opencrane.logging import configure_logging

    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logging(level="INFO", log_format="json")
        logging.getLogger("some.library").warning("hello %s", "you", extra={"password": "p"})
        structlog.get_logger("ours").warning("hello", password="p")
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    finally:
        root.handlers[:], root.level = before
    assert [line["event"] for line in lines] == ["hello you", "hello"]
    for line in lines:
        assert line["level"] == "warning"
        assert line["password"] == "***"
        assert line["timestamp"].endswith("Z")
        assert line["logger"]


# --- Broker


@pytest.fixture
def real_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sends for real, to the broker at the given URL."""

    def use(url: str) -> None:
        monkeypatch.setitem(celery_app.conf, "broker_write_url", url)
        tasks._producers.cache_clear()
        tasks._breaker.reset()

    monkeypatch.setitem(celery_app.conf, "task_always_eager", False)
    yield use
    tasks._producers.cache_clear()
    tasks._breaker.reset()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("state", ["dead", "hung"])
def test_a_broker_that_is_away_costs_one_short_wait(
    real_broker: Any, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if state == "hung":
            listener.listen(8)  # accepts in the kernel, and never answers
        real_broker(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        began = time.monotonic()
        for _ in range(20):
            with transaction.atomic():
                enqueue_on_commit("operations.sweep_jobs")
        assert time.monotonic() - began < 5
    assert sum("broker away" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.django_db(transaction=True)
def test_a_task_reaches_the_queue_that_its_route_names(
    real_broker: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"test-{time.monotonic_ns()}-"
    monkeypatch.setitem(celery_app.conf.broker_transport_options, "global_keyprefix", prefix)
    real_broker(settings.REDIS_URL)
    with transaction.atomic():
        enqueue_on_commit("operations.sweep_jobs")
        enqueue_on_commit("cluster.sweep")
    with celery_app.connection_for_read() as broker:
        client: Any = broker.default_channel.client  # type: ignore[attr-defined]
        lengths = {queue: client.llen(queue) for queue in ("default", "sync")}
        client.delete("default", "sync")
    assert lengths == {"default": 1, "sync": 1}


@pytest.mark.django_db
def test_nothing_is_sent_by_a_transaction_that_fails(django_capture_on_commit_callbacks: Any) -> None:
    def fail() -> None:
        with transaction.atomic():
            enqueue_on_commit("operations.sweep_jobs")
            raise ZeroDivisionError

    with django_capture_on_commit_callbacks() as callbacks, pytest.raises(ZeroDivisionError):
        fail()
    assert callbacks == []


# --- Every pooled connection taken


@pytest.mark.django_db
def test_ready_needs_no_pooled_connection(anonymous_api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe opens a connection of its own with the same parameters, whatever Django's wrapper is doing."""
    opened: list[str] = []
    original = psycopg.connect

    def note(*args: Any, **kwargs: Any) -> Any:
        opened.append(kwargs["dbname"])
        return original(*args, **kwargs)

    monkeypatch.setattr(psycopg, "connect", note)
    assert anonymous_api.get("/readyz").json()["checks"]["database"]["ok"] is True
    assert opened == [connection.settings_dict["NAME"]]
