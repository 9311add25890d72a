"""MCP servers by the API: full answers, grants, credentials by reference only."""

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import ApiClient
from mcpservers.models import McpCredential, McpServer
from opencrane import secretrefs
from operations.models import AuditEntry
from policies.models import Grant
from policies.tests.factories import make_grant, make_group, make_tenant

JIRA: dict[str, Any] = {"name": "jira", "endpoint": "https://jira.example.com/mcp", "transport": "streamable-http"}


def test_a_server_by_the_api(api: ApiClient, db: None) -> None:
    make_tenant("anna")
    group = make_group("engineers")
    body = JIRA | {
        "capabilities": {"tools": True},
        "grants": [
            {"subjectType": "group", "subjectName": "engineers", "access": "allow"},
            {"subjectType": "tenant", "subjectName": "anna", "access": "deny", "priority": 3, "note": "until May"},
            {"subjectType": "user", "subjectId": "Berta@Example.com"},
        ],
        "credentials": [
            {"displayName": "bot", "secretRef": "tools/jira-bot#token"},
            {"displayName": "people", "brokeringMode": "obo"},
        ],
    }
    answer = api.post("/mcp-servers", body)
    assert answer.status_code == 201, answer.json()
    server = answer.json()
    assert (server["scope"], server["status"], server["health"]) == ("org", "draft", "unknown")
    assert {(g["subjectType"], g["subjectName"], g["access"]) for g in server["grants"]} == {
        ("tenant", "anna", "deny"),
        ("user", "berta@example.com", "allow"),
        ("group", "engineers", "allow"),
    }
    assert server["grants"][0]["priority"] == 3
    assert all(grant["payloadId"] == server["id"] for grant in server["grants"])
    assert [(c["displayName"], c["brokeringMode"], c["secretRef"]) for c in server["credentials"]] == [
        ("bot", "static", "tools/jira-bot#token"),
        ("people", "obo", None),
    ]
    path = f"/mcp-servers/{server['id']}"
    read = api.get(path)
    assert read.json() == server
    assert api.get(path, headers={"If-None-Match": read["ETag"]}).status_code == 304
    [item] = api.get("/mcp-servers").json()
    assert item == {key: value for key, value in server.items() if key != "tools"}

    writable = ("name", "endpoint", "transport", "description", "scope", "status", "capabilities", "sourceId")
    back = {key: server[key] for key in (*writable, "grants", "credentials")}
    assert api.put(path, back).json() == server
    assert AuditEntry.objects.count() == 1

    changed = api.put(path, {"status": "active", "grants": server["grants"][2:], "credentials": []}).json()
    assert (changed["status"], changed["grants"], changed["credentials"]) == ("active", server["grants"][2:], [])
    assert api.put(path, {"status": None}).json()["status"] == "draft"
    assert api.put(path, {"status": "active"}, headers={"If-Match": read["ETag"]}).status_code == 412
    assert api.post("/mcp-servers", JIRA).json()["code"] == "MCP_SERVER_EXISTS"

    group.delete()
    assert "group" not in {grant["subjectType"] for grant in api.get(path).json()["grants"]}
    make_grant("x@example.com", str(server["id"]), payload_type="mcp-server")
    assert api.delete(path).json() == {"id": server["id"], "status": "deleted"}
    assert api.get(path).json()["code"] == "MCP_SERVER_NOT_FOUND"
    assert not Grant.objects.exists()


