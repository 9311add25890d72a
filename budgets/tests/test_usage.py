"""Usage counts once, in the right month, for the right tenant."""

import datetime
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from budgets import rules
from budgets.models import NOBODY, TokenUsage, UsageDay, UsageMonth
from budgets.services.keys import forget_tenant
from budgets.services.usage import Usage, record_usage
from conftest import ApiClient
from operations.models import AuditEntry
from tenants.models import Tenant
from tests.cluster.pods import make_tenant, pod_of

pytestmark = pytest.mark.django_db
Push = Callable[..., dict[str, Any]]
USAGE = "/api/internal/usage"
THIS_MONTH = rules.month_of(timezone.now())
LAST_MONTH = (THIS_MONTH - datetime.timedelta(days=1)).replace(day=1)
LATE = f"{LAST_MONTH:%Y-%m-%d}T10:00:00Z"


def usage(request: str, cost: str = "1", **fields: Any) -> Usage:
    values: dict[str, Any] = {
        "tenant": "anna",
        "model": "gpt-4o",
        "input_tokens": 10,
        "output_tokens": 5,
        "at": timezone.now(),
    }
    return Usage(request_id=request, cost_usd=Decimal(cost), **values | fields)


def spent(api: ApiClient, tenant: str = "anna") -> float:
    answer = api.get(f"/ai-budget/{tenant}/spend")
    assert answer.status_code == 200, answer.content
    return answer.json()["currentSpendUsd"]


def everybody(api: ApiClient) -> float:
    return api.get("/ai-budget/global").json()["currentSpendUsd"]


def in_month(month: datetime.date, tenant: str = "anna") -> float:
    return float(sum(row.cost_usd for row in UsageMonth.objects.filter(month=month, tenant=tenant, model="")))


def check_sums() -> None:
    """The sums are what the ledger adds up to."""
    months: dict[Any, Any] = {}
    days: dict[Any, Any] = {}
    for row in TokenUsage.objects.all():
        day = row.recorded_at.astimezone(datetime.UTC).date()
        month = (day.replace(day=1), row.tenant_id or NOBODY, row.tenant)
        keys = ((months, (*month, row.model)), (months, (*month, "")), (days, (day, row.model)), (days, (day, "")))
        for sums, key in keys:
            old = sums.get(key, (0, 0, Decimal(0), 0))
            new = (row.input_tokens, row.output_tokens, row.cost_usd, 1)
            sums[key] = tuple(left + right for left, right in zip(old, new, strict=True))
    amounts = ("input_tokens", "output_tokens", "cost_usd", "requests")
    kept_months = {
        (row.month, row.tenant_id, row.tenant, row.model): tuple(getattr(row, name) for name in amounts)
        for row in UsageMonth.objects.all()
        if row.requests
    }
    kept_days = {
        (row.day, row.model): tuple(getattr(row, name) for name in amounts)
        for row in UsageDay.objects.all()
        if row.requests
    }
    assert (kept_months, kept_days) == (months, days)


def test_a_pushed_record_counts_once_and_can_be_read(api: ApiClient, push: Push) -> None:
    anna = make_tenant("anna", monthly_budget_usd=10)
    first = push("r1", cost=2.5, recordedAt="2026-01-31T23:59:59.5Z")
    assert first == {"recorded": 1, "corrected": 0, "duplicates": 0, "overruled": 0, "unattributed": 0}
    assert push("r1", cost=2.5, recordedAt="2026-01-31T23:59:59.5Z")["duplicates"] == 1
    push("r2", cost=8.25)
    [newest, oldest] = api.get("/token-usage").json()
    assert newest["totalCostUsd"] == 8.25
    assert oldest == {
        "tenant": "anna",
        "tenantId": str(anna.pk),
        "model": "gpt-4o",
        "inputTokens": 100,
        "outputTokens": 50,
        "totalCostUsd": 2.5,
        "recordedAt": "2026-01-31T23:59:59.5Z",
        "requestId": "r1",
        "origin": "push",
        "correctedAt": None,
    }
    answer = api.get("/ai-budget/anna/spend").json()
    assert (answer["monthlyLimitUsd"], answer["currentSpendUsd"], answer["budgetAlertState"]) == (10, 8.25, "warning")
    assert (answer["stale"], answer["origin"]) == (False, "ledger")
    check_sums()


