"""Send what webhooks are to be told, as often as it takes.

One sender per webhook at a time, which takes everything that is due, oldest first. A receiver that does not answer, or
answers that it is in trouble, pauses its webhook; one that answers anything else only puts off the one delivery.
"""

import ipaddress
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from cluster.locks import object_lock
from opencrane.addresses import Network
from opencrane.errors import DomainError
from opencrane.outbound import RefusedAddressError, guarded_client
from operations import signing
from operations.models import Delivery, Webhook, WebhookEvent
from operations.services.webhooks import secret_of

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 5.0
# A run ends after this, so that one busy webhook does not hold a worker; the sweep goes on.
RUN_SECONDS = 20.0
# Until then no other run takes a delivery that this one is at; longer than the task may take.
LEASE = timedelta(seconds=60)
FIRST_DELAY_SECONDS = 10.0
MAX_DELAY_SECONDS = 3600.0
MAX_PAUSE_SECONDS = 300.0
GIVE_UP_AFTER = timedelta(hours=24)
KEPT_ATTEMPTS = 10
_INTERRUPTED = "The attempt was interrupted, or took too long."
# The address of a built-in webhook comes from whoever runs OpenCrane, like every other setting.
_ANYWHERE: tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt went.

    Attributes:
        status: HTTP status; None when there was no answer.
        error: why it does not count as delivered; empty when it does.
        latency_ms: until the status line, or until it failed.
    """

    status: int | None
    error: str
    latency_ms: float

    @property
    def is_in_trouble(self) -> bool:
        """Whether anything else sent there would fare no better for now."""
        return bool(self.error) and (self.status is None or self.status >= 500 or self.status == 429)


def send_due(*, webhook_id: UUID) -> int:
    """Send what is due to one webhook; returns how many got through. Quietly nothing when somebody else is at it."""
    with object_lock("webhook", webhook_id) as held:
        webhook = Webhook.objects.filter(pk=webhook_id).first()
        if not held or webhook is None:
            return 0
        allowed: Sequence[Network] = _ANYWHERE if webhook.built_in else settings.OUTBOUND_ALLOW
        done, until = 0, time.monotonic() + RUN_SECONDS
        with guarded_client(allowed, timeout_seconds=TIMEOUT_SECONDS) as client:
            while time.monotonic() < until and (claimed := _claim(webhook_id)) is not None:
                webhook, delivery = claimed
                answer = _post(client, webhook, delivery)
                done += not answer.error
                _record(webhook, delivery, answer)
        return done


@transaction.atomic(durable=True)
def _claim(webhook_id: UUID) -> tuple[Webhook, Delivery] | None:
    """The next delivery that is due, marked as tried; None when there is none or the webhook pauses."""
    webhook = Webhook.objects.filter(pk=webhook_id, enabled=True, not_before__lte=Now()).first()
    if webhook is None:
        return None
    due = Delivery.objects.filter(webhook=webhook, status=Delivery.Status.PENDING, not_before__lte=Now())
    delivery = due.select_related("event").order_by("not_before", "created_at").first()
    if delivery is None:
        return None
    delivery.attempts += 1
    Delivery.objects.filter(pk=delivery.pk).update(
        attempts=delivery.attempts, not_before=timezone.now() + LEASE, error=_INTERRUPTED
    )
    return webhook, delivery


def message(event: WebhookEvent) -> bytes:
    """The body of a request, the same at each attempt."""
    told = {"id": event.pk, "type": event.event, "timestamp": event.created_at, "data": event.payload}
    return orjson.dumps(told, option=orjson.OPT_UTC_Z)


def _post(client: httpx.Client, webhook: Webhook, delivery: Delivery) -> Answer:
    """One attempt. Only the status counts: what else the receiver says is not read."""
    body = message(delivery.event)
    now, started = int(time.time()), time.perf_counter()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "OpenCrane",
        "webhook-id": str(delivery.event_id),
        "webhook-timestamp": str(now),
        "x-opencrane-event": delivery.event.event,
        "x-opencrane-delivery": str(delivery.pk),
    }
    status, error = None, ""
    try:
        headers["webhook-signature"] = signing.signature(secret_of(webhook), str(delivery.event_id), now, body)
        with client.stream("POST", webhook.url, content=body, headers=headers) as response:
            status = response.status_code
            error = "" if response.is_success else f"The receiver answered {status}."
    except (DomainError, RefusedAddressError) as exc:
        error = str(exc)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        error = f"The receiver did not answer ({type(exc).__name__})."
    return Answer(status, error, round((time.perf_counter() - started) * 1000, 1))


@transaction.atomic(durable=True)
def _record(webhook: Webhook, delivery: Delivery, answer: Answer) -> None:
    now = timezone.now()
    attempt = {"at": now, "status": answer.status, "error": answer.error, "latencyMs": answer.latency_ms}
    values: dict[str, Any] = {
        "response_status": answer.status,
        "error": answer.error,
        "log": [*delivery.log, orjson.loads(orjson.dumps(attempt, option=orjson.OPT_UTC_Z))][-KEPT_ATTEMPTS:],
    }
    if not answer.error:
        values |= {"status": Delivery.Status.DELIVERED, "finished_at": now}
        if webhook.failures:
            _recovered(webhook)
    else:
        log.info("webhook not delivered", webhook=webhook.name, delivery=str(delivery.pk), error=answer.error)
        # 410: the receiver wants no more of it.
        if answer.status == 410 or now - delivery.created_at > GIVE_UP_AFTER:
            values |= {"status": Delivery.Status.FAILED, "finished_at": now}
        else:
            values["not_before"] = now + _delay(delivery.attempts - 1, MAX_DELAY_SECONDS)
        if answer.is_in_trouble:
            Webhook.objects.filter(pk=webhook.pk).update(
                failures=F("failures") + 1,
                failing_since=Coalesce(F("failing_since"), Now()),
                not_before=now + _delay(webhook.failures, MAX_PAUSE_SECONDS),
            )
    Delivery.objects.filter(pk=delivery.pk).update(**values)


def _recovered(webhook: Webhook) -> None:
    """The receiver is back: what was put off meanwhile is due at once."""
    Webhook.objects.filter(pk=webhook.pk).update(failures=0, failing_since=None)
    Delivery.objects.filter(webhook=webhook, status=Delivery.Status.PENDING).update(not_before=Now())


def _delay(failures: int, most: float) -> timedelta:
    """Doubles with each failure, up to `most`; with jitter, so that receivers are not met by everything at once."""
    seconds = min(most, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 12))
    return timedelta(seconds=seconds * random.uniform(0.7, 1.0))  # noqa: S311


@transaction.atomic(durable=True)
def purge_events() -> int:
    """Drop events, and with them their deliveries, that are older than OPENCRANE_WEBHOOK_DAYS; returns how many."""
    limit = timezone.now() - timedelta(days=settings.WEBHOOK_DAYS)
    old = WebhookEvent.objects.filter(created_at__lt=limit).values_list("pk", flat=True)[:10_000]
    return WebhookEvent.objects.filter(pk__in=list(old)).delete()[0]
