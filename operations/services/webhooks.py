"""Webhooks: who wants to know what, and telling them that it happened.

`emit` writes what happened and a delivery for each subscriber into the caller's transaction: an event is announced
exactly if its cause is committed. Sending is `operations.services.deliveries`.
"""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone
from psycopg.types.json import Jsonb

from opencrane.actor import Actor
from opencrane.errors import ConflictError
from opencrane.masking import mask
from opencrane.rows import unique
from opencrane.tasks import enqueue_on_commit
from operations import selectors, signing
from operations.errors import WebhookExistsError
from operations.models import Delivery, Webhook, WebhookEvent
from operations.services import audit

DRIFT_EVENT = "drift.threshold_crossed"
EVENTS = {
    "budget.threshold_crossed": "A budget has reached 50, 80 or 100 % of its limit.",
    DRIFT_EVENT: "More resources differ from their rows than the threshold allows.",
    "rollout.changed": "The rollout of the awareness contract was defined, promoted or rolled back.",
    "probe.failed": "An MCP server has become unhealthy.",
    "job.failed": "A job has failed.",
}
TEST_EVENT = "webhook.test"
SEND_TASK = "operations.send_deliveries"
DRIFT_WEBHOOK = "OPENCRANE_DRIFT_WEBHOOK_URL"
Precondition = Callable[[int], None]
Values = dict[str, Any]
_record = audit.Trail("webhook", "Webhook").record

_EMIT = """
WITH happened AS (
    INSERT INTO operations_webhookevent (id, event, payload, dedupe_key)
    VALUES (%(id)s, %(event)s, %(payload)s, %(key)s)
    ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO operations_delivery (id, webhook_id, event_id, status, attempts, error, log)
SELECT gen_random_uuid(), webhook.id, happened.id, 'pending', 0, '', '[]'
  FROM happened, operations_webhook webhook WHERE webhook.enabled AND webhook.events @> %(wanted)s
RETURNING webhook_id
"""


def emit(*, event: str, payload: Values, dedupe_key: str = "") -> None:
    """Announce that something happened, in the caller's transaction; sent after it commits.

    Args:
        event: one of EVENTS.
        payload: a JSON object for the receivers; credential-like keys are masked.
        dedupe_key: with the same event and key, only the first call announces anything, whether or not anybody was
            subscribed then. For as long as events are kept (`OPENCRANE_WEBHOOK_DAYS`).

    Raises:
        TransactionManagementError: there is no transaction, so the announcement could outlive or miss its cause.
        ValueError: there is no such event.
    """
    if event not in EVENTS:
        raise ValueError(f"There is no event {event}")
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("An event needs the transaction of what it tells about.")
    if event == DRIFT_EVENT:
        follow_settings()
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "event": event,
        "payload": Jsonb(mask(payload)),
        "key": dedupe_key,
        "wanted": Jsonb([event]),
    }
    with connection.cursor() as cursor:
        cursor.execute(_EMIT, values)
        subscribers = [row[0] for row in cursor.fetchall()]
    for webhook_id in subscribers:
        enqueue_on_commit(SEND_TASK, str(webhook_id))


def follow_settings() -> None:
    """Bring the built-in webhook in line with OPENCRANE_DRIFT_WEBHOOK_URL; one query when it is."""
    url = settings.DRIFT_WEBHOOK_URL
    row = Webhook.objects.filter(built_in=DRIFT_WEBHOOK).first()
    if (row is None and not url) or (row is not None and (row.url, row.enabled) == (url or row.url, bool(url))):
        return
    with transaction.atomic():
        Webhook.objects.bulk_create(
            [Webhook(built_in=DRIFT_WEBHOOK, name=DRIFT_WEBHOOK, events=[DRIFT_EVENT])],
            ignore_conflicts=True,
        )
        Webhook.objects.filter(built_in=DRIFT_WEBHOOK).update(
            url=url or (row.url if row else ""), enabled=bool(url), not_before=Now(), failures=0
        )


