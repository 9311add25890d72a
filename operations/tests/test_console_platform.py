"""The console's pages of webhooks and metrics, as people click through them."""

import ipaddress
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Role
from accounts.tests.people import signed_in
from operations.models import Delivery, DriftSample, ServerSample, Webhook
from operations.tests.receiver import Receiver


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOW = (ipaddress.ip_network("127.0.0.0/8"),)
    stub = Receiver()
    yield stub
    stub.close()


def page(client: Client, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status, response.content
    return response.content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_webhook_from_making_it_to_sending_again(receiver: Receiver) -> None:
    client = signed_in(Role.OPERATOR)
    assert "No webhooks yet" in page(client, "/admin/webhooks/")
    form = {"name": "on-call", "url": receiver.url, "events": ["job.failed"], "enabled": "on", "secret": "x"}
    refused = client.post("/admin/new-webhook/", form)
    assert refused.status_code == 400
    assert "at least 24 characters" in refused.content.decode()
    made = client.post("/admin/new-webhook/", form | {"secret": ""})
    secret = re.search(r'data-testid="secret">(whsec_[^<]+)<', made.content.decode())
    assert secret is not None
    assert "no-store" in made["Cache-Control"]
    webhook = Webhook.objects.get()
    url = f"/admin/webhooks/{webhook.pk}/"
    assert secret[1] not in page(client, url)
    receiver.answers = [410, 204]
    client.post(f"{url}do/test/")
    shown = page(client, f"{url}?status=failed")
    assert "The receiver answered 410." in shown
    client.post(f"{url}do/resend/", {"delivery": str(Delivery.objects.get().pk)})
    assert sorted(Delivery.objects.values_list("status", flat=True)) == ["delivered", "failed"]
    assert "Delivered" in page(client, url)
    client.post(f"{url}do/replay/")
    assert len(receiver.received) == 2, "what got through in the end is not replayed"
    edit = form | {"secret": "", "description": "Wakes somebody.", "generation": str(webhook.generation)}
    assert client.post(f"{url}edit/", edit).status_code == 302
    assert "Somebody else changed it" in client.post(f"{url}edit/", edit | {"name": "b"}).content.decode()
    renewed = client.post(f"{url}secret/").content.decode()
    assert "whsec_" in renewed
    webhook.refresh_from_db()
    client.post(f"{url}do/delete/", {"confirm": "no", "generation": str(webhook.generation)})
    assert Webhook.objects.exists()
    client.post(f"{url}do/delete/", {"confirm": "on-call", "generation": str(webhook.generation)})
    assert not Webhook.objects.exists()


@pytest.mark.django_db
def test_viewers_look_and_do_not_touch() -> None:
    client = signed_in(Role.VIEWER)
    webhook = Webhook.objects.create(name="on-call", url="https://hooks.example.com", events=["job.failed"])
    for path in ("/admin/webhooks/", f"/admin/webhooks/{webhook.pk}/", "/admin/metrics/"):
        assert "New webhook" not in page(client, path)
    assert client.post(f"/admin/webhooks/{webhook.pk}/do/test/").status_code == 403
    assert client.post(f"/admin/webhooks/{webhook.pk}/secret/").status_code == 403


@pytest.mark.django_db
def test_metrics_draw_what_was_sampled(settings: Any) -> None:
    client = signed_in(Role.VIEWER)
    assert "No samples yet" in page(client, "/admin/metrics/")
    settings.PROJECTION_DRIFT_ALERT_THRESHOLD = 5
    sizes = {"memory_used": 2, "memory_total": 4, "storage_used": 9, "storage_total": 10, "active_tenants": 7}
    counts = {"source_count": 1, "projection_count": 1, "drift_count": 3, "pending_count": 0, "lag_seconds": 0}
    for minutes in (1, 20):
        at = timezone.now() - timedelta(minutes=minutes)
        ServerSample.objects.create(at=at, source="host", cpu_percent=12, **sizes)
        DriftSample.objects.create(kind="Tenant", at=at, **counts)
    shown = page(client, "/admin/metrics/?span=3h")
    assert shown.count("<canvas data-chart=") == 6
    assert "Storage of this host: 90 percent" in shown
    assert "Below the threshold" in shown