def test_credentials_by_the_api(api: ApiClient, db: None) -> None:
    path = "/mcp-servers/" + api.post("/mcp-servers", JIRA).json()["id"]
    bot = api.post(f"{path}/credentials", {"displayName": "bot", "brokeringMode": "static", "secretRef": "jira-bot"})
    assert bot.status_code == 201
    assert bot.json()["secretRef"] == "jira-bot"
    assert api.get(f"{path}/credentials").json() == [bot.json()]
    assert api.get(path).json()["credentials"] == [bot.json()]
    kept = api.put(path, {"credentials": [{"id": bot.json()["id"], "displayName": "robot", "secretRef": "jira-bot"}]})
    assert kept.json()["credentials"] == [bot.json() | {"displayName": "robot"}]
    assert api.delete(f"{path}/credentials/{uuid4()}").json()["code"] == "MCP_CREDENTIAL_NOT_FOUND"
    assert api.delete(f"{path}/credentials/nonsense").json()["code"] == "MCP_CREDENTIAL_NOT_FOUND"
    gone = api.delete(f"{path}/credentials/{bot.json()['id']}")
    assert gone.json() == {"id": bot.json()["id"], "status": "deleted"}
    assert api.get(f"{path}/credentials").json() == []
    assert api.get(f"/mcp-servers/{uuid4()}/credentials").json()["code"] == "MCP_SERVER_NOT_FOUND"
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions == [
        "mcp_server.created",
        "mcp_server.credential_added",
        "mcp_server.updated",
        "mcp_server.credential_removed",
    ]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"endpoint": "jira.example.com/mcp"}, 400, "endpoint"),
        ({"endpoint": "ws://jira.example.com/mcp"}, 400, "endpoint"),
        ({"transport": "websocket"}, 400, "endpoint"),
        ({"endpoint": "https:///mcp"}, 400, "endpoint"),
        ({"endpoint": "https://user:pass@jira.example.com/mcp"}, 400, "endpoint"),
        ({"endpoint": "https://jira.example.com:99999/mcp"}, 400, "endpoint"),
        ({"endpoint": "https://256.1.1.1/mcp"}, 400, "endpoint"),
        ({"endpoint": "https://jira.example.com/a b"}, 400, "endpoint"),
        ({"transport": "stdio"}, 400, "transport"),
        ({"status": "healthy"}, 400, "status"),
        ({"capabilities": "tools"}, 400, "capabilities"),
        ({"grants": [{"subjectType": "group", "subjectName": "no"}]}, 422, "grants.0.subjectName"),
        ({"grants": [{"subjectType": "group", "subjectId": str(uuid4())}]}, 422, "grants.0.subjectId"),
        ({"grants": [{"subjectType": "tenant", "subjectName": "no"}]}, 422, "grants.0.subjectName"),
        ({"grants": [{"access": "allow"}]}, 400, "grants.0.subjectType"),
        ({"grants": [{"subjectType": "user", "subjectId": "a", "payloadId": "x"}]}, 400, "grants.0.payloadId"),
        ({"credentials": [{"displayName": "bot"}]}, 400, "credentials.0.secretRef"),
        (
            {"credentials": [{"displayName": "b", "brokeringMode": "obo", "secretRef": "x"}]},
            400,
            "credentials.0.secretRef",
        ),
        ({"credentials": [{"displayName": "bot", "secretRef": "Not A Name"}]}, 400, "credentials.0.secretRef"),
        ({"credentials": [{"displayName": "bot", "secretRef": "sk-abcdefghijkl"}]}, 400, "credentials.0.secretRef"),
        ({"credentials": [{"secretRef": "x"}]}, 400, "credentials.0.displayName"),
        ({"creds": []}, 400, "creds"),
    ],
)  # fmt: skip
def test_bad_input_is_named(api: ApiClient, db: None, body: Any, status: int, field: str) -> None:
    answer = api.post("/mcp-servers", JIRA | body)
    assert (answer.status_code, list(answer.json()["fields"])) == (status, [field]), answer.json()
    assert not McpServer.objects.exists()
    assert not McpCredential.objects.exists()


def test_endpoint_and_transport_have_to_fit_after_a_merge(api: ApiClient, db: None) -> None:
    path = "/mcp-servers/" + api.post("/mcp-servers", JIRA).json()["id"]
    assert list(api.put(path, {"transport": "websocket"}).json()["fields"]) == ["endpoint"]
    both = {"transport": "websocket", "endpoint": "wss://jira.example.com/mcp"}
    assert api.put(path, both).json()["transport"] == "websocket"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abc",
        "sk-ant-api03-xyz",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "xoxb-1-2-abc",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "-----BEGIN PRIVATE KEY-----\nMIIE",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "tools/jira#4f7K2mQ9xZ1pL8vR3nT6wY5b",
        "dGhpc2lzYXZlcnlzZWNyZXR0b2tlbg==",
        "Bearer abc",
        "qWeRtYuIoPaSdFgHjKlZxCvBnM",
    ],
)
def test_a_secret_in_place_of_a_reference_is_refused_and_not_repeated(api: ApiClient, db: None, secret: str) -> None:
    path = "/mcp-servers/" + api.post("/mcp-servers", JIRA).json()["id"]
    answer = api.post(f"{path}/credentials", {"displayName": "bot", "secretRef": secret})
    assert answer.status_code == 400
    [reason] = answer.json()["fields"]["secretRef"]
    assert "looks like a secret" in reason
    assert "secret-name" in reason
    assert secret not in answer.content.decode()


@pytest.mark.parametrize(
    "reference",
    [
        "jira", "jira-bot", "tools/jira-bot", "tools/jira-bot#token", "jira-bot#API_KEY", "jira-bot#tls.crt",
        "openclaw-customer-support-litellm-key", "jira-bot-5f7d8c9b6", "default-token-x7k2p", "a.b.c/#".rstrip("/#"),
        "opencrane-provider-keys#OPENAI_ORGANIZATION_API_KEY", "skill-registry", "team-1/risk-engine-2024-credentials",
    ],
)  # fmt: skip
def test_references_pass(reference: str) -> None:
    assert secretrefs.check_reference(reference) == reference


def test_the_list_costs_one_query_whatever_is_in_it(api: ApiClient, db: None) -> None:
    group = make_group("g")
    for number in range(6):
        server = McpServer.objects.create(name=f"s{number}", endpoint="https://x", transport="sse", status="active")
        make_grant(group, str(server.pk), payload_type="mcp-server")
        McpCredential.objects.create(server=server, display_name="c", secret_ref="r")
    for path, count in (
        ("", 6),
        ("?limit=4", 4),
        ("?q=S5", 1),
        ("?status=active&health=unknown", 6),
        ("?scope=org", 6),
    ):
        with CaptureQueriesContext(connection) as captured:
            found = api.get(f"/mcp-servers{path}")
        assert [(len(s["grants"]), len(s["credentials"])) for s in found.json()] == [(1, 1)] * count
        assert len(captured) == 1
