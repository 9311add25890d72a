"""Which servers a tenant gets, and why: contract and explanation say the same."""

from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import ApiClient
from mcpservers.models import McpServer
from policies.models import AccessPolicy, Grant
from policies.tests.factories import make_grant, make_group, make_tenant
from tenants.models import Tenant


def make_server(name: str, *allowed: Any, **values: Any) -> McpServer:
    """An active server that these may use."""
    defaults = {"endpoint": f"https://{name}.example/mcp", "transport": "streamable-http", "status": "active"}
    server = McpServer.objects.create(name=name, **defaults | values)
    for subject in allowed:
        make_grant(subject, str(server.pk), payload_type="mcp-server")
    return server


def names(api: ApiClient, tenant: str = "anna") -> list[str]:
    return [server["name"] for server in api.get(f"/tenants/{tenant}/effective-contract").json()["mcp"]["servers"]]


def explained(api: ApiClient, payload: str, tenant: str = "anna") -> Any:
    return api.get(f"/tenants/{tenant}/access?type=mcp-server&payload={payload}").json()


def test_the_story(api: ApiClient, db: None) -> None:
    """Group, grant, contract has it; a deny of higher priority, contract loses it; explain says why."""
    make_tenant("anna")
    group = api.post("/groups", {"name": "engineers", "members": ["anna"]}).json()
    body = {
        "name": "jira",
        "endpoint": "https://jira.example/mcp",
        "transport": "streamable-http",
        "status": "active",
        "grants": [{"subjectType": "group", "subjectId": group["id"], "access": "allow"}],
        "credentials": [{"displayName": "bot", "secretRef": "jira-bot"}],
    }
    server = api.post("/mcp-servers", body).json()
    contract = api.get("/tenants/anna/effective-contract")
    assert contract.json()["mcp"]["servers"] == [
        {"id": server["id"], "name": "jira", "transport": "streamable-http", "endpoint": "https://jira.example/mcp"}
    ]
    assert "jira-bot" not in contract.content.decode()
    known = {"If-None-Match": contract["ETag"]}
    assert api.get("/tenants/anna/effective-contract", headers=known).status_code == 304
    assert explained(api, "jira")["reason"] == "Allowed by a grant for group engineers of priority 0."

    deny = {"subjectType": "tenant", "subjectName": "anna", "access": "deny", "priority": 10}
    seen = api.post("/tenants/anna/access", {"type": "mcp-server", "payload": "jira", "grant": deny}).json()
    assert (seen["decision"], seen["preview"], seen["winner"]["grantId"]) == ("deny", True, None)
    assert Grant.objects.count() == 1

    api.put(f"/mcp-servers/{server['id']}", {"grants": [*server["grants"], deny]})
    again = api.get("/tenants/anna/effective-contract", headers=known)
    assert (again.status_code, again.json()["mcp"]["servers"]) == (200, [])
    answer = explained(api, server["id"])
    assert (answer["decision"], answer["payload"]) == ("deny", {"id": server["id"], "name": "jira"})
    assert answer["reason"] == "Denied by a grant for the tenant of priority 10."
    assert [(g["verdict"], g["why"]) for g in answer["considered"]] == [
        ("decides", "It ranks first."),
        ("outranked", "Priority 0 is below 10."),
    ]
    assert answer["considered"][1]["groupName"] == "engineers"
    assert answer["considered"][1]["member"] == "anna"
    lifted = {"type": "mcp-server", "payload": "jira", "without": [answer["winner"]["grantId"]]}
    assert api.post("/tenants/anna/access", lifted).json()["decision"] == "allow"


def test_what_cuts_after_the_grants(api: ApiClient, db: None) -> None:
    anna = make_tenant("anna", team="red", mcp_policy={"deny": ["b"], "allow": []}, resource_labels={"x": "y"})
    for name in "abcde":
        make_server(name, anna)
    make_server("draft", anna, status="draft")
    make_server("not-granted")
    assert names(api) == ["a", "c", "d", "e"]
    assert explained(api, "b")["reason"] == "Denied by the tenant's mcpPolicy."
    assert explained(api, "draft")["reason"] == "The server is draft, not active."
    assert explained(api, "not-granted")["reason"] == "No grant gives it."
    assert explained(api, "no-such")["cuts"] == ["There is no such MCP server."]

    AccessPolicy.objects.create(name="one", tenant_selector={"matchTeam": "red"}, mcp_servers={"allow": ["a", "c"]})
    assert names(api) == ["a", "c"]
    assert explained(api, "d")["reason"] == "Not among what access policy one allows."
    AccessPolicy.objects.create(name="two", tenant_selector={"matchLabels": {"x": "y"}}, mcp_servers={"deny": ["c"]})
    assert names(api) == ["a"]
    policy = api.get("/tenants/anna/effective-contract").json()["mcp"]["policy"]
    assert policy == {"allow": ["a", "c"], "deny": ["b", "c"]}
    AccessPolicy.objects.create(name="named", mcp_servers={"deny": ["a"]})
    Tenant.objects.update(policy_ref="named")
    assert names(api) == ["c", "d", "e"]
    AccessPolicy.objects.update(deleting=True)
    assert names(api) == ["a", "c", "d", "e"]


