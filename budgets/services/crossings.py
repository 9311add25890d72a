"""Raise an event when a month's spend reaches 50, 80 or 100 % of a limit: once for each month, budget and threshold."""

import datetime
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from budgets import rules
from budgets.models import NOBODY, BudgetCrossing
from budgets.selectors import ACCOUNT_SPEND, this_month
from cluster.locks import object_lock
from opencrane.actor import SYSTEM, Actor
from operations.services import audit
from operations.services.webhooks import emit

EVENT = "budget.threshold_crossed"

# One statement finds what has been crossed and notes what was not noted before. A limit of 0 is no ceiling.
_RAISE = f"""
WITH spent AS (
    SELECT 'tenant' AS scope, t.id::text AS key, t.name AS label, sum(m.cost_usd) AS spend,
        t.monthly_budget_usd AS ceiling
    FROM budgets_usagemonth m JOIN tenants_tenant t ON t.id = m.tenant_id
    WHERE m.month = %s AND m.model = '' AND m.tenant_id <> %s AND t.monthly_budget_usd > 0 GROUP BY t.id
    UNION ALL
    SELECT 'account', b.key, b.user_id, {ACCOUNT_SPEND.format(key="b.key")}, b.monthly_limit_usd
    FROM budgets_budget b WHERE b.scope = 'account' AND b.monthly_limit_usd > 0
    UNION ALL
    SELECT 'global', '', 'everybody', (SELECT coalesce(sum(d.cost_usd), 0) FROM budgets_usageday d
        WHERE d.model = '' AND d.day >= %s AND d.day < %s), b.monthly_limit_usd
    FROM budgets_budget b WHERE b.scope = 'global' AND b.monthly_limit_usd > 0
)
INSERT INTO budgets_budgetcrossing (month, scope, key, label, threshold_percent, spend_usd, limit_usd, at)
SELECT %s, s.scope, s.key, s.label, threshold, s.spend, s.ceiling, clock_timestamp()
FROM spent s, unnest(%s::smallint[]) AS threshold
WHERE s.spend * 100 >= s.ceiling * threshold
ORDER BY s.scope, s.key, threshold
ON CONFLICT (month, scope, key, threshold_percent) DO NOTHING
RETURNING id
"""  # noqa: S608  (parts are ours)
_WHOSE = {"global": "everybody together", "account": "account {label}", "tenant": "tenant {label}"}


def raise_crossings() -> int:
    """Raise what has been crossed and was not raised this month; returns how many.

    Another process that is at it already does this one's work, or the next minute's run does.
    """
    with object_lock("budgets", "crossings") as held:
        return _raise() if held else 0


@transaction.atomic(durable=True)
def _raise() -> int:
    month = this_month()
    with connection.cursor() as cursor:
        following = rules.next_month(month)
        cursor.execute(_RAISE, [month, NOBODY, month, month, following, month, list(rules.THRESHOLDS)])
        ids = [row[0] for row in cursor.fetchall()]
    for crossing in BudgetCrossing.objects.filter(pk__in=ids).order_by("pk"):
        _tell(crossing)
    return len(ids)


def _tell(crossing: BudgetCrossing) -> None:
    """Audit and webhooks; the row itself is the console's notice."""
    is_tenant = crossing.scope == BudgetCrossing.Scope.TENANT
    audit.record(
        action="budget.threshold_crossed",
        resource=f"Budget/{crossing.label if crossing.scope != 'global' else 'global'}",
        tenant=crossing.label if is_tenant else "",
        tenant_id=UUID(crossing.key) if is_tenant else None,
        message=sentence(crossing),
        after=payload(crossing),
        actor=SYSTEM,
    )
    key = f"{crossing.month:%Y-%m}/{crossing.scope}/{crossing.key}/{crossing.threshold_percent}"
    emit(event=EVENT, payload=payload(crossing), dedupe_key=key)


def sentence(crossing: BudgetCrossing) -> str:
    whose = _WHOSE[crossing.scope].format(label=crossing.label)
    return (
        f"The spend of {whose} in {crossing.month:%B %Y} has reached {crossing.threshold_percent} % of its budget:"
        f" ${crossing.spend_usd:,.2f} of ${crossing.limit_usd:,.2f}."
    )


def payload(crossing: BudgetCrossing) -> dict[str, object]:
    """What webhooks and the audit trail say of a crossing."""
    return {
        "month": f"{crossing.month:%Y-%m}",
        "scope": crossing.scope,
        "key": crossing.key,
        "name": crossing.label,
        "thresholdPercent": crossing.threshold_percent,
        "currentSpendUsd": float(crossing.spend_usd),
        "monthlyLimitUsd": float(crossing.limit_usd),
        "budgetAlertState": rules.alert_state(crossing.spend_usd, crossing.limit_usd),
        "at": crossing.at.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


@transaction.atomic(durable=True)
def dismiss(*, crossing_id: int | None, actor: Actor) -> int:
    """Take a notice, and those of lower thresholds of the same budget, or (None) all of them out of the console.

    The audit trail keeps them. Returns how many there were.
    """
    found = BudgetCrossing.objects.filter(dismissed_at=None)
    if crossing_id is not None:
        chosen = BudgetCrossing.objects.filter(pk=crossing_id).first()
        if chosen is None:
            return 0
        found = found.filter(
            month=chosen.month,
            scope=chosen.scope,
            key=chosen.key,
            threshold_percent__lte=chosen.threshold_percent,
        )
    many = found.update(dismissed_at=timezone.now())
    if many:
        what = f"{many} notice{'' if many == 1 else 's'} of crossed budgets"
        audit.record(
            action="budget.notice_dismissed", resource="Budget/notices", message=f"Dismissed {what}.", actor=actor
        )
    return many
