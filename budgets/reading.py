"""What the console shows of money beyond what the API gives."""

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from budgets import rules, selectors
from budgets.models import NOBODY, BudgetCrossing, LitellmKey, ProviderSecret, TokenUsage, UsageImport
from budgets.selectors import Spend, UsageFilter
from opencrane.api.keyset import Keyset, Page

KEYS_BY_NAME = Keyset([("tenant", "asc"), ("id", "asc")], name="litellm keys in the console")
USAGE_NEWEST = Keyset([("recorded_at", "desc"), ("id", "desc")], name="usage in the console")
STALE_AFTER = datetime.timedelta(minutes=10)

# The rows with an empty model are those of all models; an index has them by what was spent.
_BY_TENANT = """
WITH top AS (
    SELECT m.tenant_id, m.tenant, m.cost_usd, m.requests FROM budgets_usagemonth m
    WHERE m.month = %(month)s AND m.model = '' AND m.tenant_id <> %(nobody)s
    ORDER BY m.cost_usd DESC LIMIT %(limit)s
), teams AS (
    SELECT coalesce(t.team, f.team, '') AS team, sum(m.cost_usd) AS cost, count(*) AS tenants
    FROM budgets_usagemonth m LEFT JOIN tenants_tenant t ON t.id = m.tenant_id
        LEFT JOIN budgets_formertenant f ON f.tenant_id = m.tenant_id
    WHERE m.month = %(month)s AND m.model = '' AND m.tenant_id <> %(nobody)s
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %(limit)s
)
SELECT 'tenant', top.tenant, top.cost_usd, top.requests, coalesce(t.monthly_budget_usd, 0), t.id IS NOT NULL
    FROM top LEFT JOIN tenants_tenant t ON t.id = top.tenant_id
UNION ALL SELECT 'team', team, cost, tenants, 0, TRUE FROM teams
UNION ALL SELECT 'nobody', '', coalesce(sum(cost_usd), 0), coalesce(sum(requests), 0), 0, FALSE
    FROM budgets_usagemonth WHERE tenant_id = %(nobody)s AND month = %(month)s AND model = ''
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a ranking: what was spent, in how many requests (of a team: by how many tenants)."""

    name: str
    cost: Decimal
    count: int
    limit: Decimal = Decimal(0)
    is_there: bool = True
    share: float = 0.0

    @property
    def spend(self) -> Spend:
        return Spend(self.limit, self.cost)


@dataclass(frozen=True, slots=True)
class MonthView:
    """A month as the dashboard shows it; `days` has every day, the spent and its running sum."""

    month: datetime.date
    spend: Spend
    forecast_usd: Decimal
    requests: int
    input_tokens: int
    output_tokens: int
    days: list[tuple[datetime.date, float, float | None]]
    models: list[Row]
    tenants: list[Row]
    teams: list[Row]
    unattributed: Row


def month_view(limit: int = 10) -> MonthView:
    """This month: three queries over sums, none over the ledger."""
    now = timezone.now()
    month = rules.month_of(now)
    spend = selectors.global_spend()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT day, model, cost_usd, requests, input_tokens, output_tokens FROM budgets_usageday"
            " WHERE day >= %s AND day < %s",
            [month, rules.next_month(month)],
        )
        by_day: dict[datetime.date, Decimal] = {}
        by_model: dict[str, list[Any]] = {}
        totals = [0, 0, 0]
        for day, model, cost, requests, tokens_in, tokens_out in cursor.fetchall():
            if model == "":
                by_day[day] = cost
                totals = [totals[0] + requests, totals[1] + tokens_in, totals[2] + tokens_out]
            else:
                row = by_model.setdefault(model, [Decimal(0), 0])
                row[0] += cost
                row[1] += requests
        cursor.execute(_BY_TENANT, {"month": month, "nobody": NOBODY, "limit": limit})
        found = cursor.fetchall()
    total = spend.spend_usd
    models = [Row(name, cost, requests, share=_share(cost, total)) for name, (cost, requests) in by_model.items()]
    models.sort(key=lambda row: (-row.cost, row.name))
    rows = {
        kind: [
            Row(name, cost, int(count), ceiling, is_there, _share(cost, total))
            for each, name, cost, count, ceiling, is_there in found
            if each == kind
        ]
        for kind in ("tenant", "team", "nobody")
    }
    rows["tenant"].sort(key=lambda row: (-row.cost, row.name))
    return MonthView(
        month=month,
        spend=spend,
        forecast_usd=rules.forecast(total, now),
        requests=totals[0],
        input_tokens=totals[1],
        output_tokens=totals[2],
        days=_days(month, now.date(), by_day),
        models=models[:limit],
        tenants=rows["tenant"],
        teams=rows["team"],
        unattributed=rows["nobody"][0],
    )


def _share(part: Decimal, whole: Decimal) -> float:
    return float(part * 100 / whole) if whole else 0.0