def test_corrections_and_late_records_change_the_month_they_belong_to(api: ApiClient, push: Push) -> None:
    make_tenant("anna")
    push("late", cost=4.0, recordedAt=LATE)
    push("now", cost=1.0)
    assert (in_month(LAST_MONTH), spent(api), everybody(api)) == (4.0, 1.0, 1.0)

    assert push("late", cost=3.0, recordedAt=LATE, inputTokens=7)["corrected"] == 1
    assert (in_month(LAST_MONTH), spent(api)) == (3.0, 1.0)
    # Without a time of its own a correction leaves the time alone; with another one it moves.
    assert push("late", cost=2.0)["corrected"] == 1
    assert in_month(LAST_MONTH) == 2.0
    assert push("late", cost=2.0, recordedAt=timezone.now().isoformat())["corrected"] == 1
    assert (in_month(LAST_MONTH), spent(api), everybody(api)) == (0.0, 3.0, 3.0)
    check_sums()

    corrections = AuditEntry.objects.filter(action="usage.corrected").order_by("id")
    assert corrections[0].before["late"]["totalCostUsd"] == 4.0
    assert corrections[0].after["late"] | {"recordedAt": ""} == {
        "tenant": "anna", "model": "gpt-4o", "inputTokens": 7, "outputTokens": 50, "totalCostUsd": 3.0, "recordedAt": ""
    }  # fmt: skip
    assert api.get("/token-usage?tenant=anna").json()[0]["correctedAt"]


def test_the_usage_of_somebody_unknown_is_kept_and_shown(api: ApiClient, push: Push) -> None:
    assert push("r1", tenant="ghost", cost=3.0)["unattributed"] == 1
    push("r2", tenant=None, cost=1.0)
    assert everybody(api) == 4.0
    assert [item["tenant"] for item in api.get("/token-usage?unattributed=true").json()] == ["", "ghost"]
    assert {item["tenantId"] for item in api.get("/token-usage?unattributed=true").json()} == {None}
    # Who gets the name later does not get the bill.
    make_tenant("ghost")
    assert push("r1", tenant="ghost", cost=3.0)["duplicates"] == 1
    assert spent(api, "ghost") == 0
    check_sums()


def test_a_new_tenant_of_an_old_name_starts_at_zero(api: ApiClient, push: Push) -> None:
    old = make_tenant("anna")
    Tenant.objects.filter(pk=old.pk).update(created_at=timezone.now() - datetime.timedelta(days=40))
    old.refresh_from_db()
    push("r1", cost=5.0)
    forget_tenant(old)
    Tenant.objects.all().delete()
    assert api.get("/ai-budget/anna/spend").status_code == 404
    new = make_tenant("anna")
    assert spent(api) == 0
    # What the old one used is still reported now and then.
    push("r2", cost=2.0, recordedAt=(timezone.now() - datetime.timedelta(minutes=20)).isoformat())
    assert spent(api) == 0
    push("r3", cost=1.0)
    assert spent(api) == 1.0
    items = api.get("/token-usage?tenant=anna").json()
    assert [item["tenantId"] for item in items] == [str(new.pk), str(old.pk), str(old.pk)]
    assert [item["requestId"] for item in api.get(f"/token-usage?tenantId={new.pk}").json()] == ["r3"]
    check_sums()


def test_a_clock_that_is_ahead_counts_as_now_and_stays_one_record(api: ApiClient, push: Push) -> None:
    make_tenant("anna")
    future = (timezone.now() + datetime.timedelta(days=400)).isoformat()
    push("r1", cost=1.0, recordedAt=future)
    assert spent(api) == 1.0
    assert push("r1", cost=1.0, recordedAt=future)["duplicates"] == 1
    assert push("r1", cost=2.0, recordedAt=future)["corrected"] == 1
    assert spent(api) == 2.0
    check_sums()


