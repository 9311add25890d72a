"""Virtual keys of tenants at LiteLLM: issue, follow the budget, rotate, revoke.

What is wanted stands in LitellmKey rows; `sync_key` brings LiteLLM and the cluster there, from whatever state it finds
them in, so that it may be killed at any point and run again. The sweep finds what lags. Only worker tasks come here,
save for what notes a wish.

The order matters. A new key lives in LiteLLM before the Secret has it. An old one is dead in LiteLLM before its Secret
goes, and only then does its row say that it is revoked.
"""

import hashlib
import random
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from budgets import litellm as proxy
from budgets import selectors
from budgets.errors import LitellmFailedError, LitellmKeyNotFoundError, LitellmNotConfiguredError
from budgets.litellm import METADATA_TENANT, IssuedKey, Litellm
from budgets.models import FormerTenant, LitellmKey
from cluster.errors import KubeError
from cluster.locks import object_lock
from cluster.secrets import apply_secret, delete_secret, secret_annotations, secret_data
from cluster.wait import waiting_slot
from opencrane.actor import SYSTEM, Actor
from opencrane.errors import ConflictError, InvalidError, UpstreamError
from opencrane.tasks import enqueue_on_commit
from operations.services import audit
from tenants.models import Tenant
from tenants.selectors import tenant_named
from tenants.workloads import namespace_of

log = structlog.get_logger(__name__)

TASK = "budgets.sync_key"
SECRET_KEY = "api-key"  # noqa: S105  (what the value is called in the Secret)
KEY_ID = "opencrane.io/litellm-key-id"
TENANT_LABEL = "opencrane.io/tenant"
MAX_GRACE_SECONDS = 7 * 86_400
BATCH = 500
# A claim of the sweep is also the retry: should the worker die, the row falls due again by itself.
LEASE = timedelta(seconds=90)
MAX_DELAY_SECONDS = 300.0
REVOKE_WAIT_SECONDS = 15.0
CHECK_BATCH, CHECK_SECONDS = 10_000, 240.0
CHECK_EVERY = timedelta(minutes=5)
CHECK_GIVE_UP_AFTER = 3

State = LitellmKey.State
LIVE = (State.WANTED, State.ACTIVE, State.RETIRING, State.REVOKING)


def alias_of(tenant: str) -> str:
    return f"opencrane-{tenant}"


def secret_of(tenant: str) -> str:
    return f"openclaw-{tenant}-litellm-key"


