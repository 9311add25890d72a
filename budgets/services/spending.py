"""What a tenant has spent, by LiteLLM's own word where there is one."""

import datetime
from decimal import Decimal
from typing import Any

import structlog
from django.utils import timezone

from budgets import litellm as proxy
from budgets import rules, selectors
from budgets.errors import LitellmFailedError
from budgets.litellm import ANSWER_SECONDS
from budgets.models import LitellmKey
from budgets.selectors import Spend, TenantSpend
from cluster.wait import waiting_slot
from tenants.errors import TenantNotFoundError

log = structlog.get_logger(__name__)


def tenant_spend(*, tenant_name: str) -> dict[str, Any]:
    """A tenant's month: from LiteLLM if it answers in 5 s, else what was known last, marked stale.

    Without LiteLLM, and for a tenant that has no key there, the ledger's sum. A request that waits for LiteLLM holds
    no database connection, and at most half of the threads wait.

    Raises:
        TenantNotFoundError
        LitellmFailedError: LiteLLM does not answer, and nothing is known of the month.
    """
    known = selectors.tenant_spend(tenant_name)
    if known is None:
        raise TenantNotFoundError(f"There is no tenant named {tenant_name}.")
    now = timezone.now()
    if not (proxy.is_configured() and known.token):
        return _shown(tenant_name, known.spend, origin="ledger", as_of=now, stale=False)
    try:
        spent = _asked(known.token)
    except LitellmFailedError as exc:
        log.warning("spend from what is known", tenant=tenant_name, error=exc.message)
        return _last_known(tenant_name, known, exc)
    LitellmKey.objects.filter(token=known.token).update(known_spend_usd=spent, known_spend_at=now)
    return _shown(tenant_name, Spend(known.spend.limit_usd, spent), origin="litellm", as_of=now, stale=False)


def _asked(token: str) -> Decimal:
    with waiting_slot() as taken:
        if not taken:
            raise LitellmFailedError("Too many requests are waiting already.")
        with proxy.litellm() as llm:
            info = llm.key_info(token, timeout_seconds=ANSWER_SECONDS)
    if info is None:
        raise LitellmFailedError("LiteLLM does not have the tenant's key any more.")
    return info.spend_usd


def _last_known(name: str, known: TenantSpend, error: LitellmFailedError) -> dict[str, Any]:
    """The later of LiteLLM's last word of this month and the ledger."""
    at = known.known_spend_at
    if at is not None and known.known_spend_usd is not None and rules.month_of(at) == selectors.this_month():
        spent = max(known.known_spend_usd, known.spend.spend_usd)
        return _shown(name, Spend(known.spend.limit_usd, spent), origin="litellm", as_of=at, stale=True)
    if known.has_usage:
        return _shown(name, known.spend, origin="ledger", as_of=timezone.now(), stale=True)
    raise error


def _shown(name: str, spend: Spend, *, origin: str, as_of: datetime.datetime, stale: bool) -> dict[str, Any]:
    return {"tenant": name, **spend.shown(), "stale": stale, "origin": origin, "asOf": as_of}
