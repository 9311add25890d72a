"""Webhooks and deliveries as the API shows them."""

from typing import Any

from operations.models import Delivery, Webhook


def webhook_as_json(webhook: Any) -> dict[str, Any]:
    """All of a webhook but its secret; `webhook` comes with its counts."""
    return {
        "id": webhook.pk,
        "name": webhook.name,
        "description": webhook.description or None,
        "url": webhook.url,
        "events": webhook.events,
        "enabled": webhook.enabled,
        "builtIn": bool(webhook.built_in),
        "failures": webhook.failures,
        "failingSince": webhook.failing_since,
        "nextAttemptAt": webhook.not_before if webhook.failures else None,
        "pendingCount": webhook.pending,
        "failedCount": webhook.failed,
        "createdAt": webhook.created_at,
        "updatedAt": webhook.updated_at,
    }


def webhook_etag(webhook: Webhook) -> str:
    return f'"{webhook.generation}.{webhook.failures}"'


def delivery_as_json(delivery: Delivery) -> dict[str, Any]:
    """A delivery with what it delivers and how its last attempts went."""
    return {
        "id": delivery.pk,
        "webhookId": delivery.webhook_id,
        "eventId": delivery.event_id,
        "event": delivery.event.event,
        "payload": delivery.event.payload,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "nextAttemptAt": delivery.not_before if delivery.status == Delivery.Status.PENDING else None,
        "responseStatus": delivery.response_status,
        "error": delivery.error or None,
        "log": delivery.log,
        "occurredAt": delivery.event.created_at,
        "createdAt": delivery.created_at,
        "finishedAt": delivery.finished_at,
    }
