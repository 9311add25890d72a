"""Who may use what, in a browser: a group is granted a server, a tenant is denied it, and the console says why."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from mcpservers.models import McpServer
from opencrane.actor import SYSTEM
from policies.models import Grant, Group
from policies.tests.factories import make_group, make_tenant
from tenants.services import lifecycle
from tests.browser.test_console import overflows
from tests.cluster.kube import Kubectl

pytestmark = [
    pytest.mark.browser,
    # The live server's threads may end with their database connection still open, which only the collector notices.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_grant_is_given_beaten_and_explained(console: Page, live_server: Any, kubectl: Kubectl) -> None:
    values = {"displayName": "Anna Arden", "email": "anna@example.com"}
    lifecycle.create_tenant(name="anna", values=values, actor=SYSTEM)
    contract = f"{live_server.url}/admin/tenants/anna/?tab=contract"

    console.goto(f"{live_server.url}/admin/groups/")
    console.get_by_role("link", name="New group").click()
    console.get_by_label("Name (required)").fill("engineers")
    console.get_by_role("button", name="Add member").click()
    console.get_by_label("New member", exact=True).fill("nobody@")
    console.get_by_role("button", name="Create group").click()
    expect(console.get_by_text("Has to be a tenant's name or an e-mail address.")).to_be_visible()
    console.get_by_label("Member 1", exact=True).fill("anna")
    console.get_by_role("button", name="Create group").click()
    expect(console.get_by_text("Group engineers is saved.")).to_be_visible()
    assert Group.objects.get().members.get().tenant is not None

    console.goto(f"{live_server.url}/admin/new-mcp-server/")
    console.get_by_label("Name (required)").fill("search")
    console.get_by_label("Endpoint (required)").fill("https://mcp.example.com/")
    console.get_by_label("Status").select_option("active")
    console.get_by_role("button", name="Create MCP server").click()
    console.get_by_role("button", name="Add grant").click()
    console.get_by_label("Subject of grant new").fill("engineers")
    console.get_by_role("button", name="Save grants").click()
    expect(console.get_by_text("The grants of search are saved.")).to_be_visible()

    console.goto(contract)
    expect(console.get_by_test_id("servers")).to_have_text("search")
    expect(console.get_by_text("Allowed by a grant for group engineers of priority 0.")).to_be_visible()

    console.get_by_role("link", name="Why search").click()
    expect(console.get_by_test_id("answer")).to_contain_text("Allowed")
    console.get_by_label("Access").select_option("deny")
    console.get_by_label("Priority").fill("10")
    console.get_by_role("button", name="Preview").click()
    expect(console.get_by_test_id("what-if")).to_contain_text("Denied by the previewed grant for the tenant")
    assert Grant.objects.count() == 1

    server = McpServer.objects.get()
    console.goto(f"{live_server.url}/admin/mcp-servers/{server.pk}/?tab=grants")
    console.get_by_role("button", name="Add grant").click()
    console.get_by_label("Whom grant new is for").select_option("tenant")
    console.get_by_label("Subject of grant new").fill("anna")
    console.get_by_label("Access of grant new").select_option("deny")
    console.get_by_label("Priority of grant new").fill("10")
    console.get_by_role("button", name="Save grants").click()
    expect(console.get_by_text("The grants of search are saved.")).to_be_visible()

    console.goto(contract)
    expect(console.get_by_test_id("servers")).to_have_text("no server")
    console.get_by_role("link", name="Why search").click()
    answer = console.get_by_test_id("answer")
    expect(answer).to_contain_text("Denied by a grant for the tenant of priority 10.")
    first, second = answer.get_by_role("listitem").all()
    expect(first).to_contain_text("Decides")
    expect(first).to_contain_text("deny")
    expect(second).to_contain_text("engineers")
    expect(second).to_contain_text("Priority 0 is below 10.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_access_pages_fit_a_phone(console: Page, live_server: Any, kubectl: Kubectl, scheme: Any) -> None:
    anna = make_tenant("anna-with-a-name-that-is-as-long-as-a-name-may-ever-be")
    group = make_group("g" * 120, anna, "somebody.with.a.long.name@department.of.long.names.example.com")
    server = McpServer.objects.create(
        name="s" * 120, endpoint="https://mcp.example.com/" + "path/" * 40, transport="sse", status="active"
    )
    Grant.objects.create(
        payload_type="mcp-server", payload_id=str(server.pk), subject_type="group", group=group, access="allow",
        scope="org", note="n" * 300,
    )  # fmt: skip
    console.emulate_media(color_scheme=scheme)
    console.set_viewport_size({"width": 400, "height": 800})
    paths = ["/admin/policies/", "/admin/new-policy/", "/admin/groups/", f"/admin/groups/{group.pk}/",
             f"/admin/groups/{group.pk}/?tab=uses", "/admin/mcp-servers/", f"/admin/mcp-servers/{server.pk}/",
             f"/admin/mcp-servers/{server.pk}/?tab=grants", f"/admin/mcp-servers/{server.pk}/?tab=credentials",
             f"/admin/why/?tenant={anna.name}&type=mcp-server&payload={server.name}",
             f"/admin/tenants/{anna.name}/?tab=contract", "/admin/rollout/", "/admin/rollout/define/",
             "/admin/participation/", "/admin/sessions/"]  # fmt: skip
    for path in paths:
        console.goto(f"{live_server.url}{path}")
        expect(console.locator("h1")).to_be_visible()
        assert not overflows(console), path
