"""Take in what pods report, exactly once, and let old reports go."""

import datetime
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import IntegrityError, connection
from django.utils import timezone

from awareness.models import ParticipationEvent
from cluster.locks import object_lock
from tenants.errors import TenantNotFoundError

PURGE_BATCH = 10_000

# One statement: the event, if its key is new, and then what it says about the tenant. A report of the future comes from
# a clock that is wrong, and counts as of now. Of two reports the later one says which version runs.
_RECORD = """
WITH event AS (
    INSERT INTO awareness_participationevent
        (tenant_id, idempotency_key, kind, outcome, contract_version, occurred_at, received_at, payload)
    VALUES (%(tenant)s, %(key)s, %(kind)s, %(outcome)s, %(version)s,
        least(coalesce(%(occurred)s::timestamptz, now()), now()), now(), %(payload)s::jsonb)
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
    RETURNING tenant_id, occurred_at
)
INSERT INTO awareness_participation AS known
    (tenant_id, last_seen_at, running_contract_version, version_seen_at, policy_violations)
SELECT tenant_id, occurred_at, %(version)s, CASE WHEN %(version)s <> '' THEN occurred_at END, %(violations)s FROM event
ON CONFLICT (tenant_id) DO UPDATE SET
    last_seen_at = greatest(known.last_seen_at, excluded.last_seen_at),
    running_contract_version = CASE
        WHEN excluded.version_seen_at >= coalesce(known.version_seen_at, '-infinity')
        THEN excluded.running_contract_version ELSE known.running_contract_version END,
    version_seen_at = greatest(known.version_seen_at, excluded.version_seen_at),
    policy_violations = known.policy_violations + excluded.policy_violations
"""

# Violations count for as long as the reports of them are kept. Oldest first, and what another purge holds is skipped.
_PURGE = """
WITH old AS (
    SELECT id FROM awareness_participationevent WHERE received_at < %(before)s
    ORDER BY received_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM awareness_participationevent e USING old WHERE e.id = old.id RETURNING e.tenant_id, e.outcome
), fewer AS (
    UPDATE awareness_participation p SET policy_violations = greatest(0, p.policy_violations - v.number)
    FROM (SELECT tenant_id, count(*) AS number FROM gone WHERE outcome = 'policy-violation' GROUP BY tenant_id
          ORDER BY tenant_id) v
    WHERE p.tenant_id = v.tenant_id
)
SELECT count(*) FROM gone
"""


def record_participation(*, tenant_id: UUID, event: Mapping[str, Any]) -> bool:
    """Take in one report of a tenant's pod; False when the same key was reported before, which changes nothing.

    Args:
        tenant_id: from the pod's token, never from what it sends.
        event: `kind`, `idempotency_key`, and perhaps `occurred_at`, `contract_version`, `outcome`, `payload`; checked
            by the caller. Without `occurred_at` it happened now.

    Raises:
        TenantNotFoundError: the tenant went away meanwhile.
    """
    payload = event.get("payload")
    outcome = event.get("outcome") or ""
    values = {
        "tenant": tenant_id,
        "key": event["idempotency_key"],
        "kind": event["kind"],
        "outcome": outcome,
        "version": event.get("contract_version") or "",
        "occurred": event.get("occurred_at"),
        "payload": None if payload is None else orjson.dumps(payload).decode(),
        "violations": int(outcome == ParticipationEvent.Outcome.POLICY_VIOLATION),
    }
    try:
        with connection.cursor() as cursor:
            cursor.execute(_RECORD, values)
            return cursor.rowcount == 1
    except IntegrityError as exc:
        # The only reference is the tenant's.
        raise TenantNotFoundError(detail="The tenant has been deleted.") from exc


def purge_events() -> int:
    """Drop reports older than `OPENCRANE_PARTICIPATION_DAYS`, and the violations they count for; returns how many.

    A report that comes again after that is taken for a new one.
    """
    before = timezone.now() - datetime.timedelta(days=settings.PARTICIPATION_DAYS)
    dropped = 0
    with object_lock("awareness", "purge") as held:
        while held:
            with connection.cursor() as cursor:
                cursor.execute(_PURGE, {"before": before, "batch": PURGE_BATCH})
                number: int = cursor.fetchone()[0]
            dropped += number
            if number < PURGE_BATCH:
                break
    return dropped


def forget_tenant(tenant_id: UUID) -> None:
    """Drop what a tenant reported; in the transaction that drops the tenant.

    The caller has locked the tenant's row. Participation goes first: a report under way holds its row, or finds the
    tenant gone when it wants one, so that no event is left over.
    """
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM awareness_participation WHERE tenant_id = %s", [tenant_id])
        cursor.execute("DELETE FROM awareness_participationevent WHERE tenant_id = %s", [tenant_id])
