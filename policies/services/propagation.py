"""Tell Cognee which awareness grants each tenant has, whenever that may have changed.

What has to be told stands in `AwarenessPush`, written in the transaction of the change: one row for each tenant, which
later changes join. A task pushes what is due and puts off what fails, so no write ever waits for Cognee or fails with
it. Without `COGNEE_ENDPOINT` nothing is noted.
"""

import random
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Greatest, Now
from django.utils import timezone

from cluster.locks import object_lock
from opencrane.tasks import enqueue_on_commit
from policies.compiler import compiled, principal_of
from policies.models import AwarenessPush, Grant
from policies.selectors import reach_condition
from tenants.models import Tenant

log = structlog.get_logger(__name__)

TASK = "policies.push_due"
TIMEOUT_SECONDS = 5.0
# The claim is also the retry: should this worker die, what it took falls due again by itself.
BATCH, LEASE = 10, timedelta(seconds=90)
MAX_DELAY_SECONDS = 300.0
GIVE_UP_AFTER = 3

_NOTE = """
INSERT INTO policies_awarenesspush AS p (tenant_id, wanted, pushed, attempts, not_before, last_error)
SELECT t.id, 1, 0, 0, now(), '' FROM tenants_tenant t WHERE {where} ORDER BY t.id
ON CONFLICT (tenant_id) DO UPDATE SET wanted = p.wanted + 1, attempts = 0, not_before = now()
"""


def policy_changed(name: str, selectors: list[dict[str, Any] | None]) -> None:
    """Note that a policy has changed; call in the transaction that changes it.

    Args:
        selectors: the policy's selector before and after.
    """
    _note(*reach_condition(name, selectors))


def subjects_changed(
    *,
    tenant_ids: Collection[UUID] = (),
    emails: Collection[str] = (),
    group_ids: Collection[UUID] = (),
) -> None:
    """Note that what these tenants, people and members of groups get may have changed; call in that transaction."""
    if not (tenant_ids or emails or group_ids):
        return
    where = """t.id = ANY(%s) OR lower(t.email) = ANY(%s)
        OR t.id IN (SELECT tenant_id FROM policies_groupmember WHERE group_id = ANY(%s))
        OR lower(t.email) IN (SELECT email FROM policies_groupmember WHERE group_id = ANY(%s) AND email <> '')"""
    groups = list(group_ids)
    _note(where, [list(tenant_ids), [email.lower() for email in emails], groups, groups])


def _note(where: str, params: Sequence[Any]) -> None:
    if not settings.COGNEE_ENDPOINT:
        return
    with connection.cursor() as cursor:
        cursor.execute(_NOTE.format(where=where), params)
        found = cursor.rowcount
    if found:
        enqueue_on_commit(TASK)


def push_due() -> int:
    """Push what is due, one tenant after the other; returns how many Cognee took.

    Stops early when Cognee fails several times running: it is away, and the rest would only wait for it in vain.
    """
    if not settings.COGNEE_ENDPOINT:
        return 0
    done = failed = 0
    with httpx.Client(timeout=TIMEOUT_SECONDS) as client:
        while claims := _claim():
            for tenant_id, wanted, attempts in claims:
                taken = _push(client, tenant_id, wanted, attempts)
                done += taken
                failed = 0 if taken else failed + 1
                if failed >= GIVE_UP_AFTER:
                    return done
    return done


@transaction.atomic(durable=True)
def _claim() -> list[tuple[UUID, int, int]]:
    due = AwarenessPush.objects.filter(pushed__lt=F("wanted"), not_before__lte=Now()).order_by("not_before")
    rows = list(due.select_for_update(skip_locked=True)[:BATCH])
    AwarenessPush.objects.filter(pk__in=[row.pk for row in rows]).update(
        attempts=F("attempts") + 1, not_before=timezone.now() + LEASE
    )
    return [(row.tenant_id, row.wanted, row.attempts + 1) for row in rows]


def _push(client: httpx.Client, tenant_id: UUID, wanted: int, attempts: int) -> bool:
    """Tell Cognee about one tenant; one at a time for each tenant, so that the last word is the newest."""
    with object_lock("awareness-push", tenant_id) as held:
        if not held:
            AwarenessPush.objects.filter(pk=tenant_id).update(not_before=timezone.now() + timedelta(seconds=1))
            return True
        tenant = Tenant.objects.filter(pk=tenant_id).first()
        if tenant is None:
            return True
        try:
            client.put(
                f"{settings.COGNEE_ENDPOINT}/v1/permissions/tenants/{quote(tenant.name, safe='')}/awareness-grants",
                json={"grants": awareness_grants(tenant)},
                headers={"x-cognee-tenant-id": tenant.name, "x-opencrane-sync-source": "control-plane"},
            ).raise_for_status()
        except httpx.HTTPError as exc:
            _put_off(tenant, attempts, exc)
            return False
        AwarenessPush.objects.filter(pk=tenant_id).update(
            pushed=Greatest(F("pushed"), wanted), attempts=0, last_error="", pushed_at=Now(), not_before=Now()
        )
        return True


def awareness_grants(tenant: Tenant) -> list[dict[str, str]]:
    """The decided awareness grants of a tenant, as Cognee and the contract have them; sorted by payload."""
    decisions = compiled(principal_of(tenant), Grant.PayloadType.AWARENESS)
    return [{"payloadId": d.payload_id, "access": d.access, "scope": d.scope} for d in decisions]


def _put_off(tenant: Tenant, attempts: int, exc: httpx.HTTPError) -> None:
    if isinstance(exc, httpx.HTTPStatusError):
        error = f"Cognee answered {exc.response.status_code}."
    else:
        error = f"Cognee did not answer: {type(exc).__name__}."
    delay = min(MAX_DELAY_SECONDS, 2.0 ** min(attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
    log.warning("awareness grants not pushed", tenant=tenant.name, error=error, retry_in_seconds=round(delay))
    AwarenessPush.objects.filter(pk=tenant.pk).update(
        last_error=error, not_before=timezone.now() + timedelta(seconds=delay)
    )
