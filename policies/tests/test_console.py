"""Console pages of policies and groups, and why a tenant may use something."""

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Role
from accounts.tests.people import signed_in
from cluster.client import cluster_client
from cluster.models import DriftFinding
from cluster.resources import ACCESS_POLICIES
from mcpservers.models import McpServer
from operations.models import AuditEntry
from policies.models import AccessPolicy, Grant, Group
from policies.tests.factories import make_grant, make_group, make_tenant
from policies.views.forms import PolicyForm, raw_of
from policies.views.grant_rows import COLUMNS
from tenants.models import Tenant

pytestmark = pytest.mark.django_db

NASTY = '<script>alert("x")</script>'


def make_policy(name: str = "sales", **values: Any) -> AccessPolicy:
    """A policy as a confirmed write leaves it, without going through the cluster."""
    return AccessPolicy.objects.create(name=name, **{"generation": 1, "observed_generation": 1} | values)


def make_server(name: str = "search", **values: Any) -> McpServer:
    defaults = {"endpoint": "https://mcp.example.com/", "transport": "streamable-http", "status": "active"}
    return McpServer.objects.create(name=name, **defaults | values)


def grant_row(**values: str) -> dict[str, str]:
    """One row of a form's grants; missing columns are blank."""
    row = {"access": "allow", "scope": "org", "priority": "0"} | values
    return {f"grant.{column}": row.get(column, "") for column in COLUMNS}


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.OPERATOR)


@pytest.fixture
def viewer() -> Client:
    return signed_in(Role.VIEWER)


# -- roles and cost ---------------------------------------------------------------------------------------------------


def test_viewers_see_all_of_it_and_may_post_nothing(viewer: Client) -> None:
    anna = make_tenant("anna")
    make_policy(tenant_selector={})
    group = make_group("engineers", anna)
    make_grant(group, listed_in=group)
    paths = ["/admin/policies/", "/admin/policies/sales/", "/admin/policies/sales/?tab=tenants", "/admin/groups/",
             "/admin/policies/sales/?tab=sync", f"/admin/groups/{group.pk}/", f"/admin/groups/{group.pk}/?tab=uses",
             "/admin/why/?tenant=anna&type=awareness&payload=handbook"]  # fmt: skip
    for path in paths:
        text = text_of(viewer, path)
        assert re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', text) == ["/admin/logout/"], path
    for path in ["/admin/new-policy/", "/admin/policies/sales/edit/", "/admin/policies/sales/do/delete/",
                 "/admin/new-group/", f"/admin/groups/{group.pk}/", f"/admin/groups/{group.pk}/delete/"]:  # fmt: skip
        assert viewer.post(path, {"generation": "1", "confirm": "sales"}).status_code == 403
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    "path", ["/admin/policies/", "/admin/policies/p0/", "/admin/policies/p0/?tab=tenants", "/admin/policies/p0/edit/",
             "/admin/policies/p0/?tab=spec", "/admin/policies/p0/?tab=sync", "/admin/policies/p0/?tab=audit",
             "/admin/groups/", "GROUP", "GROUP?tab=uses", "GROUP?tab=audit",
             "/admin/why/?tenant=t0&type=mcp-server&payload=search", "/admin/tenants/t0/?tab=contract"],
)  # fmt: skip
def test_queries_do_not_grow(admin: Client, path: str) -> None:
    counts = []
    for size in (2, 60):
        for model in (Grant, Group, AccessPolicy, Tenant, McpServer):
            model.objects.all().delete()
        tenants = [make_tenant(f"t{number}") for number in range(size)]
        groups = [make_group(f"g{number}", *tenants) for number in range(min(size, 10))]
        servers = [make_server(f"search{number or ''}") for number in range(min(size, 20))]
        for group in groups:
            make_grant(group, listed_in=groups[0])
            for server in servers:
                make_grant(group, str(server.pk), payload_type="mcp-server")
        for number in range(size):
            make_policy(f"p{number}", tenant_selector={})
        with CaptureQueriesContext(connection) as queries:
            text_of(admin, path.replace("GROUP", f"/admin/groups/{groups[0].pk}/"))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 14