def _days(
    month: datetime.date, today: datetime.date, by_day: dict[datetime.date, Decimal]
) -> list[tuple[datetime.date, float, float | None]]:
    found: list[tuple[datetime.date, float, float | None]] = []
    day, running = month, Decimal(0)
    while day < rules.next_month(month):
        running += by_day.get(day, Decimal(0))
        found.append((day, float(by_day.get(day, 0)), float(running) if day <= today else None))
        day += datetime.timedelta(days=1)
    return found


def notices(limit: int = 50) -> list[BudgetCrossing]:
    """What has been crossed and nobody has dismissed: of each budget the highest threshold, the worst first."""
    highest: dict[tuple[Any, ...], BudgetCrossing] = {}
    found = BudgetCrossing.objects.filter(dismissed_at=None).order_by("-at", "-id")[: limit * len(rules.THRESHOLDS)]
    for crossing in found:
        key = (crossing.month, crossing.scope, crossing.key)
        if key not in highest or highest[key].threshold_percent < crossing.threshold_percent:
            highest[key] = crossing
    return sorted(highest.values(), key=lambda each: (-each.threshold_percent, -each.at.timestamp()))[:limit]


def notice_count() -> int:
    """How many notices there are; of each budget one, as `notices` has them."""
    waiting = BudgetCrossing.objects.filter(dismissed_at=None).order_by()
    return waiting.values("month", "scope", "key").distinct()[:100].count()


def import_state() -> UsageImport | None:
    return UsageImport.objects.filter(pk=1).first()


def is_stale(state: UsageImport | None) -> bool:
    """Whether usage that LiteLLM knows may be missing."""
    if state is None or state.last_success_at is None:
        return True
    return state.failing_since is not None or timezone.now() - state.last_success_at > STALE_AFTER


def key_counts() -> dict[str, int]:
    """Keys by what should be looked at: `failing`, `drifted`, `revoking`, `active`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE failing_since IS NOT NULL), count(*) FILTER (WHERE drift <> ''),"
            " count(*) FILTER (WHERE state = 'revoking'), count(*) FILTER (WHERE state = 'active')"
            " FROM budgets_litellmkey WHERE state <> 'revoked'"
        )
        return dict(zip(("failing", "drifted", "revoking", "active"), cursor.fetchone(), strict=True))


def keys_listed(filters: dict[str, str]) -> QuerySet[LitellmKey]:
    """Keys that fit `q` and `state` (a state, `failing`, `drifted`; else those not revoked); unordered."""
    found = LitellmKey.objects.order_by()
    if text := filters.get("q"):
        found = found.filter(tenant__icontains=text)
    match filters.get("state"):
        case None | "":
            return found.exclude(state=LitellmKey.State.REVOKED)
        case "failing":
            return found.filter(failing_since__isnull=False)
        case "drifted":
            return found.exclude(drift="")
        case state:
            return found.filter(state=state)


def keys_of_name(name: str) -> list[LitellmKey]:
    """The keys of tenants of a name, that in force first; also of one that is gone."""
    found = list(LitellmKey.objects.filter(tenant=name).order_by("-created_at", "-id")[:30])
    rank = {"active": 0, "wanted": 0, "revoking": 1, "retiring": 1}
    return sorted(found, key=lambda key: rank.get(key.state, 2))


def provider_secret() -> ProviderSecret | None:
    return ProviderSecret.objects.filter(pk=1).first()


def usage_listed(wanted: UsageFilter, page: Page) -> list[TokenUsage]:
    """A page of the ledger plus one row."""
    where, params = wanted.where()
    found = TokenUsage.objects.extra(  # noqa: S610  (the condition is ours)
        where=[where.replace("u.", "budgets_tokenusage.")], params=params
    )
    return list(USAGE_NEWEST.apply(found.order_by(), page))


@dataclass(frozen=True, slots=True)
class TenantMonth:
    """What a tenant spent in a month, by the ledger."""

    month: datetime.date
    cost: Decimal
    requests: int

    @property
    def last_day(self) -> datetime.date:
        return rules.next_month(self.month) - datetime.timedelta(days=1)


def tenant_months(tenant_id: UUID, months: int = 12) -> list[TenantMonth]:
    """The last months that a tenant spent anything in, newest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT month, sum(cost_usd), sum(requests) FROM budgets_usagemonth WHERE tenant_id = %s"
            " AND model = '' GROUP BY month ORDER BY month DESC LIMIT %s",
            [tenant_id, months],
        )
        return [TenantMonth(month, cost, int(requests)) for month, cost, requests in cursor.fetchall()]


def tenant_models(tenant_id: UUID) -> list[Row]:
    """What a tenant spent by model this month, most first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT model, sum(cost_usd), sum(requests) FROM budgets_usagemonth WHERE tenant_id = %s AND month = %s"
            " AND model <> '' GROUP BY model ORDER BY 2 DESC, 1 LIMIT 20",
            [tenant_id, selectors.this_month()],
        )
        found = cursor.fetchall()
    total = sum((cost for _, cost, _ in found), Decimal(0))
    return [Row(model, cost, int(requests), share=_share(cost, total)) for model, cost, requests in found]
