"""Virtual keys at LiteLLM: issued, following the budget, rotated with a grace, revoked in the right order."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from budgets.models import LitellmKey
from budgets.services import key_check, key_sweep, keys, usage
from budgets.tasks import sweep_keys
from budgets.tests.litellm_server import MASTER_KEY, FakeLitellm, hashed
from cluster import client as cluster_module
from cluster.secrets import apply_secret, delete_secret, secret_data, secret_exists
from conftest import ApiClient
from operations.models import AuditEntry
from tenants.models import Tenant
from tests.cluster.pods import make_namespace, make_tenant

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.cluster]
SECRET = "openclaw-anna-litellm-key"
KEY, SPEND, REVOKE = "/ai-budget/anna/litellm-key", "/ai-budget/anna/spend", "/ai-budget/anna/litellm-key/revoke"
Issued = Callable[..., Tenant]


@pytest.fixture(autouse=True)
def no_secret(cluster_namespace: str) -> None:
    delete_secret(name=SECRET)


@pytest.fixture
def anna(litellm: FakeLitellm, cluster_namespace: str) -> Tenant:
    """A tenant with a key."""
    tenant = make_tenant("anna", generation=1, observed_generation=1, monthly_budget_usd=10)
    key_sweep.sweep_keys()
    return tenant


def value() -> str:
    """The key that the tenant's pod has."""
    found = secret_data(name=SECRET)
    assert found is not None
    return found["api-key"]


def key_of(api: ApiClient) -> dict[str, Any]:
    answer = api.get(KEY)
    assert answer.status_code == 200, answer.content
    return answer.json()


def retry() -> None:
    """As if all backoffs were over."""
    LitellmKey.objects.update(not_before=timezone.now() - datetime.timedelta(seconds=1))
    key_sweep.sweep_keys()


def everything(api: ApiClient) -> str:
    """All that anybody could read of it."""
    answers = [api.get(path).content.decode() for path in (KEY, SPEND, "/audit", "/token-usage")]
    rows = [str(row) for row in (*LitellmKey.objects.values(), *AuditEntry.objects.values())]
    return "\n".join([*answers, *rows])


def test_a_tenant_that_the_cluster_has_confirmed_gets_a_key(api: ApiClient, litellm: FakeLitellm) -> None:
    make_tenant("bert", generation=1, observed_generation=0)
    tenant = make_tenant("anna", generation=1, observed_generation=1, monthly_budget_usd="12.5")
    assert api.get(KEY).json()["code"] == "LITELLM_KEY_NOT_FOUND"
    key_sweep.sweep_keys()
    [row] = litellm.keys.values()
    assert (row["key_alias"], row["max_budget"], row["budget_duration"]) == ("opencrane-anna", 12.5, "1mo")
    assert row["metadata"] == {"opencrane_tenant_id": str(tenant.pk), "opencrane_tenant": "anna"}
    assert litellm.works(value())
    shown = key_of(api)
    assert {name: shown[name] for name in ("tenant", "keyAlias", "secretName", "monthlyBudgetUsd", "state")} == {
        "tenant": "anna", "keyAlias": "opencrane-anna", "secretName": SECRET, "monthlyBudgetUsd": 12.5,
        "state": "active",
    }  # fmt: skip
    assert shown["issuedAt"]
    assert shown["revokedAt"] is None
    key_sweep.sweep_keys()
    assert len(litellm.keys) == 1
    assert value() not in everything(api)
    assert MASTER_KEY not in everything(api)


def test_the_ceiling_follows_the_budget(anna: Tenant, litellm: FakeLitellm, api: ApiClient) -> None:
    for budget, enforced in ((25, 25.0), (0, None), (None, None), ("0.5", 0.5)):
        Tenant.objects.filter(pk=anna.pk).update(monthly_budget_usd=budget)
        key_sweep.sweep_keys()
        [row] = litellm.keys.values()
        assert row["max_budget"] == enforced
        assert key_of(api)["monthlyBudgetUsd"] == enforced
    assert len(AuditEntry.objects.filter(action="litellm_key.budget_changed")) == 3


