"""Months, thresholds, and what words and numbers about money may be. Pure."""

import datetime
import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

AlertState = Literal["ok", "warning", "exceeded"]
ALERT_STATES: tuple[AlertState, ...] = ("ok", "warning", "exceeded")
WARNING_PERCENT, EXCEEDED_PERCENT = 80, 100
THRESHOLDS = (50, 80, 100)

USER_ID_MAX = 254
MODEL_MAX = 200
TENANT_MAX = 253
REQUEST_ID_MAX = 200
COST_MAX = Decimal(1_000_000)
TOKENS_MAX = 10**12
COST_STEP = Decimal("1e-10")
# Before there were models to call; a clock that says so is wrong.
EARLIEST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
# A clock may go this fast before its times count as those of a wrong clock.
CLOCK_SKEW = datetime.timedelta(minutes=5)

PROVIDER_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
PROVIDER_MAX = 63
KEY_MIN, KEY_MAX = 8, 4096


def month_of(moment: datetime.datetime) -> datetime.date:
    """The first day of the calendar month (UTC) that a time falls into."""
    return moment.astimezone(datetime.UTC).date().replace(day=1)


def next_month(month: datetime.date) -> datetime.date:
    return (month.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)


def alert_state(spend: Decimal, limit: Decimal) -> AlertState:
    """ok < 80 % ≤ warning < 100 % ≤ exceeded; a limit of 0 is no ceiling."""
    if limit <= 0:
        return "ok"
    if spend * 100 >= limit * EXCEEDED_PERCENT:
        return "exceeded"
    return "warning" if spend * 100 >= limit * WARNING_PERCENT else "ok"


def cost(value: float | int | str | Decimal) -> Decimal:
    """Dollars as the ledger keeps them: ten places.

    Raises:
        ValueError: negative, not finite, or more than a call can cost.
    """
    amount = value if isinstance(value, Decimal) else Decimal(str(value))
    if not amount.is_finite() or amount < 0 or amount > COST_MAX:
        raise ValueError(f"Has to be from 0 to {COST_MAX:,}.")
    return amount.quantize(COST_STEP, rounding=ROUND_HALF_EVEN)


def forecast(spent: Decimal, now: datetime.datetime) -> Decimal:
    """What the month will have cost if it goes on as it went so far; at least an hour counts as gone."""
    month = month_of(now)
    start = datetime.datetime.combine(month, datetime.time(), datetime.UTC)
    end = datetime.datetime.combine(next_month(month), datetime.time(), datetime.UTC)
    gone = max((now - start).total_seconds(), 3600.0)
    return spent * Decimal(str((end - start).total_seconds() / gone))


def is_provider(name: str) -> bool:
    return len(name) <= PROVIDER_MAX and re.fullmatch(PROVIDER_PATTERN.strip("^$"), name) is not None
