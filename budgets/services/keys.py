"""What can be asked for about a tenant's virtual key at LiteLLM: rotate or issue it, revoke it, apply it again.

What is wanted stands in LitellmKey rows; `key_sync` brings LiteLLM and the cluster there, `key_sweep` finds what lags,
`key_check` compares. Web processes only note wishes.
"""

import time
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from budgets import litellm as proxy
from budgets import selectors
from budgets.errors import LitellmFailedError, LitellmKeyNotFoundError, LitellmNotConfiguredError
from budgets.models import FormerTenant, LitellmKey
from budgets.services.key_rows import LIVE, TASK, State, record, wanted_key
from cluster.wait import waiting_slot
from opencrane.actor import Actor
from opencrane.errors import ConflictError, InvalidError
from opencrane.tasks import enqueue_on_commit
from tenants.models import Tenant
from tenants.selectors import tenant_named

MAX_GRACE_SECONDS = 7 * 86_400
REVOKE_WAIT_SECONDS = 15.0


@transaction.atomic(durable=True)
def rotate_key(*, tenant_name: str, grace_seconds: int | None = None, actor: Actor) -> LitellmKey:
    """Have a tenant's key replaced by a new one; the old one goes on working for the grace. Issues one where none is.

    Args:
        grace_seconds: 0 to a week; `OPENCRANE_LITELLM_GRACE_SECONDS` when None. It begins when the new key is in the
            Secret.

    Raises:
        LitellmNotConfiguredError, TenantNotFoundError, InvalidError
        ConflictError: the tenant is being deleted, or its key is being revoked or rotated at this moment.
    """
    if not proxy.is_configured():
        raise LitellmNotConfiguredError
    grace = settings.LITELLM_GRACE_SECONDS if grace_seconds is None else grace_seconds
    if not 0 <= grace <= MAX_GRACE_SECONDS:
        raise InvalidError(fields={"graceSeconds": [f"Has to be from 0 to {MAX_GRACE_SECONDS}."]})
    tenant = _locked_tenant(tenant_name)
    live = {key.state: key for key in _locked_keys(tenant.pk)}
    if State.REVOKING in live:
        raise ConflictError("The key is being revoked.", detail="Issue a new one when the old one is dead.")
    if State.WANTED in live:
        raise ConflictError("A new key is being issued already.")
    old = live.get(State.ACTIVE)
    if old is not None:
        old.state, old.cause = State.RETIRING, LitellmKey.Cause.ROTATED
        old.grace_until, old.drift = None, ""
        old.save(update_fields=["state", "cause", "grace_until", "drift"])
    key = wanted_key(tenant, replaces=old, grace_seconds=grace)
    message = f"Asked for the LiteLLM key of tenant {tenant.name} to be {'rotated' if old else 'issued'}."
    record(key, "rotation_requested" if old else "issue_requested", message, actor)
    enqueue_on_commit(TASK, str(key.pk))
    return key


@transaction.atomic(durable=True)
def request_revocation(*, tenant_name: str, actor: Actor) -> tuple[Tenant, list[LitellmKey]]:
    """Have every key of a tenant dead, also one in its grace; returns those that are to die, as they were.

    No new key is issued until somebody asks for one.

    Raises:
        LitellmNotConfiguredError, TenantNotFoundError
    """
    if not proxy.is_configured():
        raise LitellmNotConfiguredError
    tenant = _locked_tenant(tenant_name, also_deleting=True)
    keys = _locked_keys(tenant.pk)
    asked = [key for key in keys if key.state != State.REVOKING]
    _revoking(tenant.pk, LitellmKey.Cause.OPERATOR)
    if asked:
        record(asked[0], "revoke_requested", f"Asked for the LiteLLM key of tenant {tenant.name} to be revoked.", actor)
    elif not keys and not LitellmKey.objects.filter(tenant_id=tenant.pk).exists():
        # Somebody wants this tenant without a key, and the sweep must not issue one.
        never = wanted_key(tenant)
        LitellmKey.objects.filter(pk=never.pk).update(
            state=State.REVOKED, cause=LitellmKey.Cause.OPERATOR, revoked_at=timezone.now()
        )
        record(never, "revoked", f"Tenant {tenant.name} is to have no LiteLLM key; it had none.", actor)
    for key in keys:
        enqueue_on_commit(TASK, str(key.pk))
    return tenant, keys


