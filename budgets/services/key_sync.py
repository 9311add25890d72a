"""Bring LiteLLM and the cluster to what is wanted of a virtual key, from whatever state it finds them in.

It may be killed at any point and run again. The order matters: a new key lives in LiteLLM before the Secret has it; an
old one is dead in LiteLLM before its Secret goes, and only then does its row say that it is revoked.
"""

import random
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from budgets import litellm as proxy
from budgets import selectors
from budgets.errors import LitellmFailedError, LitellmNotConfiguredError
from budgets.litellm import METADATA_TENANT, IssuedKey, Litellm
from budgets.models import LitellmKey
from budgets.services.key_rows import KEY_ID, SECRET_KEY, TASK, State, record, token_of, wanted_key
from cluster.errors import KubeError
from cluster.locks import object_lock
from cluster.secrets import apply_secret, delete_secret, secret_annotations, secret_data
from opencrane.actor import SYSTEM
from opencrane.tasks import enqueue_on_commit
from tenants.models import Tenant
from tenants.workloads import namespace_of

log = structlog.get_logger(__name__)

TENANT_LABEL = "opencrane.io/tenant"
MAX_DELAY_SECONDS = 300.0


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
        record(key, "issued", f"Tenant {key.tenant} has a new LiteLLM key.", SYSTEM)
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
            record(
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
    new = wanted_key(tenant, replaces=key)
    record(key, "lost", f"{why} Tenant {key.tenant} gets a new one.", SYSTEM)
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
        record(key, "revoked", message, SYSTEM)


def _namespaces(key: LitellmKey) -> Iterable[str]:
    """Where its Secret may be: where it was put, and, while it was being moved or issued, where the tenant is now."""
    customer = Tenant.objects.filter(pk=key.tenant_id).values_list("cluster_tenant_ref", flat=True).first()
    return dict.fromkeys([key.namespace, *([] if customer is None else [namespace_of(customer)])])


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
