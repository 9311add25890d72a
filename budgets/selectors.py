"""Reading budgets, usage and keys."""

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from budgets import rules
from budgets.errors import AccountBudgetNotFoundError, LitellmKeyNotFoundError
from budgets.models import Budget, LitellmKey, ProviderKey
from opencrane.api.keyset import Keyset, Page
from opencrane.api.pasted import json_page, like
from opencrane.rows import one

USAGE_NEWEST = Keyset([("recorded_at", "desc"), ("id", "desc")], name="token usage", default_limit=100)
ACCOUNTS_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="account budgets")

# What one account has spent: the sum over tenants whose e-mail it is, those that are gone included.
# By lateral joins, so that only these tenants are looked up; e-mails are indexed in the database's own collation.
ACCOUNT_SPEND = """(SELECT coalesce(sum(their.cost), 0) FROM
 (SELECT t.id FROM tenants_tenant t WHERE lower(t.email) = {key} COLLATE "default"
  UNION ALL SELECT f.tenant_id FROM budgets_formertenant f WHERE f.account = {key}) AS owned
 CROSS JOIN LATERAL (SELECT sum(m.cost_usd) AS cost FROM budgets_usagemonth m
  WHERE m.tenant_id = owned.id AND m.month = %s AND m.model = '') AS their)"""


@dataclass(frozen=True, slots=True)
class Spend:
    """A limit and what was spent of it this month."""

    limit_usd: Decimal
    spend_usd: Decimal

    @property
    def state(self) -> rules.AlertState:
        return rules.alert_state(self.spend_usd, self.limit_usd)

    @property
    def percent(self) -> float | None:
        """Of the limit; None where there is no ceiling."""
        return float(self.spend_usd * 100 / self.limit_usd) if self.limit_usd else None

    @property
    def percent_shown(self) -> int | None:
        """Whole percents, never rounded up: 100 is said when it is reached."""
        return None if self.percent is None else int(self.percent)

    def shown(self) -> dict[str, Any]:
        return {
            "monthlyLimitUsd": float(self.limit_usd),
            "currentSpendUsd": float(self.spend_usd),
            "budgetAlertState": self.state,
        }


def this_month() -> datetime.date:
    return rules.month_of(timezone.now())


# -- budgets ----------------------------------------------------------------------------------------------------------


def global_spend() -> Spend:
    """What everybody together may spend and has spent; one query over at most 31 rows."""
    month = this_month()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce((SELECT monthly_limit_usd FROM budgets_budget WHERE scope = 'global' AND key = ''), 0),"
            " coalesce((SELECT sum(cost_usd) FROM budgets_usageday WHERE model = '' AND day >= %s AND day < %s), 0)",
            [month, rules.next_month(month)],
        )
        return Spend(*cursor.fetchone())


def account_spend(user_id: str) -> Spend:
    """What an account may spend and has spent.

    Raises:
        AccountBudgetNotFoundError
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT b.monthly_limit_usd, {ACCOUNT_SPEND.format(key='b.key')} FROM budgets_budget b"  # noqa: S608
            " WHERE b.scope = 'account' AND b.key = %s",
            [this_month(), user_id.lower()],
        )
        row = cursor.fetchone()
    if row is None:
        raise AccountBudgetNotFoundError(f"There is no budget of {user_id}.")
    return Spend(*row)


def account_budget(user_id: str) -> Budget:
    """The row of an account's budget.

    Raises:
        AccountBudgetNotFoundError
    """
    missing = AccountBudgetNotFoundError(f"There is no budget of {user_id}.")
    return one(Budget.objects, missing, scope=Budget.Scope.ACCOUNT, key=user_id.lower())


def account_budgets(filters: dict[str, str], page: Page) -> list[tuple[Budget, Spend]]:
    """Accounts with their budgets, newest first, and one more than the page has; filters are `q` and `state`."""
    where = ["b.scope = 'account'"]
    params: list[Any] = [this_month()]
    outer: list[Any] = []
    conditions = ["TRUE"]
    if text := filters.get("q"):
        where.append("b.key LIKE %s")
        params.append(like(text.lower()))
    beyond, keys = ACCOUNTS_NEWEST.where(page, "b.")
    where.append(beyond)
    params += keys
    if state := filters.get("state"):
        conditions.append(_STATE_CONDITIONS[state])
    limit = ""
    if page.limit is not None:
        limit = "LIMIT %s"
        outer.append(page.limit + 1)
    statement = f"""
        SELECT * FROM (SELECT b.id, b.user_id, b.key, b.monthly_limit_usd, b.created_at, b.updated_at,
            {ACCOUNT_SPEND.format(key="b.key")} AS spend FROM budgets_budget b WHERE {" AND ".join(where)}) AS a
        WHERE {" AND ".join(conditions)} ORDER BY a.created_at DESC, a.id DESC {limit}
    """  # noqa: S608  (parts are ours)
    with connection.cursor() as cursor:
        cursor.execute(statement, [*params, *outer])
        found = cursor.fetchall()
    rows = []
    for pk, user_id, key, limit_usd, created_at, updated_at, spend in found:
        budget = Budget(
            pk=pk,
            scope=Budget.Scope.ACCOUNT,
            user_id=user_id,
            key=key,
            monthly_limit_usd=limit_usd,
            created_at=created_at,
            updated_at=updated_at,
        )
        rows.append((budget, Spend(limit_usd, spend)))
    return rows


_STATE_CONDITIONS = {
    "ok": "(a.monthly_limit_usd = 0 OR a.spend * 100 < a.monthly_limit_usd * 80)",
    "warning": "(a.monthly_limit_usd > 0 AND a.spend * 100 >= a.monthly_limit_usd * 80"
    " AND a.spend * 100 < a.monthly_limit_usd * 100)",
    "exceeded": "(a.monthly_limit_usd > 0 AND a.spend * 100 >= a.monthly_limit_usd * 100)",
}


# Budgets of accounts and tenants, counted by scope and state.
BUDGET_STATES = f"""
WITH spent AS (
    SELECT 'tenant' AS scope, t.monthly_budget_usd AS ceiling, coalesce(m.spend, 0) AS spend
    FROM tenants_tenant t LEFT JOIN (SELECT tenant_id, sum(cost_usd) AS spend FROM budgets_usagemonth WHERE month = %s
        AND model = '' GROUP BY tenant_id) m ON m.tenant_id = t.id
    WHERE t.monthly_budget_usd > 0
    UNION ALL
    SELECT 'account', b.monthly_limit_usd, {ACCOUNT_SPEND.format(key="b.key")}
    FROM budgets_budget b WHERE b.scope = 'account'
)
SELECT scope, CASE WHEN ceiling = 0 OR spend * 100 < ceiling * {rules.WARNING_PERCENT} THEN 'ok'
 WHEN spend * 100 < ceiling * {rules.EXCEEDED_PERCENT} THEN 'warning' ELSE 'exceeded' END, count(*)