def revoke_key(*, tenant_name: str, actor: Actor) -> LitellmKey:
    """Have a tenant's keys dead and their Secret gone, and wait for it; the key that was in force.

    Raises:
        LitellmNotConfiguredError, TenantNotFoundError
        LitellmFailedError: not done in time, or a step failed; `detail` names what is still alive. The sweep goes on.
    """
    tenant, keys = request_revocation(tenant_name=tenant_name, actor=actor)
    attempts = {key.pk: key.attempts for key in keys}
    deadline = time.monotonic() + REVOKE_WAIT_SECONDS
    with waiting_slot() as taken:
        while True:
            rows = list(LitellmKey.objects.filter(pk__in=list(attempts)))
            connection.close()
            alive = [row for row in rows if row.state != State.REVOKED]
            if not alive:
                break
            failed = any(row.attempts > attempts[row.pk] for row in alive)
            if failed or not taken or time.monotonic() > deadline:
                raise _still_alive(alive)
            time.sleep(0.1)
    return selectors.current_key(tenant.pk)


def _still_alive(rows: Sequence[LitellmKey]) -> LitellmFailedError:
    parts = []
    for row in rows:
        if row.dead_at is None:
            parts.append(f"key {row.alias} is still alive in LiteLLM")
        if row.secret_gone_at is None:
            parts.append(f"Secret {row.namespace}/{row.secret_name} still exists")
    why = next((row.error for row in rows if row.error), "")
    what = ", ".join(dict.fromkeys(parts))
    detail = f"{what[:1].upper()}{what[1:]}. {why} It is tried again until it is done.".replace("  ", " ")
    return LitellmFailedError("The key is not revoked yet.", detail=detail)


@transaction.atomic(durable=True)
def resync_key(*, tenant_name: str, actor: Actor) -> LitellmKey:
    """Have LiteLLM and the Secret brought in line with what is wanted, now; also what failed and waits.

    Raises:
        LitellmNotConfiguredError, TenantNotFoundError, LitellmKeyNotFoundError
    """
    if not proxy.is_configured():
        raise LitellmNotConfiguredError
    tenant = _locked_tenant(tenant_name, also_deleting=True)
    keys = _locked_keys(tenant.pk)
    if not keys:
        raise LitellmKeyNotFoundError
    now = timezone.now()
    for key in keys:
        # Not knowing what LiteLLM enforces has it told anew.
        LitellmKey.objects.filter(pk=key.pk).update(not_before=now, checked_at=None)
        enqueue_on_commit(TASK, str(key.pk))
    record(
        keys[0], "resync_requested", f"Asked for the LiteLLM key of tenant {tenant.name} to be applied again.", actor
    )
    return keys[0]


def tenant_changed(tenant_id: UUID) -> None:
    """Note in the transaction of a change that a tenant's budget or namespace changed; the sweep finds it too."""
    if not proxy.is_configured():
        return
    key = LitellmKey.objects.filter(tenant_id=tenant_id, state=State.ACTIVE).only("pk").first()
    if key is not None:
        enqueue_on_commit(TASK, str(key.pk))


def forget_tenant(tenant: Tenant) -> None:
    """A tenant goes: have its keys revoked, and remember who it was; in the transaction that drops it."""
    former = FormerTenant(
        tenant_id=tenant.pk,
        name=tenant.name,
        account=tenant.email.lower(),
        team=tenant.team,
        created_at=tenant.created_at,
    )
    FormerTenant.objects.bulk_create([former], ignore_conflicts=True)
    for pk in _revoking(tenant.pk, LitellmKey.Cause.TENANT_DELETED):
        enqueue_on_commit(TASK, str(pk))


def _revoking(tenant_id: UUID, cause: LitellmKey.Cause) -> list[UUID]:
    found = LitellmKey.objects.filter(tenant_id=tenant_id, state__in=LIVE)
    ids = list(found.values_list("pk", flat=True))
    if ids:
        found.exclude(state=State.REVOKING).update(
            state=State.REVOKING, cause=cause, not_before=timezone.now(), attempts=0, drift=""
        )
    return ids


def _locked_tenant(name: str, *, also_deleting: bool = False) -> Tenant:
    tenant = Tenant.objects.select_for_update().get(pk=tenant_named(name).pk)
    if tenant.deleting and not also_deleting:
        raise ConflictError(f"{tenant.name} is being deleted.")
    return tenant


def _locked_keys(tenant_id: UUID) -> list[LitellmKey]:
    return list(
        LitellmKey.objects.select_for_update().filter(tenant_id=tenant_id, state__in=LIVE).order_by("created_at")
    )