def test_a_new_ceiling_that_litellm_does_not_take_is_told_and_tried_again(
    anna: Tenant, litellm: FakeLitellm, api: ApiClient
) -> None:
    litellm.broken["/key/update"] = 500
    Tenant.objects.filter(pk=anna.pk).update(monthly_budget_usd=25)
    retry()
    shown = key_of(api)
    assert ("500" in shown["error"], shown["monthlyBudgetUsd"], bool(shown["failingSince"])) == (True, 10, True)
    litellm.broken.clear()
    retry()
    shown = key_of(api)
    assert (shown["error"], shown["monthlyBudgetUsd"], shown["failingSince"]) == (None, 25, None)


@pytest.mark.parametrize("is_enterprise", [True, False])
def test_a_rotated_key_works_on_for_its_grace(
    anna: Tenant, litellm: FakeLitellm, api: ApiClient, is_enterprise: bool
) -> None:
    litellm.is_enterprise = is_enterprise
    old = value()
    litellm.keys[hashed(old)]["spend"] = 4.0
    answer = api.post(f"{KEY}/rotate", {"graceSeconds": 600})
    assert (answer.status_code, answer.json()["state"]) == (202, "active")
    new = value()
    assert new != old
    assert (litellm.works(old), litellm.works(new)) == (True, True)
    # The new key is no new budget.
    row = litellm.keys[hashed(new)]
    assert (row["spend"], row["max_budget"], row["key_alias"]) == (4.0, 10, "opencrane-anna")
    key_sweep.sweep_keys()
    assert litellm.works(old)
    LitellmKey.objects.filter(state="retiring").update(grace_until=timezone.now())
    litellm.graced.clear()  # LiteLLM ends the grace of a regenerated key by itself.
    retry()
    assert (litellm.works(old), litellm.works(new)) == (False, True)
    assert value() == new
    assert [key.state for key in LitellmKey.objects.order_by("created_at")] == ["revoked", "active"]
    assert not any(secret in everything(api) for secret in (old, new))


@pytest.mark.parametrize("body", [{"graceSeconds": -1}, {"graceSeconds": 604_801}, {"graceSeconds": "1"}, {"grace": 1}])
def test_a_grace_that_is_none_is_refused(anna: Tenant, api: ApiClient, body: Any) -> None:
    assert api.post(f"{KEY}/rotate", body).status_code == 400


def test_revoking_kills_the_key_first_then_the_secret(anna: Tenant, litellm: FakeLitellm, api: ApiClient) -> None:
    old = value()
    answer = api.post(REVOKE)
    assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
    assert answer.json()["revokedAt"]
    assert (litellm.works(old), secret_exists(name=SECRET)) == (False, False)
    # It stays revoked, and revoking again is fine, until somebody asks for a new one.
    retry()
    assert not litellm.keys
    assert api.post(REVOKE).status_code == 200
    assert api.post(f"{KEY}/rotate").status_code == 202
    assert litellm.works(value())
    assert key_of(api)["state"] == "active"
    actions = set(AuditEntry.objects.filter(tenant="anna").values_list("action", flat=True))
    assert {"litellm_key.issued", "litellm_key.revoke_requested", "litellm_key.revoked"} <= actions


def test_revoking_also_ends_a_grace(anna: Tenant, litellm: FakeLitellm, api: ApiClient) -> None:
    old = value()
    api.post(f"{KEY}/rotate", {"graceSeconds": 600})
    new = value()
    assert api.post(REVOKE).status_code == 200
    assert (litellm.works(old), litellm.works(new), secret_exists(name=SECRET)) == (False, False, False)


@pytest.mark.parametrize("trouble", [500, 429, 401, b"{}", b"{", b'{"deleted_keys": ["all of them"]}'])
def test_a_revoke_that_litellm_does_not_do_says_what_is_alive(
    anna: Tenant, litellm: FakeLitellm, api: ApiClient, trouble: Any
) -> None:
    old = value()
    litellm.broken["/key/delete"] = trouble
    answer = api.post(REVOKE)
    assert (answer.status_code, answer.json()["code"]) == (502, "UPSTREAM_ERROR")
    detail = answer.json()["detail"]
    assert "opencrane-anna is still alive in LiteLLM" in detail
    assert f"{SECRET} still exists" in detail
    # The Secret goes after the key, never before it.
    assert (litellm.works(old), value()) == (True, old)
    assert (key_of(api)["state"], bool(key_of(api)["error"])) == ("revoking", True)
    assert api.post(f"{KEY}/rotate").json()["code"] == "CONFLICT"
    litellm.broken.clear()
    retry()
    assert (litellm.works(old), secret_exists(name=SECRET)) == (False, False)
    assert key_of(api)["state"] == "revoked"


