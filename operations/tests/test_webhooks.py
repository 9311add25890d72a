"""Webhooks: who is told, what is sent and how it is signed, and receivers that are away."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from conftest import ApiClient
from operations.models import AuditEntry, Delivery, Job, Webhook, WebhookEvent
from operations.services.deliveries import purge_events, send_due
from operations.services.jobs import run_job
from operations.services.webhooks import EVENTS, emit
from operations.tasks import sweep_deliveries
from operations.tests.receiver import Receiver

LOCAL = (ipaddress.ip_network("127.0.0.0/8"),)
MISSING = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"

pytestmark = pytest.mark.django_db


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOW = LOCAL
    stub = Receiver()
    yield stub
    stub.close()


@pytest.fixture
def hook(api: ApiClient, receiver: Receiver) -> dict[str, Any]:
    """A webhook for jobs that fail and rollouts, as it was made: with its secret."""
    return make(api, receiver.url)


def make(api: ApiClient, url: str, **values: Any) -> dict[str, Any]:
    body = {"name": "on-call", "url": url, "events": ["job.failed", "rollout.changed"]} | values
    response = api.post("/webhooks", body)
    assert response.status_code == 201, response.content
    return response.json()


def say(event: str = "job.failed", key: str = "", **payload: Any) -> None:
    with transaction.atomic():
        emit(event=event, payload=payload, dedupe_key=key)
    work()


def work() -> None:
    """What workers do when the messages have come."""
    for webhook_id in Webhook.objects.order_by("created_at").values_list("pk", flat=True):
        send_due(webhook_id=webhook_id)


def deliveries(api: ApiClient, hook: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    response = api.get(f"/webhooks/{hook['id']}/deliveries{query}")
    assert response.status_code == 200, response.content
    return response.json()


def documented_check() -> Callable[..., bool]:
    """The function that docs/webhooks.md gives to receivers."""
    text = (Path(django_settings.BASE_DIR) / "docs" / "webhooks.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)  # noqa: S102
    return names["is_genuine"]


def due_now(hook: dict[str, Any]) -> None:
    """The time has passed that something was put off for."""
    Webhook.objects.filter(pk=hook["id"]).update(not_before=Now())
    Delivery.objects.filter(webhook=hook["id"]).update(not_before=Now())


# --- What is sent ----------------------------------------------------------------------------------------------------


def test_an_event_reaches_whoever_is_subscribed_signed(
    api: ApiClient, hook: dict[str, Any], receiver: Receiver
) -> None:
    make(api, f"{receiver.url}/other", name="other", events=["probe.failed"])
    make(api, f"{receiver.url}/off", name="off", enabled=False)
    say(jobId="7", token="hidden")
    (got,) = receiver.received
    assert got.path == "/hook"
    told = orjson.loads(got.body)
    assert told["type"] == got.headers["x-opencrane-event"] == "job.failed"
    assert told["data"] == {"jobId": "7", "token": "***"}
    assert told["id"] == got.headers["webhook-id"]
    assert got.headers["content-type"] == "application/json"
    is_genuine = documented_check()
    assert is_genuine(hook["secret"], got.headers, got.body)
    assert not is_genuine(hook["secret"], got.headers, got.body + b" ")
    late = got.headers | {"webhook-timestamp": str(int(got.headers["webhook-timestamp"]) - 301)}
    assert not is_genuine(hook["secret"], late, got.body)
    (delivery,) = deliveries(api, hook)
    assert (delivery["status"], delivery["attempts"], delivery["responseStatus"]) == ("delivered", 1, 204)
    assert delivery["log"][0] == delivery["log"][0] | {"status": 204, "error": ""}


def test_the_callers_own_secret_signs_and_never_comes_back(api: ApiClient, receiver: Receiver) -> None:
    own = "a text that nobody would guess"
    hook = make(api, receiver.url, secret=own)
    say()
    assert documented_check()(own, receiver.received[0].headers, receiver.received[0].body)
    pages = [
        api.get("/webhooks"),
        api.get(f"/webhooks/{hook['id']}"),
        api.get("/audit"),
        api.get(f"/webhooks/{hook['id']}/deliveries"),
    ]
    assert all(own not in page.content.decode() for page in pages)
    assert "secret" not in hook
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM operations_webhook")
        assert own not in cursor.fetchone()[0]


def test_a_new_secret_signs_what_is_sent_from_then_on(api: ApiClient, hook: dict[str, Any], receiver: Receiver) -> None:
    renewed = api.post(f"/webhooks/{hook['id']}/secret").json()["secret"]
    say()
    got = receiver.received[0]
    assert documented_check()(renewed, got.headers, got.body)
    assert not documented_check()(hook["secret"], got.headers, got.body)
    assert AuditEntry.objects.filter(action="webhook.secret_renewed", resource="Webhook/on-call").count() == 1


def test_a_key_announces_once_also_when_nobody_listened(api: ApiClient, receiver: Receiver) -> None:
    say(key="before")
    hook = make(api, receiver.url)
    for key in ("before", "after", "after", ""):
        say(key=key)
    assert len(receiver.received) == 2
    assert len(deliveries(api, hook)) == 2
    say("rollout.changed", key="after")
    assert len(receiver.received) == 3


def test_what_is_rolled_back_is_not_announced(hook: dict[str, Any], receiver: Receiver) -> None:
    with transaction.atomic():
        emit(event="job.failed", payload={})
        transaction.set_rollback(True)
    work()
    assert receiver.received == []
    assert not WebhookEvent.objects.exists()
    with pytest.raises(ValueError, match="no event"):
        say("job.exploded")


@pytest.mark.django_db(transaction=True)
def test_the_product_announces_what_it_says_it_does(api: ApiClient, receiver: Receiver) -> None:
    make(api, receiver.url, events=sorted(EVENTS))
    api.put("/awareness/rollout", {"targetVersion": "2.0.0"})
    api.post("/awareness/rollout/promote")
    api.put("/awareness/rollout", {"targetVersion": "2.0.0", "waves": ["personal"]})
    job = Job.objects.create(kind="nobody.knows", actor_kind="system", actor_name="system")
    run_job(job_id=job.pk)
    with pytest.raises(transaction.TransactionManagementError):
        emit(event="job.failed", payload={})
    told = [orjson.loads(got.body) for got in receiver.received]
    assert [each["type"] for each in told] == ["rollout.changed"] * 3 + ["job.failed"]
    assert told[1]["data"]["change"] == "promoted"
    assert told[1]["data"]["rollout"]["promotedWaves"] == ["personal"]
    assert told[3]["data"]["jobId"] == str(job.pk)


# --- Receivers in trouble --------------------------------------------------------------------------------------------


def test_what_does_not_arrive_is_tried_again_with_the_same_id(
    api: ApiClient, hook: dict[str, Any], receiver: Receiver
) -> None:
    receiver.answers = [500, 204]
    say(n=1)
    (delivery,) = deliveries(api, hook, "?status=pending")
    assert (delivery["error"], delivery["responseStatus"]) == ("The receiver answered 500.", 500)
    shown = api.get(f"/webhooks/{hook['id']}").json()
    assert (shown["failures"], shown["pendingCount"]) == (1, 1)
    assert shown["failingSince"]
    sweep_deliveries()
    assert len(receiver.received) == 1, "tried again before its time"
    due_now(hook)
    Delivery.objects.update(not_before=timezone.now() - timedelta(seconds=10))
    sweep_deliveries()
    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    (delivery,) = deliveries(api, hook)
    assert (delivery["status"], delivery["attempts"]) == ("delivered", 2)
    assert [attempt["status"] for attempt in delivery["log"]] == [500, 204]
    assert api.get(f"/webhooks/{hook['id']}").json()["failingSince"] is None


def test_a_dead_receiver_costs_one_attempt_and_gets_everything_when_it_is_back(
    api: ApiClient, hook: dict[str, Any], receiver: Receiver
) -> None:
    receiver.answers = [503]
    for n in range(5):
        say(n=n)
    assert len(receiver.received) == 1
    receiver.answers = [204]
    Webhook.objects.update(not_before=Now())
    work()
    assert len(deliveries(api, hook, "?status=delivered")) == 5


def test_a_delivery_that_is_refused_does_not_hold_up_the_others(
    api: ApiClient, hook: dict[str, Any], receiver: Receiver
) -> None:
    receiver.answers = [400, 204]
    say(n=1)
    say(n=2)
    assert [each["status"] for each in deliveries(api, hook)] == ["delivered", "pending"]
    assert api.get(f"/webhooks/{hook['id']}").json()["failures"] == 0


@pytest.mark.parametrize(("answer", "error"), [(302, "answered 302"), (404, "answered 404"), (410, "answered 410")])
def test_only_success_counts_and_gone_is_final(
    api: ApiClient, hook: dict[str, Any], receiver: Receiver, answer: int, error: str
) -> None:
    receiver.answers = [answer]
    say()
    (delivery,) = deliveries(api, hook)
    assert error in delivery["error"]
    assert delivery["status"] == ("failed" if answer == 410 else "pending")
    assert [got.path for got in receiver.received] == ["/hook"]


def test_after_a_day_it_gives_up(api: ApiClient, hook: dict[str, Any], receiver: Receiver) -> None:
    receiver.answers = [500]
    say()
    Delivery.objects.update(created_at=timezone.now() - timedelta(hours=25))
    due_now(hook)
    work()
    (delivery,) = deliveries(api, hook)
    assert (delivery["status"], delivery["nextAttemptAt"]) == ("failed", None)
    assert api.get("/webhooks").json()[0]["failedCount"] == 1


def test_addresses_are_judged_and_nobody_answers_there(api: ApiClient, receiver: Receiver, settings: Any) -> None:
    hook = make(api, receiver.url)
    settings.OUTBOUND_ALLOW = ()
    say()
    assert receiver.received == []
    assert "loopback" in deliveries(api, hook)[0]["error"]
    settings.OUTBOUND_ALLOW = LOCAL
    receiver.close()
    due_now(hook)
    work()
    assert "did not answer" in deliveries(api, hook)[0]["error"]


def test_a_key_that_is_lost_is_told_and_nothing_goes_out(
    api: ApiClient, hook: dict[str, Any], receiver: Receiver, settings: Any
) -> None:
    settings.ENCRYPTION_KEYS = [bytes(32)]
    say()
    assert receiver.received == []
    assert "key" in deliveries(api, hook)[0]["error"]


# --- Again -----------------------------------------------------------------------------------------------------------


def test_resend_makes_a_new_delivery_of_the_same_event(
    api: ApiClient, operator_api: ApiClient, viewer_api: ApiClient, hook: dict[str, Any], receiver: Receiver
) -> None:
    say(n=1)
    (old,) = deliveries(api, hook)
    path = f"/webhooks/{hook['id']}/deliveries/{old['id']}/resend"
    assert viewer_api.post(path).status_code == 403
    response = operator_api.post(path)
    work()
    assert response.status_code == 202
    assert response.json()["eventId"] == old["eventId"]
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({got.headers["x-opencrane-delivery"] for got in receiver.received}) == 2
    assert AuditEntry.objects.filter(action="webhook.resent").count() == 1
    assert api.post(f"/webhooks/{hook['id']}/deliveries/{MISSING}/resend").status_code == 404
    assert api.post(f"/webhooks/{MISSING}/deliveries/{old['id']}/resend").status_code == 404
    assert api.post(f"/webhooks/no-uuid/deliveries/{old['id']}/resend").status_code == 404


def test_resending_what_is_under_way_tries_it_now(api: ApiClient, hook: dict[str, Any], receiver: Receiver) -> None:
    receiver.answers = [500, 204]
    say()
    (old,) = deliveries(api, hook)
    api.post(f"/webhooks/{hook['id']}/deliveries/{old['id']}/resend")
    work()
    (only,) = deliveries(api, hook)
    assert (only["status"], only["attempts"]) == ("delivered", 2)


def test_replay_sends_what_failed_or_everything_once(api: ApiClient, hook: dict[str, Any], receiver: Receiver) -> None:
    receiver.answers = [410, 204]
    say(n=1)
    say(n=2)
    assert api.post(f"/webhooks/{hook['id']}/replay").json()["count"] == 1
    work()
    assert api.post(f"/webhooks/{hook['id']}/replay").json()["count"] == 0
    told = [orjson.loads(got.body)["data"]["n"] for got in receiver.received]
    assert told == [1, 2, 1]
    assert api.post(f"/webhooks/{hook['id']}/replay", {"onlyFailed": False}).json()["count"] == 2
    later = {"onlyFailed": False, "since": "2999-01-01T00:00:00Z"}
    assert api.post(f"/webhooks/{hook['id']}/replay", later).json()["count"] == 0


def test_a_test_goes_to_one_webhook_whatever_it_wants(api: ApiClient, hook: dict[str, Any], receiver: Receiver) -> None:
    make(api, f"{receiver.url}/other", name="other")
    assert api.post(f"/webhooks/{hook['id']}/test").status_code == 202
    work()
    assert [orjson.loads(got.body)["type"] for got in receiver.received] == ["webhook.test"]
    api.put(f"/webhooks/{hook['id']}", {"enabled": False})
    assert api.post(f"/webhooks/{hook['id']}/test").status_code == 409
    assert api.post(f"/webhooks/{hook['id']}/replay").status_code == 409


def test_old_events_go_with_their_deliveries(api: ApiClient, hook: dict[str, Any], settings: Any) -> None:
    say(n=1)
    say(n=2)
    oldest = WebhookEvent.objects.order_by("created_at").values("pk")[:1]
    WebhookEvent.objects.filter(pk__in=oldest).update(
        created_at=timezone.now() - timedelta(days=settings.WEBHOOK_DAYS + 1)
    )
    purge_events()
    assert [each["payload"] for each in deliveries(api, hook)] == [{"n": 2}]


# --- The API ---------------------------------------------------------------------------------------------------------


def test_a_webhook_is_made_changed_and_deleted(api: ApiClient, receiver: Receiver) -> None:
    hook = make(api, receiver.url, description="Wakes somebody.")
    path = f"/webhooks/{hook['id']}"
    first = api.get(path)
    assert first.json() == {key: value for key, value in hook.items() if key != "secret"}
    assert api.get(path, headers={"If-None-Match": first["ETag"]}).status_code == 304
    changed = api.put(path, {"events": ["probe.failed"], "description": None}, headers={"If-Match": first["ETag"]})
    assert (changed.json()["events"], changed.json()["description"]) == (["probe.failed"], None)
    assert api.put(path, {"enabled": False}, headers={"If-Match": first["ETag"]}).status_code == 412
    audited = AuditEntry.objects.count()
    assert api.put(path, {"events": ["probe.failed"]}).status_code == 200
    assert AuditEntry.objects.count() == audited, "changing nothing is not audited"
    assert [row["name"] for row in api.get("/webhooks?event=probe.failed&enabled=true&q=on-c").json()] == ["on-call"]
    assert api.get("/webhooks?event=job.failed").json() == []
    assert api.delete(path).json() == {"id": hook["id"], "status": "deleted"}
    assert [api.get(path).status_code, api.delete(path).status_code] == [404, 404]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "ftp://hooks.example.com"),
        ("url", "https://user:word@hooks.example.com/"),
        ("url", "https:///nowhere"),
        ("url", "https://ex ample.com"),
        ("url", "hooks.example.com"),
        ("url", "https://hooks.example.com:99999/"),
        ("events", []),
        ("events", ["job.exploded"]),
        ("events", "job.failed"),
        ("secret", "short"),
        ("secret", "whsec_no base64 at all, whatever"),
        ("name", ""),
        ("enabled", "yes"),
        ("colour", "red"),
    ],
)
def test_bad_bodies_name_the_field(api: ApiClient, db: None, field: str, value: Any) -> None:
    body = {"name": "x", "url": "https://hooks.example.com", "events": ["job.failed"]} | {field: value}
    response = api.post("/webhooks", body)
    assert response.status_code == 400, response.content
    assert [path.partition(".")[0] for path in response.json()["fields"]] == [field]


def test_a_name_is_taken_once(api: ApiClient, receiver: Receiver) -> None:
    make(api, receiver.url)
    other = make(api, receiver.url, name="other")
    again = api.post("/webhooks", {"name": "on-call", "url": receiver.url, "events": ["job.failed"]})
    assert (again.status_code, again.json()["code"]) == (409, "WEBHOOK_EXISTS")
    assert api.put(f"/webhooks/{other['id']}", {"name": "on-call"}).status_code == 409


def test_pages_of_deliveries(api: ApiClient, hook: dict[str, Any]) -> None:
    for n in range(3):
        say(n=n)
    page = api.get(f"/webhooks/{hook['id']}/deliveries?limit=2")
    assert [each["payload"]["n"] for each in page.json()] == [2, 1]
    rest = api.get(page["Link"].partition(">")[0][1:])
    assert [each["payload"]["n"] for each in rest.json()] == [0]


# --- The drift webhook of the settings -------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_setting_is_a_webhook_for_drift(
    api: ApiClient, receiver: Receiver, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.OUTBOUND_ALLOW = ()
    settings.DRIFT_WEBHOOK_URL, settings.DRIFT_WEBHOOK_SECRET = receiver.url, ""
    with transaction.atomic():
        emit(event="drift.threshold_crossed", payload={"kind": "Tenant"})
    (got,) = receiver.received
    call_command("drift_webhook_secret")
    assert documented_check()(capsys.readouterr().out.strip(), got.headers, got.body)
    settings.DRIFT_WEBHOOK_SECRET = "chosen by whoever runs it"
    say("drift.threshold_crossed", kind="Tenant")
    say("job.failed")
    assert len(receiver.received) == 2
    assert documented_check()("chosen by whoever runs it", receiver.received[1].headers, receiver.received[1].body)
    (shown,) = api.get("/webhooks").json()
    assert (shown["builtIn"], shown["enabled"]) == (True, True)
    assert api.put(f"/webhooks/{shown['id']}", {"enabled": False}).status_code == 409
    assert api.delete(f"/webhooks/{shown['id']}").status_code == 409
    settings.DRIFT_WEBHOOK_URL = ""
    sweep_deliveries()
    assert api.get("/webhooks").json()[0]["enabled"] is False