@pytest.mark.parametrize(
    ("selector", "cuts"),
    [
        (None, False), ({}, True), ({"matchTeam": ""}, True), ({"matchTeam": "red"}, True),
        ({"matchTeam": "blue"}, False), ({"matchLabels": {}}, True), ({"matchLabels": {"x": "y"}}, True),
        ({"matchLabels": {"x": "z"}}, False), ({"matchLabels": {"x": "y", "q": "r"}}, False),
        ({"matchTeam": "red", "matchLabels": {"x": "y"}}, True),
        ({"matchTeam": "red", "matchLabels": {"a": "b"}}, False),
    ],
)  # fmt: skip
def test_policy_and_tenant_agree_on_who_is_picked(api: ApiClient, db: None, selector: Any, cuts: bool) -> None:
    """The look from the tenant and the look from the policy are two queries, and have to say the same."""
    anna = make_tenant("anna", team="red", resource_labels={"x": "y", "other": "z"})
    make_server("a", anna)
    AccessPolicy.objects.create(name="p", tenant_selector=selector, mcp_servers={"deny": ["a"]})
    assert (names(api) == []) == cuts
    assert bool(api.get("/policies/p/tenants").json()) == cuts


def test_allows_without_a_common_name_do_not_read_as_no_restriction(api: ApiClient, db: None) -> None:
    anna = make_tenant("anna", mcp_policy={"allow": ["a"]})
    make_server("a", anna)
    AccessPolicy.objects.create(name="p", tenant_selector={}, mcp_servers={"allow": ["b"]})
    mcp = api.get("/tenants/anna/effective-contract").json()["mcp"]
    assert (mcp["servers"], mcp["policy"]) == ([], {"allow": [], "deny": ["a", "b"]})


def test_the_id_depends_on_what_is_in_it_and_on_nothing_else(api: ApiClient, db: None) -> None:
    def contract_id() -> str:
        return str(api.get("/tenants/anna/effective-contract").json()["contractId"])

    def fill(order: int) -> None:
        anna = make_tenant("anna")
        for number in list(range(6))[::order]:
            server = UUID(int=number + 1)
            make_server(f"s{number}", id=server)
            group = make_group(f"g{number}", anna)
            make_grant(group, str(server), payload_type="mcp-server")
            make_grant(group, f"d{number}", listed_in=group)

    ids = []
    for order in (1, -1):
        fill(order)
        ids.append(contract_id())
        for model in (Grant, McpServer, Tenant):
            model.objects.all().delete()
        connection.cursor().execute("DELETE FROM policies_group")
    assert ids[0] == ids[1]

    fill(1)
    before = contract_id()
    make_server("not-mine")
    make_grant("berta@example.com", "hers")
    make_grant("anna@example.com", "d0", priority=-1)
    Tenant.objects.update(display_name="Another")
    McpServer.objects.update(description="x")
    assert contract_id() == before
    make_grant("anna@example.com", "d0", access="deny", priority=1)
    assert contract_id() != before


def test_the_contract_and_the_explanation_cost_the_same_whatever_there_is(api: ApiClient, db: None) -> None:
    def queries() -> tuple[int, int]:
        counts = []
        for path in ("/tenants/anna/effective-contract", "/tenants/anna/access?type=mcp-server&payload=s0"):
            with CaptureQueriesContext(connection) as captured:
                assert api.get(path).status_code == 200
            counts.append(len(captured))
        return counts[0], counts[1]

    anna = make_tenant("anna")
    make_server("s0", anna)
    before = queries()
    for number in range(1, 20):
        make_server(f"s{number}", make_group(f"g{number}", anna))
        AccessPolicy.objects.create(name=f"p{number}", tenant_selector={})
    assert queries() == before
    assert before[0] <= 6
    assert before[1] <= 4


@pytest.mark.parametrize(
    ("query", "field"),
    [("", "payload"), ("type=mcp-server", "payload"), ("type=magic&payload=x", "type"), ("payload=x", "type")],
)
def test_a_question_has_to_be_whole(api: ApiClient, db: None, query: str, field: str) -> None:
    make_tenant("anna")
    answer = api.get(f"/tenants/anna/access?{query}")
    assert answer.status_code == 400
    assert field in answer.json()["fields"]


def test_previews_are_checked_as_grants_are(api: ApiClient, db: None) -> None:
    make_tenant("anna")
    make_server("jira")
    ask = {"type": "mcp-server", "payload": "jira", "grant": {"subjectType": "group", "subjectName": "no"}}
    answer = api.post("/tenants/anna/access", ask)
    assert (answer.status_code, list(answer.json()["fields"])) == (422, ["grant.0.subjectName"])
    other = make_group("others")
    ask["grant"] = {"subjectType": "group", "subjectId": str(other.pk)}
    assert api.post("/tenants/anna/access", ask).json()["reason"] == "No grant gives it."
    mine = make_group("mine", "ANNA@example.com")
    ask["grant"] = {"subjectType": "group", "subjectId": str(mine.pk)}
    found = api.post("/tenants/anna/access", ask).json()
    assert found["reason"] == "Allowed by the previewed grant for group mine of priority 0."
    assert api.post("/tenants/nobody/access", ask).json()["code"] == "TENANT_NOT_FOUND"


def test_other_payloads_are_explained_too(api: ApiClient, db: None) -> None:
    anna = make_tenant("anna")
    make_grant(anna, "handbook")
    handbook = api.get("/tenants/anna/access?type=awareness&payload=handbook").json()
    assert (handbook["decision"], handbook["payload"]["name"]) == ("allow", "handbook")
    assert api.get("/tenants/anna/access?type=skill-bundle&payload=x").json()["decision"] == "deny"
