"""The ledger of usage: take in what is reported, each request once, and keep the sums in the same transaction.

Who is right when the same request comes with other numbers:

- Of one source, the report that comes last. It corrects the ledger, and the sums of the month that the record is in
  (both months, where the time was corrected).
- LiteLLM before whoever pushes, because LiteLLM enforces the budgets by its own numbers.

To whom usage counts is decided once, when it first comes, and anew only when a correction names another tenant: a new
tenant of an old name starts at zero.

Locks are taken in one order (new requests by id, known ones by id, months, days), so that imports and pushes that meet
wait for each other and never in a circle.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from django.db import connection, transaction
from django.utils import timezone

from budgets import rules
from budgets.models import NOBODY, LitellmKey, TokenUsage
from opencrane.actor import SYSTEM, Actor
from opencrane.tasks import enqueue_on_commit
from operations.services import audit

CROSSINGS_TASK = "budgets.raise_crossings"
AUDITED_CORRECTIONS = 20


@dataclass(frozen=True, slots=True)
class Usage:
    """One reported call of a model, checked by whoever made this (`rules` has the bounds).

    Attributes:
        tenant: its name as reported; empty when nobody said.
        token: SHA-256 of the LiteLLM key that was used, which tells the tenant better than a name does; or empty.
        at: when, as reported; None when nobody said, which is now.
    """

    request_id: str
    tenant: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    at: datetime.datetime | None
    token: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch: how many were new, corrected what was there, said the same again, or lost to LiteLLM."""

    new: int = 0
    corrected: int = 0
    same: int = 0
    overruled: int = 0
    unattributed: int = 0

    def __add__(self, other: "Recorded") -> "Recorded":
        return Recorded(
            self.new + other.new,
            self.corrected + other.corrected,
            self.same + other.same,
            self.overruled + other.overruled,
            self.unattributed + other.unattributed,
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row of the ledger, as far as sums and corrections go by it."""

    request_id: str
    tenant_id: UUID | None
    tenant: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    recorded_at: datetime.datetime
    reported_at: datetime.datetime | None

    def numbers(self) -> tuple[Any, ...]:
        return (self.tenant, self.model, self.input_tokens, self.output_tokens, self.cost_usd, self.recorded_at)

    def shown(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant,
            "model": self.model,
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "totalCostUsd": float(self.cost_usd),
            "recordedAt": self.recorded_at.isoformat(),
        }


_COLUMNS = "request_id, tenant_id, tenant, model, input_tokens, output_tokens, cost_usd, recorded_at, reported_at"
_GIVEN = """json_to_recordset(%s::json) AS given(request_id text, tenant_id uuid, tenant text, model text,
 input_tokens bigint, output_tokens bigint, cost_usd numeric, recorded_at timestamptz, reported_at timestamptz)"""
_INSERT = f"""
INSERT INTO budgets_tokenusage ({_COLUMNS}, source, received_at)
SELECT {_COLUMNS}, %s, now() FROM {_GIVEN} ORDER BY request_id COLLATE "C"
ON CONFLICT (request_id) DO NOTHING RETURNING request_id
"""  # noqa: S608  (names are ours)
_KNOWN = f"""
SELECT {_COLUMNS}, source FROM budgets_tokenusage WHERE request_id = ANY(%s) ORDER BY request_id FOR NO KEY UPDATE
"""  # noqa: S608
_CORRECT = f"""
UPDATE budgets_tokenusage u SET source = %s, corrected_at = now(), tenant_id = given.tenant_id, tenant = given.tenant,
 model = given.model, input_tokens = given.input_tokens, output_tokens = given.output_tokens,
 cost_usd = given.cost_usd, recorded_at = given.recorded_at, reported_at = given.reported_at
FROM {_GIVEN} WHERE u.request_id = given.request_id
"""  # noqa: S608
_ADD = """input_tokens = s.input_tokens + excluded.input_tokens,
 output_tokens = s.output_tokens + excluded.output_tokens, cost_usd = s.cost_usd + excluded.cost_usd,
 requests = s.requests + excluded.requests"""
_MONTHS = f"""
INSERT INTO budgets_usagemonth AS s (month, tenant_id, tenant, model, input_tokens, output_tokens, cost_usd, requests)
SELECT * FROM json_to_recordset(%s::json) AS given(month date, tenant_id uuid, tenant text, model text,
 input_tokens bigint, output_tokens bigint, cost_usd numeric, requests bigint)
ORDER BY tenant_id, month, tenant COLLATE "C", model COLLATE "C"
ON CONFLICT (tenant_id, month, tenant, model) DO UPDATE SET {_ADD}
"""  # noqa: S608
_DAYS = f"""
INSERT INTO budgets_usageday AS s (day, model, input_tokens, output_tokens, cost_usd, requests)
SELECT * FROM json_to_recordset(%s::json) AS given(day date, model text,
 input_tokens bigint, output_tokens bigint, cost_usd numeric, requests bigint)
ORDER BY model COLLATE "C" DESC, day
ON CONFLICT (model, day) DO UPDATE SET {_ADD}
"""  # noqa: S608
_TENANTS_NAMED = """
SELECT name, id, created_at FROM tenants_tenant WHERE name = ANY(%s)
UNION ALL SELECT name, tenant_id, created_at FROM budgets_formertenant WHERE name = ANY(%s)
ORDER BY 1, 3
"""


@transaction.atomic(durable=True)
def record_usage(records: Iterable[Usage], *, source: str, actor: Actor = SYSTEM) -> Recorded:
    """Take a batch into the ledger, and what it changes into the sums; all of it or nothing.

    Args:
        records: at most some thousands; of several with the same request id the last counts.
        source: a TokenUsage.Source.
        actor: who reports, for the audit trail, which tells of corrections.
    """
    given = {record.request_id: record for record in records}
    if not given:
        return Recorded()
    entries = _attributed(given)
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [source, _as_json(entries.values())])
        fresh = [entries[row[0]] for row in cursor.fetchall()]
        deltas = _Deltas()
        for entry in fresh:
            deltas.add(entry, 1)
        known = set(entries) - {entry.request_id for entry in fresh}
        corrections, overruled = _corrections(cursor, known, entries, given, source) if known else ([], 0)
        if corrections:
            cursor.execute(_CORRECT, [source, _as_json(new for _, new in corrections)])
            for old, new in corrections:
                deltas.add(old, -1)
                deltas.add(new, 1)
            _audit(corrections, source, actor)
        deltas.write(cursor)
    if fresh or corrections:
        enqueue_on_commit(CROSSINGS_TASK)
    return Recorded(
        new=len(fresh),
        corrected=len(corrections),
        same=len(known) - len(corrections) - overruled,
        overruled=overruled,
        unattributed=sum(entry.tenant_id is None for entry in fresh),
    )


def _corrections(
    cursor: Any, known: set[str], entries: Mapping[str, _Entry], given: Mapping[str, Usage], source: str
) -> tuple[list[tuple[_Entry, _Entry]], int]:
    """Pairs of what the ledger has and what it should have; and how many were overruled by what LiteLLM said."""
    cursor.execute(_KNOWN, [list(known)])
    found: list[tuple[_Entry, _Entry]] = []
    overruled = 0
    for *columns, old_source in cursor.fetchall():
        old = _Entry(*columns)
        new = _amended(old, entries[old.request_id], given[old.request_id])
        if new.numbers() == old.numbers():
            continue
        if old_source == TokenUsage.Source.LITELLM and source != TokenUsage.Source.LITELLM:
            overruled += 1
        else:
            found.append((old, new))
    return found, overruled


def _amended(old: _Entry, new: _Entry, given: Usage) -> _Entry:
    """The new report as an entry: who and when stay what they were, unless the report says otherwise."""
    same_tenant = old.tenant == new.tenant
    same_time = given.at is None or given.at == (old.reported_at or old.recorded_at)
    return _Entry(
        request_id=old.request_id,
        tenant_id=old.tenant_id if same_tenant else new.tenant_id,
        tenant=new.tenant,
        model=new.model,
        input_tokens=new.input_tokens,
        output_tokens=new.output_tokens,
        cost_usd=new.cost_usd,
        recorded_at=old.recorded_at if same_time else new.recorded_at,
        reported_at=old.reported_at if same_time else new.reported_at,
    )


def _attributed(given: Mapping[str, Usage]) -> dict[str, _Entry]:
    """The records as entries: whose they are, and when they count."""
    now = timezone.now()
    by_token = _tenants_by_token({record.token for record in given.values() if record.token})
    named = {record.tenant for record in given.values() if record.tenant and record.token not in by_token}
    by_name = _tenants_by_name(named)
    entries: dict[str, _Entry] = {}
    for record in given.values():
        is_ahead = record.at is not None and record.at > now + rules.CLOCK_SKEW
        at = now if record.at is None or is_ahead else record.at
        tenant_id: UUID | None
        if record.token in by_token:
            tenant_id, name = by_token[record.token]
        else:
            tenant_id, name = _holder(by_name.get(record.tenant, ()), at), record.tenant
        entries[record.request_id] = _Entry(
            request_id=record.request_id,
            tenant_id=tenant_id,
            tenant=name,
            model=record.model,
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
            cost_usd=record.cost_usd,
            recorded_at=at,
            reported_at=record.at if is_ahead else None,
        )
    return entries


def _tenants_by_token(tokens: set[str]) -> dict[str, tuple[UUID, str]]:
    if not tokens:
        return {}
    found = LitellmKey.objects.filter(token__in=tokens).order_by().values_list("token", "tenant_id", "tenant")
    return {token: (tenant_id, name) for token, tenant_id, name in found}


def _tenants_by_name(names: set[str]) -> dict[str, list[tuple[UUID, datetime.datetime]]]:
    """Tenants that have or had a name, the oldest first."""
    found: dict[str, list[tuple[UUID, datetime.datetime]]] = defaultdict(list)
    if names:
        with connection.cursor() as cursor:
            cursor.execute(_TENANTS_NAMED, [list(names)] * 2)
            for name, tenant_id, created_at in cursor.fetchall():
                found[name].append((tenant_id, created_at))
    return found


def _holder(tenants: Sequence[tuple[UUID, datetime.datetime]], at: datetime.datetime) -> UUID | None:
    """Who of the holders of a name had it at a time: the last who was there by then, else the first."""
    holder = tenants[0][0] if tenants else None
    for tenant_id, created_at in tenants:
        if created_at <= at + rules.CLOCK_SKEW:
            holder = tenant_id
    return holder


class _Deltas:
    """What a batch adds to the sums and takes from them."""

    def __init__(self) -> None:
        self._months: dict[tuple[Any, ...], list[Any]] = {}
        self._days: dict[tuple[Any, ...], list[Any]] = {}

    def add(self, entry: _Entry, sign: int) -> None:
        """Count an entry in (1) or out (-1)."""
        day = entry.recorded_at.astimezone(datetime.UTC).date()
        month = (day.replace(day=1), entry.tenant_id or NOBODY, entry.tenant)
        amounts = (sign * entry.input_tokens, sign * entry.output_tokens, sign * entry.cost_usd, sign)
        for sums, key in (
            (self._months, (*month, entry.model)),
            (self._months, (*month, "")),
            (self._days, (day, entry.model)),
            (self._days, (day, "")),
        ):
            row = sums.get(key)
            if row is None:
                sums[key] = list(amounts)
            else:
                for index, amount in enumerate(amounts):
                    row[index] += amount

    def write(self, cursor: Any) -> None:
        """Months first, then days; of the days, those of all models last, since everybody wants them."""
        for statement, names, sums in (
            (_MONTHS, ("month", "tenant_id", "tenant", "model"), self._months),
            (_DAYS, ("day", "model"), self._days),
        ):
            rows = [
                dict(zip(names, key, strict=True))
                | {"input_tokens": row[0], "output_tokens": row[1], "cost_usd": str(row[2]), "requests": row[3]}
                for key, row in sums.items()
                if any(row)
            ]
            if rows:
                cursor.execute(statement, [orjson.dumps(rows).decode()])


def _as_json(entries: Iterable[_Entry]) -> str:
    return orjson.dumps(list(entries), default=_plain).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError


def _audit(corrections: list[tuple[_Entry, _Entry]], source: str, actor: Actor) -> None:
    shown = corrections[:AUDITED_CORRECTIONS]
    many = len(corrections)
    audit.record(
        action="usage.corrected",
        resource=f"TokenUsage/{shown[0][0].request_id if many == 1 else source}",
        message=f"Corrected {many} record{'' if many == 1 else 's'} of usage, as reported by {source}.",
        before={old.request_id: old.shown() for old, _ in shown},
        after={new.request_id: new.shown() for _, new in shown},
        actor=actor,
    )
