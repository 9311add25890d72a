"""Budgets, their alert states, and what is raised when they are reached."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from budgets import rules
from budgets.models import BudgetCrossing
from budgets.services.keys import forget_tenant
from budgets.services.usage import Usage, record_usage
from budgets.tasks import raise_crossings
from conftest import ApiClient
from operations.models import AuditEntry, WebhookEvent
from tenants.models import Tenant
from tests.cluster.pods import make_tenant

pytestmark = pytest.mark.django_db
OnCommit = Callable[..., Any]
ACCOUNTS = "/ai-budget/accounts"


def use(tenant: str, cost: str, request: str = "") -> None:
    record_usage(
        [Usage(request or f"{tenant}-{cost}", tenant, "gpt-4o", 1, 1, Decimal(cost), timezone.now())], source="push"
    )


def test_the_global_budget_is_set_and_read(api: ApiClient) -> None:
    nothing = {"monthlyLimitUsd": 0, "currentSpendUsd": 0, "budgetAlertState": "ok"}
    assert api.get("/ai-budget/global").json() == nothing
    assert api.put("/ai-budget/global", {"monthlyLimitUsd": 12.5}).json() == nothing | {"monthlyLimitUsd": 12.5}
    use("nobody", "10")
    assert api.get("/ai-budget/global").json() == {
        "monthlyLimitUsd": 12.5, "currentSpendUsd": 10, "budgetAlertState": "warning"
    }  # fmt: skip
    api.put("/ai-budget/global", {"monthlyLimitUsd": 12.5})
    assert [entry.action for entry in AuditEntry.objects.filter(action__startswith="budget.")] == ["budget.created"]
    api.put("/ai-budget/global", {"monthlyLimitUsd": 0})
    assert api.get("/ai-budget/global").json()["budgetAlertState"] == "ok"
    entry = AuditEntry.objects.get(action="budget.updated")
    assert (entry.before, entry.after) == ({"monthlyLimitUsd": 12.5}, {"monthlyLimitUsd": 0})


@pytest.mark.parametrize(
    ("spend", "limit", "state"),
    [
        ("7.99", "10", "ok"), ("8", "10", "warning"), ("9.9999999999", "10", "warning"), ("10", "10", "exceeded"),
        ("0", "0", "ok"), ("5", "0", "ok"), ("0", "0.000001", "ok"), ("0.0000008", "0.000001", "warning"),
    ],
)  # fmt: skip
def test_where_a_state_begins(spend: str, limit: str, state: str) -> None:
    assert rules.alert_state(Decimal(spend), Decimal(limit)) == state


@pytest.mark.parametrize("body", [
    {"monthlyLimitUsd": -1}, {"monthlyLimitUsd": "5"}, {"monthlyLimitUsd": None}, {"monthlyLimitUsd": True}, {},
    {"monthlyLimitUsd": 1e18}, {"monthlyLimitUsd": 0.1234567}, {"monthlyLimitUsd": 1, "limit": 2},
    '{"monthlyLimitUsd": NaN}', '{"monthlyLimitUsd": 1e400}', '{"monthlyLimitUsd": Infinity}', "[]", "null",
])  # fmt: skip
def test_what_is_no_budget_is_refused(api: ApiClient, body: Any) -> None:
    for path in ("/ai-budget/global", f"{ACCOUNTS}/anna@example.com"):
        answer = api.put(path, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert not AuditEntry.objects.filter(action__startswith="budget.").exists()


def test_an_account_has_spent_what_its_tenants_have(api: ApiClient) -> None:
    for name, email in (("anna", "Anna@example.com"), ("anna2", "anna@EXAMPLE.com"), ("bert", "bert@example.com")):
        tenant = make_tenant(name)
        Tenant.objects.filter(pk=tenant.pk).update(email=email)
        use(name, "4")
    answer = api.put(f"{ACCOUNTS}/aNNa@example.com", {"monthlyLimitUsd": 10})
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["userId"], shown["currentSpendUsd"], shown["budgetAlertState"]) == ("aNNa@example.com", 8, "warning")
    api.put(f"{ACCOUNTS}/nobody", {"monthlyLimitUsd": 1})
    assert [item["userId"] for item in api.get(ACCOUNTS).json()] == ["nobody", "aNNa@example.com"]
    assert [item["userId"] for item in api.get(f"{ACCOUNTS}?state=warning").json()] == ["aNNa@example.com"]
    assert [item["userId"] for item in api.get(f"{ACCOUNTS}?q=NOB").json()] == ["nobody"]
    first = api.get(f"{ACCOUNTS}?limit=1")
    assert [item["userId"] for item in first.json()] == ["nobody"]
    following = first["Link"].partition(">")[0].lstrip("<")
    assert [item["userId"] for item in api.get(following).json()] == ["aNNa@example.com"]

    # One account, whatever the case; a tenant that is gone has spent what it has.
    gone = Tenant.objects.get(name="anna2")
    forget_tenant(gone)
    Tenant.objects.filter(pk=gone.pk).delete()
    shown = api.put(f"{ACCOUNTS}/anna@example.com", {"monthlyLimitUsd": 8}).json()
    assert (shown["currentSpendUsd"], shown["budgetAlertState"]) == (8, "exceeded")
    assert len(api.get(ACCOUNTS).json()) == 2

    answer = api.delete(f"{ACCOUNTS}/ANNA@example.com")
    assert (answer.status_code, answer.json()) == (200, {"userId": "ANNA@example.com", "status": "deleted"})
    answer = api.delete(f"{ACCOUNTS}/anna@example.com")
    assert (answer.status_code, answer.json()["code"]) == (404, "ACCOUNT_BUDGET_NOT_FOUND")


@pytest.mark.parametrize("user_id", ["%20", "a" * 255, "a%0Ab"])
def test_what_is_no_user_id_is_refused(api: ApiClient, user_id: str) -> None:
    assert api.put(f"{ACCOUNTS}/{user_id}", {"monthlyLimitUsd": 1}).status_code == 400


def test_each_threshold_is_raised_once_a_month(
    api: ApiClient, django_capture_on_commit_callbacks: OnCommit, settings: Any
) -> None:
    make_tenant("anna", monthly_budget_usd=10)
    api.put("/ai-budget/global", {"monthlyLimitUsd": 100})
    api.put(f"{ACCOUNTS}/anna@example.com", {"monthlyLimitUsd": 20})

    def raised() -> set[tuple[str, int]]:
        found = BudgetCrossing.objects.all()
        return {(crossing.scope, crossing.threshold_percent) for crossing in found}

    use("anna", "4.99")
    raise_crossings()
    assert raised() == set()
    with django_capture_on_commit_callbacks(execute=True):
        use("anna", "0.01")
    assert raised() == {("tenant", 50)}
    use("anna", "5")
    for _ in range(2):
        raise_crossings()
    assert raised() == {("tenant", 50), ("tenant", 80), ("tenant", 100), ("account", 50)}
    use("nobody", "90")
    raise_crossings()
    assert {row for row in raised() if row[0] == "global"} == {("global", 50), ("global", 80), ("global", 100)}

    entries = AuditEntry.objects.filter(action="budget.threshold_crossed")
    events = WebhookEvent.objects.filter(event="budget.threshold_crossed")
    assert (entries.count(), events.count()) == (7, 7)
    [entry] = entries.filter(tenant="anna", message__contains="80 %")
    month = f"{timezone.now():%B %Y}"
    assert entry.message == f"The spend of tenant anna in {month} has reached 80 % of its budget: $10.00 of $10.00."
    [event] = [each.payload for each in events if each.payload["scope"] == "account"]
    assert event | {"at": ""} == {
        "month": f"{timezone.now():%Y-%m}", "scope": "account", "key": "anna@example.com", "name": "anna@example.com",
        "thresholdPercent": 50, "currentSpendUsd": 10.0, "monthlyLimitUsd": 20.0, "budgetAlertState": "ok", "at": "",
    }  # fmt: skip

    # A new month begins anew.
    last = (rules.month_of(timezone.now()) - datetime.timedelta(days=1)).replace(day=1)
    BudgetCrossing.objects.update(month=last)
    raise_crossings()
    assert entries.count() == 14


def test_who_may_do_what(
    api: ApiClient, viewer_api: ApiClient, operator_api: ApiClient, anonymous_api: ApiClient
) -> None:
    for path in ("/ai-budget/global", ACCOUNTS, "/token-usage"):
        assert [client.get(path).status_code for client in (viewer_api, operator_api)] == [200, 200]
        assert anonymous_api.get(path).status_code == 401
    assert viewer_api.put("/ai-budget/global", {"monthlyLimitUsd": 1}).status_code == 403
    assert operator_api.put("/ai-budget/global", {"monthlyLimitUsd": 1}).status_code == 200
    for client, status in ((viewer_api, 403), (operator_api, 403), (api, 200)):
        assert client.get("/providers/keys").status_code == status
    assert operator_api.put("/providers/keys/openai", {"apiKey": "sk-12345678"}).status_code == 403
