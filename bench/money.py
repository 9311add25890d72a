"""Spend and budgets beside a ledger of ten million records, and how fast records are taken in."""

import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import connection
from django.utils import timezone

from bench.client import Samples, timed
from bench.figures import Wanted
from budgets.models import TokenUsage
from budgets.services.usage import Usage, record_usage

if TYPE_CHECKING:
    from bench.scenarios import Bench

API = "/api/v1"
ACCOUNTS = 100
BATCH = 1_000
# Two hundred days of calls by everybody, with five models.
_LEDGER = """
    INSERT INTO budgets_tokenusage (request_id, source, tenant_id, tenant, model, input_tokens, output_tokens, cost_usd,
        recorded_at, received_at)
    SELECT 'seed-' || number, 'litellm', t.id, t.name, (ARRAY['a', 'b', 'c', 'd', 'e'])[1 + number / 10000 %% 5],
        number %% 9000, number %% 1500, (number %% 700) * 0.0001, now() - number * interval '200 days' / %s, now()
    FROM generate_series(%s, %s) AS number
        JOIN (SELECT id, name, row_number() OVER (ORDER BY name) - 1 AS place FROM tenants_tenant) t
        ON t.place = number %% (SELECT count(*) FROM tenants_tenant)
"""
_MONTHS = """
    INSERT INTO budgets_usagemonth (month, tenant_id, tenant, model, input_tokens, output_tokens, cost_usd, requests)
    SELECT date_trunc('month', recorded_at AT TIME ZONE 'UTC')::date, tenant_id, tenant, coalesce(model, ''),
        sum(input_tokens), sum(output_tokens), sum(cost_usd), count(*) FROM budgets_tokenusage
    GROUP BY GROUPING SETS ((1, tenant_id, tenant, model), (1, tenant_id, tenant))
"""
_DAYS = """
    INSERT INTO budgets_usageday (day, model, input_tokens, output_tokens, cost_usd, requests)
    SELECT (recorded_at AT TIME ZONE 'UTC')::date, coalesce(model, ''), sum(input_tokens), sum(output_tokens),
        sum(cost_usd), count(*) FROM budgets_tokenusage
    GROUP BY GROUPING SETS ((1, model), (1))
"""
_BUDGETS = """
    INSERT INTO budgets_budget (scope, key, user_id, monthly_limit_usd)
    SELECT 'account', lower(email), email, 50 FROM tenants_tenant ORDER BY name LIMIT %s
"""


def measure(bench: "Bench") -> None:
    """What people read of money, and what a worker takes in."""
    if not bench.wants("spend", "budget", "usage"):
        return
    size = bench.plan.usage
    began = time.monotonic()
    _seed(size)
    bench.say(f"-- {size:,} records of usage seeded in {time.monotonic() - began:.1f} s")
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM tenants_tenant ORDER BY name LIMIT 1")
        name = cursor.fetchone()[0]
    wanted = Wanted(milliseconds=1.5)
    for what, path in (
        ("global budget", "/ai-budget/global"),
        ("spend of one tenant", f"/ai-budget/{name}/spend"),
    ):
        bench.read(f"{what} at {size:,} records", API + path, headers=bench.authorization, wanted=wanted)
    bench.read(f"{ACCOUNTS} account budgets", f"{API}/ai-budget/accounts", headers=bench.authorization)
    bench.read(f"usage page of 100 of {size:,}", f"{API}/token-usage", headers=bench.authorization)
    bench.read("usage page of one tenant", f"{API}/token-usage?tenant={name}", headers=bench.authorization)
    bench.measure("usage: batches of 1,000 taken in", 1, lambda: _take_in(name), wanted=Wanted(rate=5_000))


def _seed(size: int) -> None:
    """Fill the ledger and its sums; indexes that nothing needs meanwhile are made afterwards, which takes less."""
    step = 500_000
    with connection.schema_editor() as editor:
        for index in TokenUsage._meta.indexes:
            editor.remove_index(TokenUsage, index)
    with connection.cursor() as cursor:
        for start in range(0, size, step):
            cursor.execute(_LEDGER, [size, start, min(start + step, size) - 1])
    with connection.schema_editor() as editor:
        for index in TokenUsage._meta.indexes:
            editor.add_index(TokenUsage, index)
    with connection.cursor() as cursor:
        for statement in (_MONTHS, _DAYS):
            cursor.execute(statement)
        cursor.execute(_BUDGETS, [ACCOUNTS])
        for table in ("tokenusage", "usagemonth", "usageday", "budget"):
            cursor.execute(f"VACUUM ANALYZE budgets_{table}")


def _take_in(name: str, batches: int = 20) -> Samples:
    """One worker's import, LiteLLM aside; a sample for each record."""
    samples = Samples()

    def record() -> None:
        record_usage(
            [
                Usage(str(uuid.uuid4()), name, "abcde"[n % 5], n, n, Decimal("0.0125"), timezone.now())
                for n in range(BATCH)
            ],
            source="litellm",
        )

    taken = timed(record, seconds=60, most=batches)
    for seconds in taken.seconds:
        for _ in range(BATCH):
            samples.add(seconds / BATCH, 200, 0)
    samples.wall = taken.wall
    return samples