def test_a_revoke_that_the_cluster_does_not_do_is_finished_by_the_sweep(
    anna: Tenant, litellm: FakeLitellm, api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = value()
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    cluster_module.reset_cluster_client()
    try:
        answer = api.post(REVOKE)
    finally:
        monkeypatch.undo()
        cluster_module.reset_cluster_client()
    assert answer.status_code == 502
    assert "still alive" not in answer.json()["detail"]
    assert f"{SECRET} still exists" in answer.json()["detail"]
    assert (litellm.works(old), value()) == (False, old)
    retry()
    assert not secret_exists(name=SECRET)
    assert key_of(api)["state"] == "revoked"


def test_a_deleted_tenants_key_dies_even_if_litellm_was_away(anna: Tenant, litellm: FakeLitellm) -> None:
    old = value()
    litellm.broken["/key/delete"] = 500
    keys.forget_tenant(anna)
    Tenant.objects.filter(pk=anna.pk).delete()
    retry()
    assert litellm.works(old)
    # A new tenant of the name does not get it, and its own Secret is not taken away with the old key's.
    heir = make_tenant("anna", generation=1, observed_generation=1)
    litellm.broken.clear()
    LitellmKey.objects.update(not_before=timezone.now() + datetime.timedelta(minutes=5))
    key_sweep.sweep_keys()
    new = value()
    assert (litellm.works(old), litellm.works(new), new != old) == (False, True, True)
    retry()
    assert litellm.works(value())
    assert {(key.tenant_id == heir.pk, key.state) for key in LitellmKey.objects.all()} == {
        (False, "revoked"), (True, "active")
    }  # fmt: skip


def test_a_tenant_that_went_without_telling_leaves_no_key(anna: Tenant, litellm: FakeLitellm) -> None:
    Tenant.objects.filter(pk=anna.pk).delete()
    key_sweep.sweep_keys()
    assert not litellm.keys
    assert not secret_exists(name=SECRET)


def test_a_try_that_was_cut_short_leaves_no_second_key(
    litellm: FakeLitellm, api: ApiClient, cluster_namespace: str
) -> None:
    tenant = make_tenant("anna", generation=1, observed_generation=1)
    # Killed after LiteLLM had made the key, before the Secret had it.
    lost = litellm.generate({"key_alias": "opencrane-anna", "metadata": {"opencrane_tenant_id": str(tenant.pk)}})["key"]
    key_sweep.sweep_keys()
    assert (litellm.works(lost), litellm.works(value()), len(litellm.keys)) == (False, True, 1)
    # Killed after the Secret had it, before the row said so.
    before = value()
    LitellmKey.objects.update(state="wanted", token="", issued_at=None)
    retry()
    assert (value(), key_of(api)["state"]) == (before, "active")


def test_a_key_of_somebody_else_is_left_alone(litellm: FakeLitellm, api: ApiClient, cluster_namespace: str) -> None:
    theirs = litellm.generate({"key_alias": "opencrane-anna", "metadata": {}})["key"]
    make_tenant("anna", generation=1, observed_generation=1)
    key_sweep.sweep_keys()
    assert litellm.works(theirs)
    assert "OpenCrane did not make" in key_of(api)["error"]


def test_what_disagrees_is_shown_as_drift_and_mended_on_demand(
    anna: Tenant, litellm: FakeLitellm, api: ApiClient
) -> None:
    def check() -> str | None:
        LitellmKey.objects.update(checked_at=None)
        key_check.check_keys()
        drift: str | None = key_of(api)["drift"]
        return drift

    assert check() is None
    [row] = litellm.keys.values()
    row["max_budget"] = 99.0
    assert check() == "LiteLLM enforces $99.00, meant is $10.00."
    row |= {"blocked": True, "budget_duration": None}
    assert "is blocked" in str(check())
    assert "for ever" in str(check())
    assert row["max_budget"] == 99.0
    row["blocked"] = None
    assert api.post(f"{KEY}/sync").status_code == 202
    assert (row["max_budget"], row["budget_duration"], key_of(api)["drift"]) == (10, "1mo", None)

    apply_secret(name=SECRET, data={"api-key": "sk-somebody-wrote-this"})
    assert "does not hold the key" in str(check())
    api.post(f"{KEY}/sync")
    assert (litellm.works(value()), check()) == (True, None)
    litellm.dead |= litellm.keys
    litellm.keys.clear()
    assert check() == "LiteLLM has no such key any more."
    api.post(f"{KEY}/sync")
    assert (litellm.works(value()), check()) == (True, None)


def test_the_secret_moves_with_the_tenant(anna: Tenant, litellm: FakeLitellm) -> None:
    customer = f"money-{cluster_module.cluster_client().namespace}"
    make_namespace(f"opencrane-{customer}")
    before = value()
    Tenant.objects.filter(pk=anna.pk).update(cluster_tenant_ref=customer)
    key_sweep.sweep_keys()
    assert secret_data(name=SECRET, namespace=f"opencrane-{customer}") == {"api-key": before}
    assert not secret_exists(name=SECRET)


def test_spend_is_litellms_word_while_it_answers(anna: Tenant, litellm: FakeLitellm, api: ApiClient) -> None:
    litellm.keys[hashed(value())]["spend"] = 8.5
    shown = api.get(SPEND).json()
    assert (shown["currentSpendUsd"], shown["monthlyLimitUsd"], shown["budgetAlertState"]) == (8.5, 10, "warning")
    assert (shown["stale"], shown["origin"]) == (False, "litellm")
    for trouble in (500, 429, 401, b"null", b'{"info": {"spend": "much"}}', b'{"info": {"spend": -1}}', 404):
        litellm.broken["/key/info"] = trouble
        shown = api.get(SPEND).json()
        assert (shown["currentSpendUsd"], shown["stale"]) == (8.5, True), trouble


def test_spend_of_which_nothing_is_known_is_a_502(
    anna: Tenant, litellm: FakeLitellm, api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgets.services.spending.ANSWER_SECONDS", 0.2)
    litellm.broken["/key/info"] = 1.0  # a second late
    answer = api.get(SPEND)
    assert (answer.status_code, answer.json()["code"]) == (502, "UPSTREAM_ERROR")
    assert "in time" in answer.json()["error"]
    record = usage.Usage("r1", "anna", "m", 1, 1, Decimal("1.25"), timezone.now())
    usage.record_usage([record], source="push")
    shown = api.get(SPEND).json()
    assert (shown["currentSpendUsd"], shown["stale"], shown["origin"]) == (1.25, True, "ledger")
    # What was the last word in another month is none about this one.
    LitellmKey.objects.update(known_spend_usd=77, known_spend_at=timezone.now() - datetime.timedelta(days=40))
    assert api.get(SPEND).json()["currentSpendUsd"] == 1.25


def test_without_litellm(api: ApiClient, settings: Any, cluster_namespace: str) -> None:
    settings.LITELLM_ENDPOINT = ""
    make_tenant("anna", generation=1, observed_generation=1, monthly_budget_usd=3)
    key_sweep.sweep_keys()
    assert not LitellmKey.objects.exists()
    shown = api.get(SPEND).json()
    assert (shown["currentSpendUsd"], shown["monthlyLimitUsd"], shown["stale"]) == (0, 3, False)
    for path in (REVOKE, f"{KEY}/rotate", f"{KEY}/sync"):
        assert (api.post(path).status_code, api.post(path).json()["code"]) == (503, "DEPENDENCY_NOT_CONFIGURED")
    assert api.get("/ai-budget/nobody/spend").json()["code"] == "TENANT_NOT_FOUND"


def test_without_a_cluster_nothing_breaks(
    litellm: FakeLitellm, api: ApiClient, monkeypatch: pytest.MonkeyPatch, cluster_namespace: str
) -> None:
    make_tenant("anna", generation=1, observed_generation=1)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    cluster_module.reset_cluster_client()
    try:
        sweep_keys()
        answers = [api.post(path) for path in (f"{KEY}/rotate", REVOKE)]
    finally:
        monkeypatch.undo()
        cluster_module.reset_cluster_client()
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(502, "UPSTREAM_ERROR")] * 2
    assert not LitellmKey.objects.exists()


def test_revoking_what_never_was(litellm: FakeLitellm, api: ApiClient, cluster_namespace: str) -> None:
    make_tenant("anna", generation=1, observed_generation=1)
    answer = api.post(REVOKE)
    assert (answer.status_code, answer.json()["issuedAt"], answer.json()["state"]) == (200, None, "revoked")
    key_sweep.sweep_keys()
    assert not litellm.keys
    assert api.post("/ai-budget/nobody/litellm-key/revoke").json()["code"] == "TENANT_NOT_FOUND"