def test_what_litellm_says_goes_before_what_is_pushed(push: Push) -> None:
    make_tenant("anna")
    push("r1", cost=1.0)
    assert record_usage([usage("r1", "7")], source="litellm").corrected == 1
    assert push("r1", cost=2.0)["overruled"] == 1
    assert record_usage([usage("r1", "8")], source="litellm").corrected == 1
    [row] = TokenUsage.objects.all()
    assert (float(row.cost_usd), row.source) == (8, "litellm")
    check_sums()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "negative tokens": ({"inputTokens": -1}, "inputTokens"),
    "too many tokens": ({"outputTokens": 10**13}, "outputTokens"),
    "negative cost": ({"totalCostUsd": -0.01}, "totalCostUsd"),
    "cost as text": ({"totalCostUsd": "1"}, "totalCostUsd"),
    "a cost beyond sense": ({"totalCostUsd": 1e300}, "totalCostUsd"),
    "no cost": ({"totalCostUsd": None}, "totalCostUsd"),
    "blank request": ({"requestId": " "}, "requestId"),
    "long request": ({"requestId": "r" * 201}, "requestId"),
    "long model": ({"model": "m" * 201}, "model"),
    "year one": ({"recordedAt": "0001-01-01T00:00:00Z"}, "recordedAt"),
    "no time": ({"recordedAt": "yesterday"}, "recordedAt"),
    "typo": ({"tennant": "anna"}, "tennant"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_are_refused_by_name_and_nothing_is_kept(pusher: ApiClient, case: str) -> None:
    changes, field = BAD[case]
    record: dict[str, Any] = {
        "requestId": "r",
        "tenant": "anna",
        "model": "m",
        "inputTokens": 1,
        "outputTokens": 1,
        "totalCostUsd": 1,
    }
    answer = pusher.post(USAGE, record | changes)
    assert (answer.status_code, set(answer.json()["fields"])) == (400, {field}), answer.content
    answer = pusher.post(USAGE, {"records": [record, record | {"requestId": "r2"} | changes]})
    assert (answer.status_code, set(answer.json()["fields"])) == (400, {f"records.1.{field}"}), answer.content
    assert not TokenUsage.objects.exists()


def test_only_named_workloads_push(pusher: ApiClient, api: ApiClient, anonymous_api: ApiClient) -> None:
    make_tenant("anna")
    pod = pod_of(Tenant.objects.get())
    assert [client.post(USAGE, {}).status_code for client in (pod, api, anonymous_api)] == [403, 401, 401]
    for body in ("{", '{"totalCostUsd": NaN}', '{"totalCostUsd": 1e400}', "[]", "7", '{"records": []}'):
        assert pusher.post(USAGE, body).status_code == 400, body


def test_the_ledger_is_read_by_pages_and_filters(api: ApiClient) -> None:
    make_tenant("anna")
    at = timezone.now().replace(microsecond=0) - datetime.timedelta(hours=2)
    record_usage(
        [
            usage(f"r{n:03}", at=at + datetime.timedelta(seconds=n // 10), model=("a", "b")[n % 2], tenant="anna")
            for n in range(25)
        ],
        source="push",
    )
    seen: list[str] = []
    path = "/token-usage?limit=7"
    while path:
        answer = api.get(path)
        seen += [item["requestId"] for item in answer.json()]
        path = answer.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert sorted(seen) == [f"r{n:03}" for n in range(25)]
    assert len(api.get("/token-usage?model=a").json()) == 13
    since = (at + datetime.timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    until = (at + datetime.timedelta(seconds=2)).isoformat().replace("+00:00", "Z")
    assert len(api.get(f"/token-usage?since={since}&until={until}").json()) == 10
    for query in ("limit=0", "limit=1001", "since=x", "tenantId=7", f"since={until}&until={since}", "unattributed=x"):
        assert api.get(f"/token-usage?{query}").status_code == 400, query
    assert api.get("/token-usage?cursor=abc").json()["code"] == "INVALID_CURSOR"


@pytest.mark.django_db(transaction=True)
def test_reports_that_meet_neither_deadlock_nor_count_twice(api: ApiClient) -> None:
    make_tenant("anna")
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def report(which: int) -> None:
        try:
            barrier.wait()
            for turn in range(5):
                order = range(30) if (which + turn) % 2 else range(29, -1, -1)
                # The same requests in either order, corrected by everybody again and again.
                record_usage([usage(f"r{n}", str(1 + (which + turn) % 3)) for n in order], source="push")
        except BaseException as exc:  # noqa: BLE001  (told below)
            failures.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=report, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert TokenUsage.objects.count() == 30
    check_sums()


class AnyOrderAddsUp(TestCase):
    """Whatever is reported in whatever order, the sums are those of the ledger."""

    @hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.lists(
                st.tuples(
                    st.sampled_from(["r1", "r2", "r3", "r4"]),
                    st.sampled_from(["anna", "ghost", ""]),
                    st.sampled_from(["0", "0.0000000001", "2.5", "1000000"]),
                    st.sampled_from([0, 1, 40, -3]),
                ),
                max_size=4,
            ),
            max_size=5,
        )
    )
    def test_sums(self, batches: list[list[tuple[str, str, str, int]]]) -> None:
        Tenant.objects.get_or_create(name="anna", defaults={"display_name": "Anna", "email": "anna@example.com"})
        for number, batch in enumerate(batches):
            records = [
                usage(request, cost, tenant=tenant, at=timezone.now() - datetime.timedelta(days=days))
                for request, tenant, cost, days in batch
            ]
            record_usage(records, source=("push", "litellm")[number % 2])
        check_sums()