def test_what_people_wrote_is_never_markup(admin: Client) -> None:
    anna = make_tenant("anna", display_name=NASTY)
    make_policy(description=NASTY, tenant_selector={}, domains={"allow": [NASTY]}, sync_error=NASTY, generation=2)
    group = make_group(NASTY, anna, description=NASTY)
    make_grant(group, NASTY, note=NASTY, listed_in=group)
    make_grant(anna, str(make_server(NASTY, description=NASTY).pk), payload_type="mcp-server", note=NASTY)
    paths = ["/admin/policies/", "/admin/policies/sales/", "/admin/policies/sales/?tab=tenants", "/admin/groups/",
             "/admin/policies/sales/?tab=spec", "/admin/policies/sales/edit/?mode=yaml", f"/admin/groups/{group.pk}/",
             "/admin/tenants/anna/?tab=contract", "/admin/why/?tenant=anna&type=mcp-server&payload=search"]  # fmt: skip
    for path in paths:
        text = text_of(admin, path)
        assert NASTY not in text, path
        assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>\s*\S", text)


# -- policies ---------------------------------------------------------------------------------------------------------


def test_the_list_says_how_many_tenants_each_policy_reaches(admin: Client) -> None:
    for number in range(3):
        make_tenant(f"t{number}", team="sales")
    make_tenant("named", team="sales", policy_ref="other")
    make_policy("sales", tenant_selector={"matchTeam": "sales"})
    make_policy("other")
    make_policy("all", tenant_selector={})
    text = text_of(admin, "/admin/policies/")
    reach = dict(re.findall(r'<a href="/admin/policies/([^/]+)/\?tab=tenants">([^<]+)</a>', text))
    assert reach == {"sales": "3 tenants", "other": "1 tenant", "all": "3 tenants"}
    for name, said in reach.items():
        rows = re.findall(
            r'data-label="Name"><a href="/admin/tenants/', text_of(admin, f"/admin/policies/{name}/?tab=tenants")
        )
        assert len(rows) == int(said.split()[0])


def test_policies_are_found_by_text_and_by_sync(admin: Client) -> None:
    make_policy("calm", description="for Sales")
    make_policy("late", generation=2)
    make_policy("stuck", generation=2, sync_failing_since=timezone.now())
    make_policy("changed")
    now = timezone.now()
    DriftFinding.objects.create(
        kind="AccessPolicy", name="changed", issue="field-mismatch", fields=["domains"], since=now, evaluated_at=now
    )

    def found(query: str) -> list[str]:
        return re.findall(
            r'data-label="Name"><a href="/admin/policies/([^/]+)/"', text_of(admin, f"/admin/policies/?{query}")
        )

    assert found("q=sales") == ["calm"]
    assert found("sync=waiting") == ["late"]
    assert found("sync=failing") == ["stuck"]
    assert found("sync=drifted") == ["changed"]
    assert found("sync=synced") == ["calm"]
    assert "changed" in text_of(admin, "/admin/drift/AccessPolicy/")


def test_a_spec_reads_the_same_as_a_form_and_as_yaml() -> None:
    spec = {
        "description": "What sales may reach",
        "tenantSelector": {"matchTeam": "sales", "matchLabels": {"tier": "a"}},
        "domains": {"allow": ["*.example.com"], "deny": ["files.example.com"], "defaultDeny": True},
        "egressRules": [{"cidr": "10.0.0.0/8", "ports": [443, 8443], "protocol": "UDP"}],
        "mcpServers": {"deny": ["web"]},
    }
    form = PolicyForm(raw_of(spec))
    assert form.wanted() == spec
    as_yaml = form.switched()
    assert as_yaml.as_yaml
    assert as_yaml.wanted() == spec
    assert {name: as_yaml.switched().raw[name] for name in raw_of(spec)} == raw_of(spec)
    empties: list[dict[str, Any]] = [{}, {"tenantSelector": {}}]
    for empty in empties:
        wanted = PolicyForm(raw_of(empty)).wanted()
        assert wanted is not None
        assert {name: value for name, value in wanted.items() if value is not None} == empty


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("domains.allow", "example.com\nnot a domain", "Line 2: "),
        ("egressRules", "10.0.0.0/8\n10.0.0.0/8 TCP 99999", "Line 2: "),
        ("egressRules", "10.0.0.1/8", "Line 1: "),
        ("tenantSelector.matchLabels", "tier", "no key=value"),
        ("tenantSelector.matchLabels", "tier=not a value!", "tier: "),
    ],
)
def test_mistakes_are_shown_at_their_field(admin: Client, name: str, text: str, said: str) -> None:
    form = {"name": "sales", "selectorMode": "matching", "tenantSelector.matchTeam": "sales", name: text}
    answer = admin.post("/admin/new-policy/", form)
    assert answer.status_code == 400
    page = html.unescape(answer.content.decode())
    field = page.partition(f'id="h-{name}"')[2].partition("</div>")[0]
    assert said in field
    assert text in page
    as_yaml = admin.post("/admin/new-policy/", {"name": "x", "mode": "yaml", "yaml": "domians: []"})
    assert "domians: There is no such field." in as_yaml.content.decode()
    assert not AccessPolicy.objects.exists()


