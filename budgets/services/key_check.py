"""Compare the virtual keys that LiteLLM and the Secrets have with what we mean."""

import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import structlog
from django.db.models import F, Q
from django.utils import timezone

from budgets import litellm as proxy
from budgets.errors import LitellmFailedError
from budgets.litellm import Litellm
from budgets.models import LitellmKey
from budgets.services.key_rows import SECRET_KEY, State, token_of
from cluster.errors import KubeError
from cluster.locks import object_lock
from cluster.secrets import secret_data

log = structlog.get_logger(__name__)

CHECK_BATCH, CHECK_SECONDS = 10_000, 240.0
CHECK_EVERY = timedelta(minutes=5)
CHECK_GIVE_UP_AFTER = 3


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