def secret_of(webhook: Webhook) -> str:
    """What a webhook's requests are signed with."""
    if not webhook.built_in:
        return webhook.secret
    return settings.DRIFT_WEBHOOK_SECRET or signing.derived_secret(DRIFT_WEBHOOK, settings.SECRET_KEY)


def create_webhook(*, values: Values, actor: Actor) -> tuple[Webhook, str]:
    """Make a webhook.

    Args:
        values: `name`, `url`, `events`, and any of `description`, `enabled`, `secret`, checked by the caller.

    Returns:
        The webhook, and the secret if it was made here: it is shown this once.

    Raises:
        WebhookExistsError: the name is taken.
    """
    made = "" if values.get("secret") else signing.new_secret()
    webhook = Webhook(
        name=values["name"],
        url=values["url"],
        events=sorted(values["events"]),
        description=values.get("description") or "",
        enabled=values.get("enabled", True),
        secret=made or values["secret"],
    )
    with _named(webhook.name), transaction.atomic(durable=True):
        webhook.save(force_insert=True)
        _record(webhook.name, "created", f"Created webhook {webhook.name}.", None, _audited(webhook), actor)
    webhook.refresh_from_db()
    return webhook, made


def update_webhook(
    *, webhook_id: UUID | None, changes: Values, precondition: Precondition = lambda _: None, actor: Actor
) -> Webhook:
    """Set what `changes` holds; None clears the description. Changing nothing writes and audits nothing.

    A new address starts without the failures of the old one.

    Raises:
        WebhookNotFoundError, WebhookExistsError, PreconditionFailedError.
        ConflictError: it is built in.
    """
    with _named(changes.get("name")), transaction.atomic(durable=True):
        webhook = _editable(webhook_id)
        precondition(webhook.generation)
        before = _audited(webhook)
        is_resealed = changes.get("secret") is not None and changes["secret"] != webhook.secret
        for name in ("name", "url", "enabled", "secret"):
            if changes.get(name) is not None:
                setattr(webhook, name, changes[name])
        if changes.get("events") is not None:
            webhook.events = sorted(changes["events"])
        if "description" in changes:
            webhook.description = changes["description"] or ""
        after = _audited(webhook)
        changed = sorted(key for key in after if after[key] != before[key]) + ["secret"] * is_resealed
        if not changed:
            return webhook
        _save(webhook)
        if {"url", "enabled"} & set(changed):
            Webhook.objects.filter(pk=webhook.pk).update(failures=0, failing_since=None, not_before=Now())
            enqueue_on_commit(SEND_TASK, str(webhook.pk))
        told = {key: (before[key], after[key]) for key in changed if key in after}
        _record(
            webhook.name,
            "updated",
            f"Changed {', '.join(changed)} of webhook {webhook.name}.",
            {key: old for key, (old, _) in told.items()},
            {key: new for key, (_, new) in told.items()},
            actor,
        )
    return webhook


def renew_secret(*, webhook_id: UUID | None, actor: Actor) -> str:
    """Give a webhook a new secret and return it, this once; whatever is sent from now on is signed with it.

    Raises:
        WebhookNotFoundError, ConflictError (built in).
    """
    with transaction.atomic(durable=True):
        webhook = _editable(webhook_id)
        webhook.secret = made = signing.new_secret()
        _save(webhook)
        _record(webhook.name, "secret_renewed", f"Made a new secret for webhook {webhook.name}.", None, None, actor)
    return made


def delete_webhook(*, webhook_id: UUID | None, precondition: Precondition = lambda _: None, actor: Actor) -> None:
    """Remove a webhook with its deliveries; what is on its way is not sent any more.

    Raises:
        WebhookNotFoundError, PreconditionFailedError, ConflictError (built in).
    """
    with transaction.atomic(durable=True):
        webhook = _editable(webhook_id)
        precondition(webhook.generation)
        before = _audited(webhook)
        webhook.delete()
        _record(webhook.name, "deleted", f"Deleted webhook {webhook.name}.", before, None, actor)