# -- wishes -----------------------------------------------------------------------------------------------------------


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
    key = _wanted(tenant, replaces=old, grace_seconds=grace)
    message = f"Asked for the LiteLLM key of tenant {tenant.name} to be {'rotated' if old else 'issued'}."
    _record(key, "rotation_requested" if old else "issue_requested", message, actor)
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
        _record(
            asked[0], "revoke_requested", f"Asked for the LiteLLM key of tenant {tenant.name} to be revoked.", actor
        )
    elif not keys and not LitellmKey.objects.filter(tenant_id=tenant.pk).exists():
        # Somebody wants this tenant without a key, and the sweep must not issue one.
        never = _wanted(tenant)
        LitellmKey.objects.filter(pk=never.pk).update(
            state=State.REVOKED, cause=LitellmKey.Cause.OPERATOR, revoked_at=timezone.now()
        )
        _record(never, "revoked", f"Tenant {tenant.name} is to have no LiteLLM key; it had none.", actor)
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
    _record(
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
    FormerTenant.objects.get_or_create(
        tenant_id=tenant.pk,
        defaults={
            "name": tenant.name,
            "account": tenant.email.lower(),
            "team": tenant.team,
            "created_at": tenant.created_at,
        },
    )
    for pk in _revoking(tenant.pk, LitellmKey.Cause.TENANT_DELETED):
        enqueue_on_commit(TASK, str(pk))


def _revoking(tenant_id: UUID, cause: LitellmKey.Cause) -> list[UUID]:
    found = LitellmKey.objects.filter(tenant_id=tenant_id, state__in=LIVE)
    ids = list(found.values_list("pk", flat=True))
    found.exclude(state=State.REVOKING).update(
        state=State.REVOKING, cause=cause, not_before=timezone.now(), attempts=0, drift=""
    )
    return ids


def _wanted(tenant: Tenant, *, replaces: LitellmKey | None = None, grace_seconds: int = 0) -> LitellmKey:
    return LitellmKey.objects.create(
        tenant_id=tenant.pk,
        tenant=tenant.name,
        alias=alias_of(tenant.name),
        namespace=_namespace_of(tenant.cluster_tenant_ref),
        secret_name=secret_of(tenant.name),
        replaces=replaces.pk if replaces else None,
        grace_seconds=grace_seconds,
    )


def _locked_tenant(name: str, *, also_deleting: bool = False) -> Tenant:
    tenant = Tenant.objects.select_for_update().get(pk=tenant_named(name).pk)
    if tenant.deleting and not also_deleting:
        raise ConflictError(f"{tenant.name} is being deleted.")
    return tenant


def _locked_keys(tenant_id: UUID) -> list[LitellmKey]:
    return list(
        LitellmKey.objects.select_for_update().filter(tenant_id=tenant_id, state__in=LIVE).order_by("created_at")
    )


# -- the sweep --------------------------------------------------------------------------------------------------------

_NEED_ONE = """
SELECT t.id FROM tenants_tenant t WHERE NOT t.deleting AND t.observed_generation > 0
 AND NOT EXISTS (SELECT 1 FROM budgets_litellmkey k WHERE k.tenant_id = t.id) ORDER BY t.created_at LIMIT %s
"""
_ORPHANED = """
SELECT k.id FROM budgets_litellmkey k WHERE k.state IN ('wanted', 'active', 'retiring')
 AND NOT EXISTS (SELECT 1 FROM tenants_tenant t WHERE t.id = k.tenant_id) LIMIT %s
"""
# What LiteLLM enforces, or where the Secret is, is not what the tenant's row says now.
_BEHIND = """
SELECT k.id FROM budgets_litellmkey k JOIN tenants_tenant t ON t.id = k.tenant_id
 WHERE k.state = 'active' AND k.not_before <= now() AND (
  k.max_budget_usd IS DISTINCT FROM nullif(t.monthly_budget_usd, 0) OR
  k.namespace <> CASE WHEN t.cluster_tenant_ref = '' THEN %s ELSE 'opencrane-' || t.cluster_tenant_ref END) LIMIT %s
"""


def sweep_keys() -> int:
    """Find what lags and wake a worker for it; returns how many. Without LiteLLM only what is to be revoked shows."""
    with object_lock("budgets", "sweep-keys") as held:
        if not held:
            return 0
        _note_orphans()
        if proxy.is_configured():
            _want_missing()
        return _wake()


def _namespace_of(cluster_tenant: str) -> str:
    """Where a tenant's Secret belongs.

    Raises:
        UpstreamError: no cluster is configured.
    """
    try:
        return namespace_of(cluster_tenant)
    except KubeError as exc:
        raise UpstreamError("The cluster is not configured.", detail=exc.message) from exc


@transaction.atomic(durable=True)
def _note_orphans() -> None:
    """Keys of tenants that went without telling."""
    with connection.cursor() as cursor:
        cursor.execute(_ORPHANED, [BATCH])
        ids = [row[0] for row in cursor.fetchall()]
    LitellmKey.objects.filter(pk__in=ids).update(
        state=State.REVOKING, cause=LitellmKey.Cause.TENANT_DELETED, not_before=timezone.now(), attempts=0
    )


@transaction.atomic(durable=True)
def _want_missing() -> None:
    """A key for every tenant that the cluster has confirmed and that never had one."""
    with connection.cursor() as cursor:
        cursor.execute(_NEED_ONE, [BATCH])
        ids = [row[0] for row in cursor.fetchall()]
    for tenant in Tenant.objects.select_for_update().filter(pk__in=ids, deleting=False).order_by("pk"):
        _wanted(tenant)


@transaction.atomic(durable=True)
def _wake() -> int:
    now = timezone.now()
    waiting = Q(state__in=[State.WANTED, State.REVOKING]) | Q(state=State.RETIRING, grace_until__lte=now)
    due = list(LitellmKey.objects.filter(waiting, not_before__lte=now).values_list("pk", flat=True)[:BATCH])
    if proxy.is_configured():
        with connection.cursor() as cursor:
            cursor.execute(_BEHIND, [_namespace_of(""), BATCH])
            due += [row[0] for row in cursor.fetchall()]
    LitellmKey.objects.filter(pk__in=due).update(not_before=now + LEASE)
    for pk in due:
        enqueue_on_commit(TASK, str(pk))
    return len(due)


# -- bringing it about ------------------------------------------------------------------------------------------------


def sync_key(*, key_id: UUID) -> None:
    """Do for one key whatever is to be done; what fails is noted, put off and tried again."""
    tenant_id = LitellmKey.objects.filter(pk=key_id).values_list("tenant_id", flat=True).first()
    if tenant_id is None:
        return
    with object_lock("litellm-key", tenant_id, wait_seconds=5) as held:
        key = LitellmKey.objects.filter(pk=key_id).first()
        if not held or key is None:
            return
        try:
            match key.state:
                case State.WANTED:
                    _issue(key)
                case State.ACTIVE:
                    _follow(key)
                case State.RETIRING if key.grace_until and key.grace_until <= timezone.now():
                    _end(key)
                case State.REVOKING:
                    _end(key)
        except (LitellmFailedError, LitellmNotConfiguredError) as exc:
            _put_off(key, exc.message)
        except KubeError as exc:
            _put_off(key, f"The cluster: {exc.message}")


def _put_off(key: LitellmKey, error: str) -> None:
    now = timezone.now()
    delay = min(2.0 ** min(key.attempts + 1, 12), MAX_DELAY_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311
    LitellmKey.objects.filter(pk=key.pk).update(
        attempts=F("attempts") + 1,
        error=error[:1000],
        failing_since=key.failing_since or now,
        not_before=now + timedelta(seconds=delay),
    )
    log.warning("a LiteLLM key lags", tenant=key.tenant, state=key.state, error=error)


_DONE: dict[str, Any] = {"attempts": 0, "error": "", "failing_since": None}


def _issue(key: LitellmKey) -> None:
    tenant = Tenant.objects.filter(pk=key.tenant_id).first()
    if tenant is None or tenant.deleting:
        LitellmKey.objects.filter(pk=key.pk, state=State.WANTED).update(
            state=State.REVOKING, cause=LitellmKey.Cause.TENANT_DELETED
        )
        enqueue_on_commit(TASK, str(key.pk))
        return
    namespace = namespace_of(tenant.cluster_tenant_ref)
    # The cluster is asked first: a key that then cannot be put into its Secret would be lost.
    annotations = secret_annotations(name=key.secret_name, namespace=namespace)
    budget = _budget_of(tenant)
    with proxy.litellm() as llm:
        token = _already_there(llm, key, namespace) if (annotations or {}).get(KEY_ID) == str(key.pk) else ""
        if not token:
            issued = _replacement(llm, key) or _fresh(llm, key, budget)
            token = issued.token
            _put(key, namespace, issued.value)
        # A regenerated key, and one that was there already, may have another ceiling than it is meant to.
        if not llm.set_budget(token, budget):
            raise LitellmFailedError("LiteLLM issued a key and does not know it.")
    _issued(key, token, namespace, budget)


def _already_there(llm: Litellm, key: LitellmKey, namespace: str) -> str:
    """The token of the key that an earlier try has put into the Secret, if LiteLLM knows it."""
    data = secret_data(name=key.secret_name, namespace=namespace) or {}
    token = token_of(data.get(SECRET_KEY, ""))
    return token if llm.key_info(token) is not None else ""


def _replacement(llm: Litellm, key: LitellmKey) -> IssuedKey | None:
    """By regenerating the old key, with what it has spent; None without the licence, or where no old key is left."""
    old = _replaced(key)
    if old is None:
        return None
    try:
        issued = llm.regenerate_key(old.token, grace_seconds=key.grace_seconds)
    except LitellmFailedError as exc:
        if exc.status == 404:
            return None
        raise
    if issued is None:
        # Two keys may not share an alias. The old one goes on under another until its grace is over.
        llm.rename_key(old.token, f"{key.alias}-retired-{old.pk.hex[:8]}")
    return issued


def _fresh(llm: Litellm, key: LitellmKey, budget: Decimal | None) -> IssuedKey:
    """A new key, after what an earlier try or an earlier tenant of the name left under the alias is gone."""
    known = {str(pk) for pk in LitellmKey.objects.filter(alias=key.alias).values_list("tenant_id", flat=True)}
    for token, owner in llm.keys_of_alias(key.alias):
        if owner not in known:
            raise LitellmFailedError(
                f"LiteLLM has a key {key.alias} that OpenCrane did not make.", status=400, is_lasting=True
            )
        llm.delete_key(token)
    old = _replaced(key)
    info = llm.key_info(old.token) if old else None
    spent = max(_spent(key.tenant_id), info.spend_usd if info else Decimal(0))
    metadata = {METADATA_TENANT: str(key.tenant_id), "opencrane_tenant": key.tenant}
    return llm.generate_key(alias=key.alias, max_budget_usd=budget, spend_usd=spent, metadata=metadata)


def _replaced(key: LitellmKey) -> LitellmKey | None:
    if key.replaces is None:
        return None
    return LitellmKey.objects.filter(pk=key.replaces, state=State.RETIRING).exclude(token="").first()


def _put(key: LitellmKey, namespace: str, value: str) -> None:
    apply_secret(
        name=key.secret_name,
        namespace=namespace,
        data={SECRET_KEY: value},
        labels={TENANT_LABEL: key.tenant},
        annotations={KEY_ID: str(key.pk)},
    )


@transaction.atomic(durable=True)
def _issued(key: LitellmKey, token: str, namespace: str, budget: Decimal | None) -> None:
    now = timezone.now()
    found = LitellmKey.objects.select_for_update().filter(pk=key.pk)
    state = found.values_list("state", flat=True).first()
    changes = _DONE | {"token": token, "namespace": namespace, "max_budget_usd": budget, "issued_at": now, "drift": ""}
    if state == State.WANTED:
        found.update(**changes, state=State.ACTIVE, not_before=now, checked_at=now)
        _record(key, "issued", f"Tenant {key.tenant} has a new LiteLLM key.", SYSTEM)
    else:
        # It was revoked while it was being issued: now it is known what there is to revoke.
        found.update(**changes)
        enqueue_on_commit(TASK, str(key.pk))
    if key.replaces is not None:
        until = now + timedelta(seconds=key.grace_seconds)
        LitellmKey.objects.filter(pk=key.replaces, state=State.RETIRING).update(grace_until=until, not_before=until)
        enqueue_on_commit(TASK, str(key.replaces))


def _follow(key: LitellmKey) -> None:
    """Have LiteLLM enforce the tenant's present budget, and the Secret be where the tenant's pod is."""
    tenant = Tenant.objects.filter(pk=key.tenant_id).first()
    if tenant is None or tenant.deleting:
        return
    budget, namespace = _budget_of(tenant), namespace_of(tenant.cluster_tenant_ref)
    data = secret_data(name=key.secret_name, namespace=key.namespace) or {}
    if token_of(data.get(SECRET_KEY, "")) != key.token:
        _replace_lost(key, "The Secret does not hold the key any more.")
        return
    with proxy.litellm() as llm:
        if (budget != key.max_budget_usd or key.checked_at is None) and not llm.set_budget(key.token, budget):
            _replace_lost(key, "LiteLLM does not have the key any more.")
            return
    if namespace != key.namespace:
        _put(key, namespace, data[SECRET_KEY])
        delete_secret(name=key.secret_name, namespace=key.namespace)
    now = timezone.now()
    with transaction.atomic(durable=True):
        LitellmKey.objects.filter(pk=key.pk).update(
            **_DONE, max_budget_usd=budget, namespace=namespace, not_before=now, checked_at=now, drift=""
        )
        if budget != key.max_budget_usd:
            _record(
                key,
                "budget_changed",
                f"LiteLLM enforces the new budget of tenant {key.tenant}.",
                SYSTEM,
                before={"maxBudgetUsd": _plain(key.max_budget_usd)},
                after={"maxBudgetUsd": _plain(budget)},
            )


@transaction.atomic(durable=True)
def _replace_lost(key: LitellmKey, why: str) -> None:
    """The key is of no use any more: have a new one."""
    tenant = Tenant.objects.select_for_update().filter(pk=key.tenant_id, deleting=False).first()
    found = LitellmKey.objects.select_for_update().filter(pk=key.pk, state=State.ACTIVE)
    if tenant is None or not found.exists():
        return
    now = timezone.now()
    found.update(state=State.RETIRING, cause=LitellmKey.Cause.ROTATED, grace_until=now, not_before=now, drift="")
    new = _wanted(tenant, replaces=key)
    _record(key, "lost", f"{why} Tenant {key.tenant} gets a new one.", SYSTEM)
    enqueue_on_commit(TASK, str(new.pk))


def _end(key: LitellmKey) -> None:
    """Dead in LiteLLM, then out of the cluster, then revoked."""
    if key.dead_at is None:
        with proxy.litellm() as llm:
            if key.token:
                llm.delete_key(key.token)
            for token, owner in llm.keys_of_alias(key.alias) if key.state == State.REVOKING else ():
                # A try that was cut short may have left one of which nobody knows the token.
                if owner == str(key.tenant_id):
                    llm.delete_key(token)
        key.dead_at = timezone.now()
        LitellmKey.objects.filter(pk=key.pk).update(dead_at=key.dead_at)
    if key.secret_gone_at is None:
        for namespace in _namespaces(key):
            # The Secret may hold another key by now: the new one after a rotation, or that of a new tenant of the name.
            if (secret_annotations(name=key.secret_name, namespace=namespace) or {}).get(KEY_ID) == str(key.pk):
                delete_secret(name=key.secret_name, namespace=namespace)
        key.secret_gone_at = timezone.now()
        LitellmKey.objects.filter(pk=key.pk).update(secret_gone_at=key.secret_gone_at)
    with transaction.atomic(durable=True):
        LitellmKey.objects.filter(pk=key.pk).update(**_DONE, state=State.REVOKED, revoked_at=timezone.now(), drift="")
        if key.cause == LitellmKey.Cause.ROTATED:
            message = f"The old LiteLLM key of tenant {key.tenant} is dead; its grace is over."
        else:
            message = f"The LiteLLM key of tenant {key.tenant} is dead and its Secret gone."
        _record(key, "revoked", message, SYSTEM)


def _namespaces(key: LitellmKey) -> Iterable[str]:
    """Where its Secret may be: where it was put, and, while it was being moved or issued, where the tenant is now."""
    customer = Tenant.objects.filter(pk=key.tenant_id).values_list("cluster_tenant_ref", flat=True).first()
    return dict.fromkeys([key.namespace, *([] if customer is None else [namespace_of(customer)])])


def token_of(value: str) -> str:
    """What LiteLLM calls a key."""
    return hashlib.sha256(value.encode()).hexdigest()


def _budget_of(tenant: Tenant) -> Decimal | None:
    return tenant.monthly_budget_usd or None


def _spent(tenant_id: UUID) -> Decimal:
    """What a tenant has spent this month, by the ledger."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(cost_usd), 0) FROM budgets_usagemonth WHERE tenant_id = %s AND month = %s"
            " AND model = ''",
            [tenant_id, selectors.this_month()],
        )
        spent: Decimal = cursor.fetchone()[0]
        return spent


def _plain(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


# -- comparing --------------------------------------------------------------------------------------------------------


def check_keys() -> int:
    """Compare what LiteLLM and the Secrets have with what we mean, those longest unlooked-at first; returns how many.

    What disagrees is noted as drift and changed by nobody but an operator (or the next change of the budget).
    """
    checked = failed = 0
    with object_lock("budgets", "check-keys") as held:
        if not held or not proxy.is_configured():
            return 0
        due = LitellmKey.objects.filter(
            Q(checked_at=None) | Q(checked_at__lt=timezone.now() - CHECK_EVERY + timedelta(seconds=10)),
            state=State.ACTIVE,
        ).order_by(F("checked_at").asc(nulls_first=True))
        deadline = time.monotonic() + CHECK_SECONDS
        with proxy.litellm() as llm:
            for key in list(due[:CHECK_BATCH]):
                if time.monotonic() > deadline:
                    break
                try:
                    _check(llm, key)
                    checked += 1
                except (LitellmFailedError, KubeError) as exc:
                    log.warning("a LiteLLM key could not be checked", tenant=key.tenant, error=str(exc))
                    failed += 1
                    if failed >= CHECK_GIVE_UP_AFTER:
                        break
    return checked


def _check(llm: Litellm, key: LitellmKey) -> None:
    info = llm.key_info(key.token)
    data = secret_data(name=key.secret_name, namespace=key.namespace) or {}
    found: list[str] = []
    changes: dict[str, Any] = {}
    now = timezone.now()
    if info is None:
        found.append("LiteLLM has no such key any more.")
    else:
        changes = {"known_spend_usd": info.spend_usd, "known_spend_at": now}
        if info.max_budget_usd != key.max_budget_usd:
            found.append(f"LiteLLM enforces {_amount(info.max_budget_usd)}, meant is {_amount(key.max_budget_usd)}.")
        if info.is_blocked:
            found.append("The key is blocked in LiteLLM.")
        if info.max_budget_usd is not None and info.budget_duration != proxy.BUDGET_DURATION:
            found.append(f"LiteLLM's budget is not monthly but {info.budget_duration or 'for ever'}.")
    if token_of(data.get(SECRET_KEY, "")) != key.token:
        found.append(f"Secret {key.namespace}/{key.secret_name} does not hold the key.")
    # Only while it is still the same: a change under way knows better.
    LitellmKey.objects.filter(pk=key.pk, state=State.ACTIVE, max_budget_usd=key.max_budget_usd).update(
        checked_at=now, drift=" ".join(found), **changes
    )


def _amount(value: Decimal | None) -> str:
    return "no ceiling" if value is None else f"${value:,.2f}"


def _record(key: LitellmKey, verb: str, message: str, actor: Actor, *, before: Any = None, after: Any = None) -> None:
    audit.record(
        action=f"litellm_key.{verb}",
        resource=f"LitellmKey/{key.tenant}",
        tenant=key.tenant,
        tenant_id=key.tenant_id,
        message=message,
        before=before,
        after=after,
        actor=actor,
    )
