"""Console pages of money: what they show, and that they act by the services."""

import datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Role, User
from budgets.models import Budget, BudgetCrossing, LitellmKey, ProviderKey, UsageImport
from budgets.services import key_sweep
from budgets.services.crossings import raise_crossings
from budgets.services.usage import Usage, record_usage
from budgets.tests.litellm_server import FakeLitellm
from cluster.secrets import delete_secret
from conftest import API_TOKEN, ApiClient
from operations.models import AuditEntry, Job
from tests.cluster.pods import make_tenant

pytestmark = pytest.mark.django_db


def signed_in(role: Role) -> Client:
    client = Client()
    client.force_login(User.objects.create_user(f"{role}-person", password=None, role=role))
    return client


@pytest.fixture
def admin_page(db: None) -> Client:
    return signed_in(Role.ADMIN)


def use(request: str, tenant: str, cost: str, model: str = "gpt-4o", days: int = 0) -> None:
    at = timezone.now() - datetime.timedelta(days=days)
    record_usage([Usage(request, tenant, model, 1200, 300, Decimal(cost), at)], source="push")


def text(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.content[:2000]
    return answer.content.decode()


def test_the_dashboard_shows_the_month(admin_page: Client) -> None:
    assert "Nothing spent this month" in text(admin_page, "/admin/spend/")
    make_tenant("anna", monthly_budget_usd=10, team="red")
    make_tenant("bert", team="red")
    Budget.objects.create(scope="global", monthly_limit_usd=100)
    use("r1", "anna", "9")
    use("r2", "bert", "2", model="claude")
    use("r3", "ghost", "1")
    raise_crossings()
    page = text(admin_page, "/admin/spend/")
    for shown in ("$12.00", "$100.00", "90 % of $10.00", "claude", "Unattributed", "red", "requests, 3,600 tokens in"):
        assert shown in page, shown
    assert "has reached 80 % of its budget: $9.00 of $10.00" in page
    assert "unfold/js/chart/chart.js" in page
    with CaptureQueriesContext(connection) as queries:
        text(admin_page, "/admin/spend/")
    assert len(queries) <= 12


def test_a_notice_goes_when_it_is_dismissed(admin_page: Client) -> None:
    make_tenant("anna", monthly_budget_usd=10)
    Budget.objects.create(scope="global", monthly_limit_usd=10)
    use("r1", "anna", "9")
    raise_crossings()
    highest = BudgetCrossing.objects.get(scope="tenant", threshold_percent=80)
    # Every page says how many there are; of each budget one counts.
    assert 'title="2 budgets that were reached"' in text(admin_page, "/admin/jobs/")
    admin_page.post("/admin/spend/dismiss/", {"notice": highest.pk})
    # What a budget reached on the way goes with it; other budgets' notices stay.
    assert set(BudgetCrossing.objects.filter(dismissed_at=None).values_list("scope", flat=True)) == {"global"}
    admin_page.post("/admin/spend/dismiss/", {"notice": "all"})
    assert "udgets that were reached" not in text(admin_page, "/admin/spend/")
    admin_page.post("/admin/spend/dismiss/", {"notice": "x"})
    assert AuditEntry.objects.filter(action="budget.notice_dismissed").count() == 2


def test_old_figures_say_so(admin_page: Client, settings: Any) -> None:
    settings.LITELLM_ENDPOINT, settings.LITELLM_MASTER_KEY = "http://127.0.0.1:1", "sk-nothing"
    now = timezone.now()
    UsageImport.objects.create(last_success_at=now)
    assert "has not been imported" not in text(admin_page, "/admin/spend/")
    UsageImport.objects.update(failing_since=now, error="LiteLLM answered with 500.")
    page = text(admin_page, "/admin/spend/")
    assert "Usage has not been imported since" in page
    assert "LiteLLM answered with 500." in page


def test_budgets_are_set_and_taken_away(admin_page: Client) -> None:
    make_tenant("anna")
    use("r1", "anna", "9")
    assert "No account has a budget yet" in text(admin_page, "/admin/budgets/")
    admin_page.post("/admin/budgets/do/set-global/", {"monthlyLimitUsd": "12.5"})
    admin_page.post("/admin/budgets/do/set-account/", {"userId": "anna@example.com", "monthlyLimitUsd": "10"})
    page = text(admin_page, "/admin/budgets/")
    assert "90 % of $10.00" in page
    assert 'value="12.5"' in page
    assert "anna@example.com" not in text(admin_page, "/admin/budgets/?state=ok")
    for bad in ("-1", "nan", "1e400", "", "x"):
        answer = admin_page.post("/admin/budgets/do/set-global/", {"monthlyLimitUsd": bad}, follow=True)
        assert "Nothing was saved" in answer.content.decode(), bad
    assert Budget.objects.get(scope="global").monthly_limit_usd == Decimal("12.5")
    admin_page.post("/admin/budgets/do/delete-account/", {"userId": "anna@example.com"})
    assert not Budget.objects.filter(scope="account").exists()


def test_the_ledger_is_filtered(admin_page: Client) -> None:
    make_tenant("anna")
    use("request-of-anna", "anna", "0.000123")
    use("request-of-ghost", "ghost", "1", model="claude", days=3)
    page = text(admin_page, "/admin/usage/")
    assert "$0.000123" in page
    assert "request-of-ghost" in page
    today = f"{timezone.now():%Y-%m-%d}"
    for query, shows in (
        ("tenant=anna", True),
        ("whose=nobody", False),
        ("model=claude", False),
        (f"since={today}", True),
    ):
        page = text(admin_page, f"/admin/usage/?{query}")
        assert ("request-of-anna" in page, "request-of-ghost" in page) == (shows, not shows), query


@pytest.mark.django_db(transaction=True)
def test_the_ledger_is_exported_as_a_job(admin_page: Client) -> None:
    make_tenant("anna")
    record_usage(
        [Usage(f"r{n}", "anna", "=m", n, n, Decimal("0.5"), timezone.now()) for n in range(1005)], source="push"
    )
    use("r-ghost", "ghost", "1")
    answer = admin_page.post("/admin/usage/export/", {"format": "csv", "tenant": "anna"}, follow=True)
    page = answer.content.decode()
    assert "Export of usage" in page
    assert "1,005 rows" in page
    [job] = Job.objects.all()
    file = b"".join(admin_page.get(f"/admin/jobs/{job.pk}/file/")).decode()
    lines = file.splitlines()
    assert lines[0].startswith("recordedAt,tenant,tenantId,model,")
    assert len(lines) == 1006
    # Nothing in it is a formula to a spreadsheet.
    assert lines[1].split(",")[3] == "'=m"
    answer = ApiClient(API_TOKEN).post("/token-usage/export?unattributed=true")
    assert answer.status_code == 202
    file = b"".join(admin_page.get(f"/admin/jobs/{answer.json()['jobId']}/file/")).decode()
    assert [orjson.loads(line)["requestId"] for line in file.splitlines()] == ["r-ghost"]
    answer = admin_page.post("/admin/usage/export/", {"format": "xls"}, follow=True)
    assert "jsonl or csv" in answer.content.decode()


def test_a_tenant_s_page_has_its_spend(admin_page: Client) -> None:
    anna = make_tenant("anna", monthly_budget_usd=10)
    page = text(admin_page, "/admin/tenants/anna/?tab=spend")
    for shown in ("No usage yet", "LiteLLM is not configured", "$0.00", "It has none"):
        assert shown in page, shown
    last_month = timezone.now().replace(day=1) - datetime.timedelta(days=1)
    use("r1", "anna", "9")
    use("r2", "anna", "3.5", model="claude", days=(timezone.now() - last_month).days + 1)
    page = text(admin_page, "/admin/tenants/anna/?tab=spend")
    this_month = f"?tenantId={anna.pk}&amp;since={timezone.now():%Y-%m-01}"
    for shown in ("$9.00", "90 % of $10.00", "Above 80 %", "$3.50", f"{last_month:%B %Y}", "console/charts.js",
                  f'/admin/usage/{this_month}"', f"?tenantId={anna.pk}&amp;model=gpt-4o&amp;since=",
                  'href="/admin/litellm-keys/anna/"'):  # fmt: skip
        assert shown in page, shown
    assert "In sync" in page
    # What this month has not seen is in no ranking of it.
    assert "model=claude" not in page
    page = text(admin_page, f"/admin/usage/?tenantId={anna.pk}")
    assert "Tenant: anna" in page


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_a_key_is_rotated_and_revoked(litellm: FakeLitellm, cluster_namespace: str) -> None:
    delete_secret(name="openclaw-anna-litellm-key")
    client = signed_in(Role.OPERATOR)
    make_tenant("anna", generation=1, observed_generation=1, monthly_budget_usd=5)
    assert "No LiteLLM keys" in text(client, "/admin/litellm-keys/")
    key_sweep.sweep_keys()
    assert "Active" in text(client, "/admin/litellm-keys/")
    assert "$5.00 a month" in text(client, "/admin/litellm-keys/anna/")
    page = text(client, "/admin/tenants/anna/?tab=spend")
    for shown in ("By LiteLLM", "enforces $5.00 a month", "has not been imported from LiteLLM yet"):
        assert shown in page, shown
    litellm.broken["/key/info"] = 500
    assert "LiteLLM does not answer" in text(client, "/admin/tenants/anna/?tab=spend")
    LitellmKey.objects.update(known_spend_at=None)
    assert "Nothing is known of this month" in text(client, "/admin/tenants/anna/?tab=spend")
    litellm.broken.clear()
    client.post("/admin/litellm-keys/anna/do/rotate/", {"grace": "10"})
    assert "In its grace" in text(client, "/admin/litellm-keys/anna/")
    answer = client.post("/admin/litellm-keys/anna/do/revoke/", {"confirm": "bert"}, follow=True)
    assert "Nothing was revoked" in answer.content.decode()
    litellm.broken["/key/delete"] = 500
    answer = client.post("/admin/litellm-keys/anna/do/revoke/", {"confirm": "anna"}, follow=True)
    page = answer.content.decode()
    assert "still alive in LiteLLM" in page
    assert "Being revoked" in page
    assert "failing since" in page
    assert "anna" in text(client, "/admin/litellm-keys/?state=failing")
    litellm.broken.clear()
    client.post("/admin/litellm-keys/anna/do/sync/")
    assert "Issue a key" in text(client, "/admin/litellm-keys/anna/")
    assert not LitellmKey.objects.exclude(state="revoked").exists()
    assert text(client, "/admin/litellm-keys/nobody/", 404)
    assert "Revoked" in text(client, "/admin/tenants/anna/?tab=spend")


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_provider_keys_are_for_administrators_and_never_shown(cluster_namespace: str) -> None:
    delete_secret(name="opencrane-provider-keys")
    admin, operator = signed_in(Role.ADMIN), signed_in(Role.OPERATOR)
    assert text(operator, "/admin/provider-keys/", 403)
    secret = "sk-unique-key-of-the-console-31415926"
    page = admin.post("/admin/provider-keys/do/set/", {"provider": "openai", "apiKey": secret}, follow=True)
    shown = page.content.decode()
    assert "In sync" in shown
    assert secret not in shown
    page = admin.post(
        "/admin/provider-keys/do/set/", {"provider": "openai", "apiKey": "ä-not-a-key-at-all"}, follow=True
    )
    assert "Nothing was kept" in page.content.decode()
    assert "not-a-key" not in page.content.decode()
    admin.post("/admin/provider-keys/do/delete/", {"provider": "openai", "confirm": "nope"})
    assert ProviderKey.objects.exists()
    admin.post("/admin/provider-keys/do/delete/", {"provider": "openai", "confirm": "openai"})
    assert not ProviderKey.objects.exists()


def test_viewers_look_and_do_not_touch(db: None) -> None:
    viewer = signed_in(Role.VIEWER)
    make_tenant("anna")
    use("r1", "anna", "1")
    for path in (
        "/admin/spend/",
        "/admin/budgets/",
        "/admin/usage/",
        "/admin/litellm-keys/",
        "/admin/tenants/anna/?tab=spend",
    ):
        assert "csrfmiddlewaretoken" not in text(viewer, path).partition('class="oc-page"')[2], path
    assert viewer.post("/admin/budgets/do/set-global/", {"monthlyLimitUsd": "1"}).status_code == 403
    assert viewer.post("/admin/litellm-keys/anna/do/rotate/", {"grace": "1"}).status_code == 403