def test_a_policy_that_tenants_name_says_so_instead_of_offering_to_delete(admin: Client) -> None:
    make_policy()
    make_tenant("anna", policy_ref="sales")
    text = text_of(admin, "/admin/policies/sales/")
    dialog = text.partition('id="delete-dialog"')[2]
    assert "/admin/tenants/anna/" in dialog
    assert 'name="confirm"' not in dialog
    answer = admin.post("/admin/policies/sales/do/delete/", {"generation": "1", "confirm": "sales"}, follow=True)
    assert "Tenants refer to the access policy sales." in answer.content.decode()
    assert not AccessPolicy.objects.get().deleting


@pytest.mark.django_db(transaction=True)
def test_a_policy_is_made_changed_applied_and_deleted(cluster_namespace: str, admin: Client) -> None:
    cluster_client().request("DELETE", ACCESS_POLICIES.path(cluster_namespace))
    form = {"name": "sales", "selectorMode": "all", "domains.allow": "example.com", "egressRules": "10.0.0.0/8 443"}
    assert admin.post("/admin/new-policy/", form)["Location"] == "/admin/policies/sales/"

    def spec() -> dict[str, Any]:
        live = cluster_client().get(ACCESS_POLICIES, "sales")
        assert live is not None
        return live["spec"]

    assert spec()["domains"] == {"allow": ["example.com"]}
    make_tenant("anna")
    changed = {"mode": "yaml", "yaml": "domains: {deny: [example.com]}", "generation": "1"}
    review = admin.post("/admin/policies/sales/edit/", changed | {"step": "review"}).content.decode()
    assert "3 fields of sales will change" in review
    assert "<strong>1 tenant</strong> now, and <strong>0 tenants</strong> after" in review
    assert spec()["domains"] == {"allow": ["example.com"]}
    assert admin.post("/admin/policies/sales/edit/", changed | {"step": "save"}).status_code == 302
    assert spec() == {"domains": {"deny": ["example.com"]}}
    stale = admin.post("/admin/policies/sales/edit/", changed | {"step": "save"})
    assert stale.status_code == 412

    cluster_client().request("DELETE", ACCESS_POLICIES.path(cluster_namespace, "sales"))
    done = admin.post("/admin/policies/sales/do/apply/", follow=True)
    assert "The cluster has sales as it is here." in done.content.decode()
    assert spec() == {"domains": {"deny": ["example.com"]}}
    generation = str(AccessPolicy.objects.get().generation)
    admin.post("/admin/policies/sales/do/delete/", {"generation": generation, "confirm": "wrong"})
    assert AccessPolicy.objects.exists()
    form = {"generation": generation, "confirm": "sales", "reason": "not needed"}
    assert admin.post("/admin/policies/sales/do/delete/", form)["Location"] == "/admin/policies/"
    assert AuditEntry.objects.filter(action="policy.delete_requested", message__endswith="not needed").exists()
    assert not AccessPolicy.objects.exists()


# -- groups -----------------------------------------------------------------------------------------------------------


def test_a_group_is_made_with_members_and_grants(admin: Client) -> None:
    make_tenant("anna")
    form = {"name": "engineers", "scope": "department", "member": ["anna", "Bert@Example.com", ""]}
    form |= grant_row(payloadId="handbook", priority="5", note="all")
    answer = admin.post("/admin/new-group/", form)
    group = Group.objects.get()
    assert answer["Location"] == f"/admin/groups/{group.pk}/"
    text = text_of(admin, f"/admin/groups/{group.pk}/")
    assert re.findall(r'name="member" value="([^"]+)"', text) == ["anna", "bert@example.com"]
    assert 'name="grant.payloadId" value="handbook"' in text
    assert Grant.objects.get().group == group


def test_members_and_grants_are_changed_in_place_and_what_stays_keeps_its_age(admin: Client) -> None:
    anna = make_tenant("anna")
    group = make_group("engineers", anna)
    kept = make_grant(group, listed_in=group)
    url = f"/admin/groups/{group.pk}/"
    rows = [grant_row(payloadId="handbook"), grant_row(payloadId="salaries", access="deny")]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    form: dict[str, Any] = {"name": "engineers", "scope": "org", "generation": "1", "member": ["carl@example.com"]}
    assert admin.post(url, form | columns).status_code == 302
    assert set(Grant.objects.values_list("payload_id", "access")) == {("handbook", "allow"), ("salaries", "deny")}
    assert Grant.objects.get(payload_id="handbook").pk == kept.pk
    assert list(group.members.values_list("email", flat=True)) == ["carl@example.com"]
    assert admin.post(url, form | columns).status_code == 412
    nothing = form | columns | {"generation": "2"}
    admin.post(url, nothing)
    assert AuditEntry.objects.filter(action="group.updated").count() == 1


