"""What the console does to tenants, all the way to the cluster."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from accounts.models import Role
from accounts.tests.people import signed_in
from awareness.models import Participation
from awareness.selectors import current_rollout
from budgets.models import TokenUsage
from cluster.client import cluster_client
from cluster.resources import ACCESS_POLICIES, CLUSTER_TENANTS, NAMESPACES, TENANTS
from mcpservers.models import McpServer
from opencrane.actor import SYSTEM
from operations.models import AuditEntry, Job
from operations.services.bulk import start_bulk
from policies.models import AccessPolicy, Grant, Group, GroupMember
from skills.models import SkillBundle
from tenants import selectors
from tenants.management.company import CLUSTER_TENANT
from tenants.models import RetainedData, Tenant
from tenants.services import lifecycle
from tenants.services.bulk import TENANTS as TENANTS_IN_BULK
from tenants.views.forms import TenantForm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_cluster")]


@pytest.fixture
def empty_cluster(transactional_db: None, cluster_namespace: str) -> None:
    cluster_client().request("DELETE", TENANTS.path(cluster_namespace))


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.OPERATOR)


def make(*names: str, **values: Any) -> None:
    for name in names:
        spec = {"displayName": name.title(), "email": f"{name}@example.com"} | values
        lifecycle.create_tenant(name=name, values=spec, actor=SYSTEM)


def spec(name: str) -> dict[str, Any]:
    live = cluster_client().get(TENANTS, name)
    assert live is not None
    return live["spec"]


def form(of: str = "", /, **changes: str) -> dict[str, str]:
    """What a browser posts when only `changes` were made."""
    raw = TenantForm.of(selectors.tenant_named(of)).raw if of else {"skillMode": "all"}
    return raw | changes


def told(answer: Any) -> str:
    return str(answer.content.decode())


def test_a_new_tenant_has_every_field_of_the_form(admin: Client) -> None:
    values = form(
        name="anna", displayName="Anna", email="anna@example.com", team="sales", monthlyBudgetUsd="12.50",
        skillMode="listed", skillAllowlist="b\n\na\n", openclawVersion="1.2", awarenessWave="personal",
        configOverrides="since: 2026-01-01\nlist: [1, 2]",
    ) | {"resources.cpu": "500m", "mcpPolicy.deny": "web"}  # fmt: skip
    answer = admin.post("/admin/new-tenant/", values, follow=True)
    assert "Tenant anna is in the cluster." in told(answer)
    assert spec("anna") == {
        "displayName": "Anna", "email": "anna@example.com", "team": "sales", "monthlyBudgetUsd": 12.5,
        "skillAllowlist": ["b", "a"], "openclawVersion": "1.2", "awarenessWave": "personal",
        "configOverrides": {"since": "2026-01-01", "list": [1, 2]}, "resources": {"cpu": "500m"},
        "mcpPolicy": {"deny": ["web"]}, "suspended": False,
    }  # fmt: skip


def test_errors_stand_at_their_fields_and_nothing_is_lost(admin: Client) -> None:
    make("taken")
    values = form(name="Not A Name", displayName="", email="nope", monthlyBudgetUsd="much", configOverrides="a: *b")
    answer = admin.post("/admin/new-tenant/", values | {"resources.cpu": "lots"})
    assert answer.status_code == 400
    for error in ("Has to be lower-case letters", "Enter a valid email address", "Has to be a number",
                  "Neither JSON nor", "Has to be a Kubernetes quantity"):  # fmt: skip
        assert error in told(answer)
    assert 'value="nope"' in told(answer)
    values = form(name="taken", displayName="X", email="x@example.com")
    answer = admin.post("/admin/new-tenant/", values | {"policyRef": "nil"})
    assert answer.status_code == 422
    assert "There is no access policy named nil." in told(answer)
    answer = admin.post("/admin/new-tenant/", values)
    assert answer.status_code == 409
    assert "There is a tenant named taken already." in told(answer)


def test_an_edit_shows_the_difference_and_names_only_what_changed(admin: Client) -> None:
    make("anna", team="red", monthlyBudgetUsd=5)
    values = form("anna", team="green", monthlyBudgetUsd="") | {"generation": "1"}
    answer = admin.post("/admin/tenants/anna/edit/", values | {"step": "review"})
    assert "2 fields of anna will change" in told(answer)
    assert '<td class="oc-before">red</td><td class="oc-after">green</td>' in told(answer)
    assert Tenant.objects.get().team == "red"
    answer = admin.post("/admin/tenants/anna/edit/", values | {"step": "save"}, follow=True)
    assert "The cluster has the changed spec of anna." in told(answer)
    assert spec("anna")["team"] == "green"
    assert "monthlyBudgetUsd" not in spec("anna")
    assert AuditEntry.objects.get(action="tenant.updated").before == {"team": "red", "monthlyBudgetUsd": 5}


def test_a_stale_form_is_refused(admin: Client) -> None:
    make("anna", team="red")
    values = form("anna", team="green") | {"generation": "1", "step": "save"}
    lifecycle.update_tenant(name="anna", changes={"team": "blue"}, actor=SYSTEM)
    answer = admin.post("/admin/tenants/anna/edit/", values)
    assert answer.status_code == 412
    assert "Somebody else changed it" in told(answer)
    for action in ("suspend", "delete"):
        answer = admin.post(f"/admin/tenants/anna/do/{action}/", {"generation": "1", "confirm": "anna"}, follow=True)
        assert "Somebody else changed it" in told(answer)
    tenant = Tenant.objects.get()
    assert (tenant.team, tenant.suspended, tenant.deleting) == ("blue", False, False)


def test_suspend_and_resume_carry_the_reason_into_the_audit_trail(admin: Client) -> None:
    make("anna")
    admin.post("/admin/tenants/anna/do/suspend/", {"generation": "1", "reason": "on leave"})
    assert spec("anna")["suspended"] is True
    assert AuditEntry.objects.get(action="tenant.suspended").message == "Suspended tenant anna. Reason: on leave"
    admin.post("/admin/tenants/anna/do/resume/", {"generation": "2"})
    assert spec("anna")["suspended"] is False


def test_delete_needs_the_name(admin: Client) -> None:
    make("anna")
    answer = admin.post("/admin/tenants/anna/do/delete/", {"generation": "1", "confirm": "ana"}, follow=True)
    assert "Nothing was deleted" in told(answer)
    assert Tenant.objects.exists()
    answer = admin.post("/admin/tenants/anna/do/delete/", {"generation": "1", "confirm": "anna"}, follow=True)
    assert "Tenant anna is deleted." in told(answer)
    assert not Tenant.objects.exists()


def test_apply_again_brings_back_what_was_deleted_in_the_cluster(admin: Client, cluster_namespace: str) -> None:
    make("anna")
    cluster_client().request("DELETE", TENANTS.path(cluster_namespace, "anna"))
    answer = admin.post("/admin/tenants/anna/do/apply/", follow=True)
    assert "The cluster has anna as it is here." in told(answer)
    assert spec("anna")["displayName"] == "Anna"


def test_datasets_are_replaced(admin: Client) -> None:
    make("anna")
    answer = admin.post(
        "/admin/tenants/anna/datasets/", {"team": "b\na\n", "project": "", "personal": "x"}, follow=True
    )
    assert "The data sets of anna are saved." in told(answer)
    assert selectors.datasets_of(Tenant.objects.get().pk) == {
        "org": ["default"], "team": ["a", "b"], "project": [], "personal": ["x"],
    }  # fmt: skip


def test_all_that_match_are_named_before_anything_happens(admin: Client) -> None:
    make("anna", "bert", team="red")
    make("carl", team="green")
    answer = admin.post("/admin/tenants-bulk/", {"action": "suspend", "all": "1", "query": "team=red"})
    assert "2 tenants will be suspended" in told(answer)
    assert "anna, bert" in told(answer)
    make("dora", team="red")
    answer = admin.post(
        "/admin/tenants-bulk/",
        {"action": "suspend", "step": "start", "names": ["anna", "bert"], "reason": "audit"},
        follow=True,
    )
    assert "2 suspended" in told(answer)
    assert dict(Tenant.objects.values_list("name", "suspended")) == {
        "anna": True, "bert": True, "carl": False, "dora": False,
    }  # fmt: skip
    assert AuditEntry.objects.filter(message__endswith="Reason: audit").count() == 2


def test_deleting_many_needs_the_count_typed(admin: Client) -> None:
    make("anna", "bert")
    values = {"action": "delete", "step": "start", "names": ["anna", "bert"]}
    assert admin.post("/admin/tenants-bulk/", values).status_code == 400
    assert Tenant.objects.count() == 2
    answer = admin.post("/admin/tenants-bulk/", values | {"phrase": "delete 2"}, follow=True)
    assert "2 deleted" in told(answer)
    assert not Tenant.objects.exists()


def test_a_bulk_job_leaves_later_namesakes_alone_and_can_start_over() -> None:
    make("anna", "bert")
    job = start_bulk(TENANTS_IN_BULK, action="delete", names=["anna", "bert", "gone"], actor=SYSTEM)
    assert sorted(job.items.values_list("key", "outcome")) == [
        ("anna", "deleted"), ("bert", "deleted"), ("gone", "skipped"),
    ]  # fmt: skip
    make("anna")
    Job.objects.filter(pk=job.pk).update(status=Job.Status.QUEUED)
    from operations.services.jobs import run_job

    run_job(job_id=job.pk)
    assert set(job.items.values_list("outcome", flat=True)) == {"skipped"}
    assert Tenant.objects.get().name == "anna"


@pytest.fixture
def demo(cluster_namespace: str) -> Iterator[Callable[[], Any]]:
    """Fills in the demo; what it has beyond the namespace goes afterwards."""
    yield lambda: call_command("demo")
    for path in (
        ACCESS_POLICIES.path(cluster_namespace),
        CLUSTER_TENANTS.path("", CLUSTER_TENANT),
        NAMESPACES.path("", f"opencrane-{CLUSTER_TENANT}"),
    ):
        cluster_client().request("DELETE", path)


def test_the_demo_company_is_made_once(demo: Callable[[], Any], capsys: Any) -> None:
    make("zoe")
    demo()
    # Nothing is invented about people who are not of the company.
    assert not Participation.objects.filter(tenant__name="zoe").exists()
    assert not TokenUsage.objects.filter(tenant="zoe").exists()
    assert not GroupMember.objects.filter(tenant__name="zoe").exists()
    Tenant.objects.filter(name="zoe").delete()
    count = Tenant.objects.count()
    assert 20 <= count <= 30
    assert not Tenant.objects.exclude(email__endswith="@example.com").exists()
    assert all(not tenant.in_flight for tenant in Tenant.objects.all())
    assert Group.objects.count() == len({tenant.team for tenant in Tenant.objects.all()}) + 1
    assert set(SkillBundle.objects.values_list("status", flat=True)) == {"published", "review"}
    assert not SkillBundle.objects.exclude(status="published").filter(name="crm-notes").exists()
    assert McpServer.objects.filter(status="active").count() == 3
    assert current_rollout().promoted_waves == ("personal", "project")
    made = [each.objects.count() for each in (Grant, AccessPolicy, TokenUsage, Participation, AuditEntry)]
    assert all(made)
    # One that was deleted and has left its data stays away, too.
    Tenant.objects.filter(name="ada-lindgren").delete()
    left("ada-lindgren")
    demo()
    assert Tenant.objects.count() == count - 1
    assert "0 are new" in capsys.readouterr().out
    assert AuditEntry.objects.count() == made[-1], "nothing was made twice"


# -- what deleted tenants have left -----------------------------------------------------------------------------------


def left(name: str = "anna") -> RetainedData:
    return RetainedData.objects.create(tenant=name, data_uid=f"uid-of-{name}", namespace=cluster_client().namespace)


def test_retained_data_is_listed_found_and_deleted_by_typing_the_name(admin: Client) -> None:
    def text(query: str = "") -> str:
        return told(admin.get(f"/admin/retained-data/{query}"))

    assert "Nothing is left behind" in text()
    anna, _ = left(), left("berta")
    assert "openclaw-anna-data-uid-of-anna" in text()
    assert "2 deleted tenants" in text()
    assert "openclaw-anna" not in text("?q=berta")
    url = f"/admin/retained-data/{anna.pk}/delete/"
    assert "Nothing was deleted" in told(admin.post(url, {"tenant": "anna", "confirm": "berta"}, follow=True))
    assert RetainedData.objects.count() == 2
    admin.post(url, {"tenant": "anna", "confirm": "anna"})
    assert [each.tenant for each in RetainedData.objects.all()] == ["berta"]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR])
def test_the_form_offers_an_administrator_the_data_of_an_old_name(role: Role) -> None:
    left()
    client = signed_in(role)
    values = form(name="anna", displayName="Anna", email="anna@example.com")
    is_admin = role == Role.ADMIN
    assert ('href="/admin/new-tenant/?name=anna"' in told(client.get("/admin/retained-data/"))) == is_admin
    assert ("adopt_retained" in told(client.get("/admin/new-tenant/?name=anna"))) == is_admin
    answer = client.post("/admin/new-tenant/", values)
    assert answer.status_code == 409
    assert "has left data" in told(answer)
    assert ("adopt_retained" in told(answer)) == (role == Role.ADMIN)
    client.post("/admin/new-tenant/", values | {"adopt_retained": "yes"})
    assert Tenant.objects.filter(name="anna", data_uid="uid-of-anna").exists() == (role == Role.ADMIN)
