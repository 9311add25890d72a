"""Console pages of MCP servers."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Role
from accounts.tests.people import signed_in
from mcpservers.models import McpCredential, McpServer
from mcpservers.probing import Finding
from mcpservers.services.probes import record_finding
from operations.models import AuditEntry
from policies.models import Grant
from policies.tests.factories import make_grant, make_group, make_tenant
from policies.tests.test_console import grant_row, text_of

pytestmark = pytest.mark.django_db

NASTY = '<script>alert("x")</script>'
GOOD = Finding(ok=True, latency_ms=12.5, server_name="Finder", server_version="1.2", protocol_version="2025-06-18",
               tools=[{"name": "find", "description": NASTY}])  # fmt: skip
BAD = Finding(ok=False, error="It cannot be connected to.")


def make_server(name: str = "search", **values: Any) -> McpServer:
    defaults = {"endpoint": "https://mcp.example.com/", "transport": "streamable-http", "status": "active"}
    return McpServer.objects.create(name=name, **defaults | values)


def url_of(server: McpServer, rest: str = "") -> str:
    return f"/admin/mcp-servers/{server.pk}/{rest}"


def form_of(**values: str) -> dict[str, str]:
    defaults = {"name": "search", "endpoint": "https://mcp.example.com/", "transport": "streamable-http"}
    return defaults | {"status": "draft", "scope": "org"} | values


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.OPERATOR)


@pytest.fixture
def viewer() -> Client:
    return signed_in(Role.VIEWER)


def test_viewers_see_all_of_it_and_may_post_nothing(viewer: Client) -> None:
    server = make_server()
    McpCredential.objects.create(server=server, display_name="key", secret_ref="search-key")
    make_grant(make_tenant("anna"), str(server.pk), payload_type="mcp-server")
    for rest in ("", "?tab=grants", "?tab=credentials", "?tab=tools", "?tab=probes", "?tab=audit"):
        text = text_of(viewer, url_of(server, rest))
        assert re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', text) == ["/admin/logout/"], rest
    for rest in ("edit/", "grants/", "credentials/", "do/probe/", "do/delete/", "do/remove-credential/"):
        assert viewer.post(url_of(server, rest), {"confirm": "search", "generation": "1"}).status_code == 403
    assert viewer.post("/admin/new-mcp-server/", form_of()).status_code == 403
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("path", ["/admin/mcp-servers/", "", "?tab=grants", "?tab=credentials", "?tab=probes", "edit/"])
def test_queries_do_not_grow(admin: Client, path: str) -> None:
    counts = []
    tenants = [make_tenant(f"t{number}") for number in range(40)]
    for size in (2, 40):
        McpServer.objects.all().delete()
        Grant.objects.all().delete()
        servers = [make_server(f"search{number}") for number in range(size)]
        for number in range(size):
            record_finding(servers[0], GOOD)
            make_grant(tenants[number], str(servers[0].pk), payload_type="mcp-server")
            McpCredential.objects.create(server=servers[0], display_name=f"key {number}", secret_ref="search-key")
        with CaptureQueriesContext(connection) as queries:
            text_of(admin, path if path.startswith("/") else url_of(servers[0], path))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_the_list_shows_health_status_and_the_last_probe(admin: Client) -> None:
    well, ill = make_server("well"), make_server("ill")
    make_server("new", status="draft", transport="sse")
    record_finding(well, GOOD)
    for _ in range(3):
        record_finding(ill, BAD)
    make_grant("bert@example.com", str(well.pk), payload_type="mcp-server")

    def found(query: str) -> list[str]:
        rows = re.findall(
            r'data-label="Name"><a href="[^"]+">([^<]+)</a>', text_of(admin, f"/admin/mcp-servers/?{query}")
        )
        return sorted(rows)

    assert found("health=healthy") == ["well"]
    assert found("health=unhealthy") == ["ill"]
    assert found("health=unknown") == found("status=draft") == found("transport=sse") == ["new"]
    assert found("q=MCP.example") == ["ill", "new", "well"]
    text = text_of(admin, "/admin/mcp-servers/?health=healthy")
    assert "13 ms" in text
    assert "1 grant" in text


def test_a_server_is_made_changed_after_a_look_and_deleted(admin: Client) -> None:
    wrong = admin.post("/admin/new-mcp-server/", form_of(endpoint="ws://mcp.example.com/", capabilities="[1"))
    assert wrong.status_code == 400
    assert "Neither JSON nor YAML" in wrong.content.decode()
    wrong = admin.post("/admin/new-mcp-server/", form_of(endpoint="ws://mcp.example.com/"))
    assert "Has to start with http:// or https://" in wrong.content.decode()
    assert admin.post("/admin/new-mcp-server/", form_of(capabilities="- find\n- read")).status_code == 302
    server = McpServer.objects.get()
    assert server.capabilities == ["find", "read"]

    raw = form_of(capabilities='["find", "read"]', endpoint="https://other.example.com/", generation="1")
    review = admin.post(url_of(server, "edit/"), raw | {"step": "review"}).content.decode()
    assert "1 field of search will change" not in review  # the text of the list differs, its value does not
    assert "what probes have found out so far is void" in review
    assert admin.post(url_of(server, "edit/"), raw | {"step": "save"}).status_code == 302
    assert McpServer.objects.get().endpoint == "https://other.example.com/"
    assert admin.post(url_of(server, "edit/"), raw | {"step": "save", "name": "x"}).status_code == 412

    admin.post(url_of(server, "do/delete/"), {"confirm": "searhc", "generation": "2"})
    assert McpServer.objects.exists()
    assert admin.get("/admin/mcp-server-named/search/")["Location"] == url_of(server)
    admin.post(url_of(server, "do/delete/"), {"confirm": "search", "generation": "2"})
    assert not McpServer.objects.exists()
    assert admin.get("/admin/mcp-server-named/search/").status_code == 404


def test_grants_are_edited_in_place_and_mistakes_shown_at_their_row(admin: Client) -> None:
    server, group = make_server(), make_group("engineers")
    make_tenant("anna")
    rows = [
        grant_row(subjectType="group", subjectName="engineers", priority="3"),
        grant_row(subjectType="tenant", subjectName="nobody", access="deny"),
        grant_row(subjectType="tenant"),
    ]
    form = {name: [row[name] for row in rows] for name in rows[0]} | {"generation": ["1"]}
    answer = admin.post(url_of(server, "grants/"), form)
    assert answer.status_code == 422
    text = answer.content.decode()
    assert "There is no tenant nobody." in text.partition('aria-label="Subject of grant 2"')[2].partition("</td>")[0]
    assert not Grant.objects.exists()
    form["grant.subjectName"][1] = "anna"
    assert admin.post(url_of(server, "grants/"), form)["Location"] == url_of(server, "?tab=grants")
    assert set(Grant.objects.values_list("tenant__name", "group__name", "access", "priority")) == {
        (None, "engineers", "allow", 3),
        ("anna", None, "deny", 0),
    }
    assert set(Grant.objects.values_list("payload_id", flat=True)) == {str(server.pk)}
    stale = admin.post(url_of(server, "grants/"), form)
    assert stale.status_code == 412
    assert "Somebody else changed it" in stale.content.decode()
    group.delete()


def test_credentials_are_references_and_a_secret_typed_in_does_not_come_back(admin: Client) -> None:
    server = make_server()
    secret = "sk-" + "a1B2c3D4" * 6
    refused = admin.post(url_of(server, "credentials/"), {"displayName": "key", "secretRef": secret})
    assert refused.status_code == 400
    assert secret not in refused.content.decode()
    assert 'id="f-secretRef" name="secretRef" value=""' in refused.content.decode()
    values = {"displayName": "key", "brokeringMode": "static", "secretRef": "search-key#token"}
    assert admin.post(url_of(server, "credentials/"), values).status_code == 302
    assert "search-key#token" in text_of(admin, url_of(server, "?tab=credentials"))
    credential = McpCredential.objects.get()
    admin.post(url_of(server, "do/remove-credential/"), {"credential": str(credential.pk)})
    assert not McpCredential.objects.exists()


def test_a_probe_that_was_asked_for_shows_as_queued_until_it_has_ended(admin: Client) -> None:
    server = make_server(status="draft")
    assert "hx-trigger" not in text_of(admin, url_of(server))
    asked = admin.post(url_of(server, "do/probe/"), follow=True).content.decode()
    assert "a probe is queued; waiting for a worker and its answer" in asked
    waiting = admin.get(url_of(server, "?part=header"))
    assert 'hx-trigger="every 2s"' in waiting.content.decode()
    assert "HX-Refresh" not in waiting
    server.refresh_from_db()
    record_finding(server, GOOD)
    ended = admin.get(url_of(server, "?part=header"))
    assert ended["HX-Refresh"] == "true"
    assert "Healthy" in ended.content.decode()
    tools = text_of(admin, url_of(server, "?tab=tools"))
    assert "1 tool" in tools
    assert NASTY not in tools
    record_finding(server, BAD)
    history = text_of(admin, url_of(server, "?tab=probes"))
    assert history.index("It cannot be connected to.") < history.index("Answered")


def test_servers_that_speak_websocket_offer_no_probe(admin: Client) -> None:
    server = make_server(transport="websocket", endpoint="wss://mcp.example.com/")
    text = text_of(admin, url_of(server))
    assert "Probe now" not in text
    assert "are not probed" in text
    answer = admin.post(url_of(server, "do/probe/"), follow=True)
    assert "Servers that speak WebSocket are not probed." in answer.content.decode()