FROM spent GROUP BY 1, 2
"""  # noqa: S608


# -- tenants ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TenantSpend:
    """What the ledger knows of one tenant's month, and the key LiteLLM enforces it by, if there is one."""

    tenant_id: UUID
    spend: Spend
    has_usage: bool
    token: str
    known_spend_usd: Decimal | None
    known_spend_at: datetime.datetime | None


def tenant_spend(name: str) -> TenantSpend | None:
    """One query; None when there is no tenant of that name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.id, coalesce(t.monthly_budget_usd, 0), m.spend, k.token, k.known_spend_usd, k.known_spend_at"
            " FROM tenants_tenant t LEFT JOIN LATERAL (SELECT sum(u.cost_usd) AS spend FROM budgets_usagemonth u"
            "  WHERE u.tenant_id = t.id AND u.month = %s AND u.model = '') m ON TRUE"
            " LEFT JOIN budgets_litellmkey k ON k.tenant_id = t.id AND k.state = 'active'"
            " WHERE t.name = %s",
            [this_month(), name],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    tenant_id, limit, spend, token, known, known_at = row
    return TenantSpend(tenant_id, Spend(limit, spend or Decimal(0)), spend is not None, token or "", known, known_at)


def current_key(tenant_id: UUID) -> LitellmKey:
    """The tenant's key: the one that is wanted or active, else the last that was.

    Raises:
        LitellmKeyNotFoundError: it never had one.
    """
    key = keys_of(tenant_id)[:1]
    if not key:
        raise LitellmKeyNotFoundError
    return key[0]


def keys_of(tenant_id: UUID, limit: int = 20) -> list[LitellmKey]:
    """A tenant's keys, the one in force first, then the newest."""
    found = list(LitellmKey.objects.filter(tenant_id=tenant_id).order_by("-created_at", "-id")[:limit])
    current = (LitellmKey.State.WANTED, LitellmKey.State.ACTIVE)
    return sorted(found, key=lambda key: key.state not in current)


# -- usage ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which part of the ledger; times are from (included) and to (excluded)."""

    tenant: str = ""
    tenant_id: UUID | None = None
    model: str = ""
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    unattributed: bool = False

    def where(self) -> tuple[str, list[Any]]:
        """An SQL condition on `budgets_tokenusage u` and its parameters."""
        parts: list[str] = ["TRUE"]
        params: list[Any] = []
        for column, value in (("u.tenant", self.tenant), ("u.tenant_id", self.tenant_id), ("u.model", self.model)):
            if value:
                parts.append(f"{column} = %s")
                params.append(value)
        if self.unattributed:
            parts.append("u.tenant_id IS NULL")
        for sign, moment in ((">=", self.since), ("<", self.until)):
            if moment is not None:
                parts.append(f"u.recorded_at {sign} %s")
                params.append(moment)
        return " AND ".join(parts), params


_USAGE_ITEM = """json_build_object('tenant', u.tenant, 'tenantId', u.tenant_id, 'model', u.model,
 'inputTokens', u.input_tokens, 'outputTokens', u.output_tokens, 'totalCostUsd', u.cost_usd::float8,
 'recordedAt', replace((u.recorded_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z', 'requestId', u.request_id,
 'origin', u.source, 'correctedAt', replace((u.corrected_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z')::text"""


def usage_page(wanted: UsageFilter, page: Page) -> tuple[bytes, str]:
    """One page of the ledger, newest first, as JSON text in one query; and the cursor of the next page, or empty."""
    where, params = wanted.where()
    beyond, keys = USAGE_NEWEST.where(page, "u.")
    statement = f"""
        SELECT {_USAGE_ITEM}, u.recorded_at, u.id FROM budgets_tokenusage u WHERE {where} AND {beyond}
        ORDER BY {USAGE_NEWEST.order_by("u.")} LIMIT %s
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(statement, [*params, *keys, (page.limit or 0) + 1])
        rows = cursor.fetchall()
    return json_page(USAGE_NEWEST, rows, page)


# -- provider keys ----------------------------------------------------------------------------------------------------


def provider_keys() -> dict[str, ProviderKey]:
    """What is kept, by provider; nothing is opened."""
    return {row.provider: row for row in ProviderKey.objects.defer("api_key")}