def test_mistakes_in_a_group_are_shown_at_their_row_and_nothing_is_lost(admin: Client) -> None:
    make_tenant("anna")
    group = make_group("engineers")
    rows = [grant_row(payloadId="handbook"), grant_row(payloadId="x", subjectType="tenant", subjectName="nobody"),
            grant_row(payloadId="y", priority="much")]  # fmt: skip
    form: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    form |= {"name": "engineers", "scope": "org", "generation": "1", "member": ["anna", "nobody"]}
    first = admin.post(f"/admin/groups/{group.pk}/", form)
    assert first.status_code == 400
    row = first.content.decode().partition('aria-label="Priority of grant 3"')[2].partition("</td>")[0]
    assert 'aria-invalid="true"' in row
    form["grant.priority"] = ["0", "0", "0"]
    second = admin.post(f"/admin/groups/{group.pk}/", form)
    assert second.status_code == 422
    text = second.content.decode()
    assert "There is no tenant nobody; people are named by e-mail address." in text
    form["member"] = ["anna"]
    third = admin.post(f"/admin/groups/{group.pk}/", form).content.decode()
    assert "There is no tenant nobody." in third.partition('aria-label="Subject of grant 2"')[2].partition("</td>")[0]
    assert 'name="grant.payloadId" value="y"' in third
    assert not Grant.objects.exists()


def test_a_group_says_what_is_granted_to_it_and_goes_with_its_name_typed(admin: Client) -> None:
    group = make_group("engineers", "bert@example.com")
    server = make_server()
    make_grant(group, str(server.pk), payload_type="mcp-server")
    assert f"/admin/mcp-servers/{server.pk}/?tab=grants" in text_of(admin, f"/admin/groups/{group.pk}/?tab=uses")
    assert admin.get("/admin/group-named/engineers/")["Location"] == f"/admin/groups/{group.pk}/"
    admin.post(f"/admin/groups/{group.pk}/delete/", {"generation": "1", "confirm": "others"})
    assert Group.objects.exists()
    admin.post(f"/admin/groups/{group.pk}/delete/", {"generation": "1", "confirm": "engineers"})
    assert not Group.objects.exists()
    assert not Grant.objects.exists()


# -- why --------------------------------------------------------------------------------------------------------------


def test_why_names_the_deciding_grant_first_and_previews_one_more(admin: Client) -> None:
    anna = make_tenant("anna")
    server = str(make_server().pk)
    make_grant(make_group("engineers", anna), server, payload_type="mcp-server", priority=1)
    make_grant(anna, server, payload_type="mcp-server", access="deny", priority=5, note="audit")
    asked = "/admin/why/?tenant=anna&type=mcp-server&payload=search"
    text = text_of(admin, asked)
    assert "Denied by a grant for the tenant of priority 5." in text
    assert text.index("Decides:") < text.index("the tenant itself") < text.index("Beaten:") < text.index("as anna")
    text = text_of(admin, f"{asked}&access=allow&subjectType=group&subjectName=engineers&priority=9")
    assert "Allowed by the previewed grant for group engineers of priority 9." in text
    assert Grant.objects.count() == 2
    assert "There is no group gone." in text_of(admin, f"{asked}&access=allow&subjectType=group&subjectName=gone")
    assert admin.get("/admin/why/?tenant=nobody&type=awareness&payload=x").status_code == 404


def test_the_contract_gives_the_reason_behind_each_entry(admin: Client) -> None:
    anna = make_tenant("anna", mcp_policy={"deny": ["cut"]})
    group = make_group("engineers", anna)
    for name, status in (("search", "active"), ("cut", "active"), ("asleep", "draft")):
        make_grant(group, str(make_server(name, status=status).pk), payload_type="mcp-server")
    make_grant(anna, "salaries", access="deny")
    text = html.unescape(text_of(admin, "/admin/tenants/anna/?tab=contract"))
    assert re.search(r'data-testid="servers">search</dd>', text)
    assert "Allowed by a grant for group engineers of priority 0. Denied by the tenant's mcpPolicy." in text
    assert "The server is draft, not active." in text
    assert "Denied by a grant for the tenant of priority 0." in text
    for kind, name in (("mcp-server", "search"), ("mcp-server", "cut"), ("awareness", "salaries")):
        assert f"/admin/why/?tenant=anna&type={kind}&payload={name}" in text