def send_test(*, webhook_id: UUID | None, actor: Actor) -> Delivery:
    """Send a test event to one webhook, whatever it is subscribed to.

    Raises:
        WebhookNotFoundError, ConflictError (it is not enabled).
    """
    with transaction.atomic(durable=True):
        webhook = selectors.webhook_for_update(webhook_id)
        event = WebhookEvent.objects.create(event=TEST_EVENT, payload={"webhook": webhook.name, "by": actor.name})
        delivery = _deliver(webhook, event)
        _record(webhook.name, "tested", f"Sent a test to webhook {webhook.name}.", None, None, actor)
    return delivery


def resend_delivery(*, webhook_id: UUID | None, delivery_id: UUID | None, actor: Actor) -> Delivery:
    """Send an event once more; one that is still on its way is tried at once.

    Returns:
        The new delivery, or the one that is on its way.

    Raises:
        WebhookNotFoundError, DeliveryNotFoundError, ConflictError (the webhook is not enabled).
    """
    with transaction.atomic(durable=True):
        webhook = selectors.webhook_for_update(webhook_id)
        old = selectors.delivery_of(webhook, delivery_id)
        if old.status == Delivery.Status.PENDING:
            _require_enabled(webhook)
            _wake(webhook)
            Delivery.objects.filter(pk=old.pk).update(not_before=Now())
            return old
        delivery = _deliver(webhook, old.event)
        message = f"Sent {old.event.event} of {old.event.created_at:%Y-%m-%d %H:%M} to webhook {webhook.name} again."
        _record(webhook.name, "resent", message, None, {"delivery": str(delivery.pk), "resendOf": str(old.pk)}, actor)
    return delivery


def replay(*, webhook_id: UUID | None, since: Any = None, until: Any = None, only_failed: bool, actor: Actor) -> int:
    """Send a webhook again what it was sent in a span of time: what has failed for good, or everything.

    Each event is sent once, however often it was before; what is on its way stays as it is. Returns how many.

    Raises:
        WebhookNotFoundError, ConflictError (the webhook is not enabled).
    """
    with transaction.atomic(durable=True):
        webhook = selectors.webhook_for_update(webhook_id)
        _require_enabled(webhook)
        events = selectors.events_to_replay(webhook, since=since, until=until, only_failed=only_failed)
        made = Delivery.objects.bulk_create(
            [Delivery(webhook=webhook, event_id=event_id) for event_id in events], batch_size=1000
        )
        if made:
            _wake(webhook)
            _record(
                webhook.name, "replayed", f"Sent {len(made)} events to webhook {webhook.name} again.", None, None, actor
            )
    return len(made)


def _deliver(webhook: Webhook, event: WebhookEvent) -> Delivery:
    _require_enabled(webhook)
    _wake(webhook)
    delivery = Delivery.objects.create(webhook=webhook, event=event)
    return Delivery.objects.select_related("event").get(pk=delivery.pk)


def _wake(webhook: Webhook) -> None:
    """Somebody wants something sent now: the pause after failures ends."""
    Webhook.objects.filter(pk=webhook.pk).update(not_before=Now())
    enqueue_on_commit(SEND_TASK, str(webhook.pk))


def _require_enabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise ConflictError(f"The webhook {webhook.name} is not enabled.", detail="Enable it first.")


def _editable(webhook_id: UUID | None) -> Webhook:
    webhook = selectors.webhook_for_update(webhook_id)
    if webhook.built_in:
        raise ConflictError(
            f"This webhook stands for the setting {webhook.built_in}.", detail="Change or remove the setting instead."
        )
    return webhook


def _save(webhook: Webhook) -> None:
    webhook.generation += 1
    webhook.updated_at = timezone.now()
    webhook.save()


def _audited(webhook: Webhook) -> Values:
    return {
        "name": webhook.name,
        "url": webhook.url,
        "events": webhook.events,
        "enabled": webhook.enabled,
        "description": webhook.description,
    }


def _named(name: str | None) -> AbstractContextManager[None]:
    return unique("webhook_name_key", WebhookExistsError(f"There is a webhook named {name} already."))
