"""Probes speak to real MCP servers made with the SDK, and go nowhere they may not."""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from conftest import ApiClient
from mcpservers import probing
from mcpservers.models import McpHealth, McpProbe, McpServer
from mcpservers.probing import Finding, probe
from mcpservers.services import probes
from opencrane.outbound import RefusedAddressError, guarded_client, refusal

LOCAL = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def serve_mcp(transport: str) -> Iterator[str]:
    server = MCPServer("weather", version="7.1")

    @server.tool()
    def forecast(city: str) -> str:
        """What the weather will be."""
        return f"Rain in {city}"

    @server.tool()
    def alerts() -> str:
        """Storms that come."""
        return "none"

    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(runner.serve(sockets=[listener])), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/{'sse' if transport == 'sse' else 'mcp'}"
    runner.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture(scope="module")
def http_server() -> Iterator[str]:
    yield from serve_mcp("streamable-http")


@pytest.fixture(scope="module")
def sse_server() -> Iterator[str]:
    yield from serve_mcp("sse")


class Answering:
    """An HTTP server that is no MCP server."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.headers, self.body = 200, {"Content-Type": "application/json"}, b"{}"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(self.path)
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(outer.body)

            do_GET = do_DELETE = do_POST  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/mcp"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def answering() -> Iterator[Answering]:
    stub = Answering()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
def test_a_real_server_is_understood(http_server: str, sse_server: str, transport: str) -> None:
    found = probe(sse_server if transport == "sse" else http_server, transport, LOCAL)
    assert (found.ok, found.error) == (True, "")
    assert (found.server_name, found.server_version) == ("weather", "7.1")
    assert found.tools == [
        {"name": "alerts", "description": "Storms that come."},
        {"name": "forecast", "description": "What the weather will be."},
    ]
    assert found.latency_ms is not None
    assert found.protocol_version


def test_loopback_is_refused_unless_allowed(http_server: str) -> None:
    found = probe(http_server, "streamable-http", ())
    assert (found.ok, "loopback" in found.error) == (False, True)
    by_name = probe(http_server.replace("127.0.0.1", "localhost"), "streamable-http", ())
    assert (by_name.ok, "loopback" in by_name.error) == (False, True)


def test_the_address_that_was_judged_is_the_one_that_is_used(http_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that first resolves to a good address and then to loopback is asked once, so the second never counts."""
    real, asked = socket.getaddrinfo, []

    def changing(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "rebind.example":
            asked.append(host)
            address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    monkeypatch.setattr(probing, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(probing, "TIMEOUT_SECONDS", 1.0)
    found = probe(http_server.replace("127.0.0.1", "rebind.example"), "streamable-http", ())
    assert not found.ok
    assert "loopback" in found.error or "connected" in found.error or "answer" in found.error


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1", "loopback"), ("::1", "loopback"), ("::ffff:127.0.0.1", "loopback"), ("0.0.0.0", "unspecified"),  # noqa: S104
        ("::", "unspecified"), ("0.1.2.3", "unspecified"), ("169.254.169.254", "link-local"), ("fe80::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"), ("64:ff9b::a9fe:a9fe", "link-local"), ("2002:7f00:1::", "loopback"),
        ("224.0.0.1", "multicast"), ("ff02::1", "multicast"), ("255.255.255.255", "broadcast"),
        ("100.100.100.200", "metadata"), ("168.63.129.16", "metadata"), ("fd00:ec2::254", "metadata"),
        ("10.1.2.3", ""), ("192.168.1.1", ""), ("fd12::1", ""), ("93.184.216.34", ""), ("2606:4700::1111", ""),
    ],
)  # fmt: skip
def test_which_addresses_are_refused(text: str, why: str) -> None:
    address = ipaddress.ip_address(text)
    assert (why in refusal(address)) if why else (refusal(address) == "")
    assert refusal(address, [ipaddress.ip_network(text)]) == ""


def test_the_client_for_webhooks_judges_too(answering: Answering) -> None:
    with guarded_client() as client, pytest.raises(RefusedAddressError, match="loopback"):
        client.post(answering.url)
    assert answering.asked == []
    with guarded_client(LOCAL) as client:
        assert client.post(answering.url.replace("127.0.0.1", "localhost")).status_code == 200
        answering.status, answering.headers = 302, {"Location": "http://169.254.169.254/latest"}
        assert client.post(answering.url).status_code == 302
        assert client.post(answering.url).next_request is not None
    with guarded_client() as client, pytest.raises(httpx.ConnectError, match="resolved"):
        client.get("http://no-such-name.invalid/")


def test_a_redirect_to_elsewhere_is_not_followed(answering: Answering, http_server: str) -> None:
    answering.status, answering.headers = 307, {"Location": http_server}
    found = probe(answering.url, "streamable-http", LOCAL)
    assert (found.ok, "307" in found.error) == (False, True), found


@pytest.mark.parametrize(
    ("status", "headers", "body", "ok", "words"),
    [
        (500, {}, b"", False, "status 500"),
        (404, {}, b"", False, "status 404"),
        (200, {"Content-Type": "text/html"}, b"<html>", False, ""),
        (200, {"Content-Type": "application/json"}, b"[" * 100, False, ""),
        (401, {"WWW-Authenticate": "Bearer"}, b"", True, "credentials"),
        (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"\x1f\x8b", False, ""),
    ],
)
def test_what_does_not_speak_mcp_is_said_in_a_sentence(
    answering: Answering,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: Any,
    body: bytes,
    ok: bool,
    words: str,
) -> None:
    monkeypatch.setattr(probing, "TIMEOUT_SECONDS", 3.0)
    answering.status, answering.headers, answering.body = status, headers, body
    found = probe(answering.url, "streamable-http", LOCAL)
    assert (found.ok, words in found.error, bool(found.error)) == (ok, True, True), found


def test_more_than_the_limit_is_not_read(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MAX_BYTES", 10_000)
    answering.body = b'{"jsonrpc": "' + b"x" * 100_000 + b'"}'
    found = probe(answering.url, "streamable-http", LOCAL)
    assert (found.ok, found.error) == (False, "It sent more than 10000 bytes.")


def make_server(**values: Any) -> McpServer:
    defaults = {"name": "s", "endpoint": "https://x.example/mcp", "transport": "streamable-http", "status": "active"}
    return McpServer.objects.create(**defaults | values)


def test_health_changes_its_word_only_when_probes_agree(db: None) -> None:
    server = make_server()
    seen = []
    for letter in "+--+--++---+-++":
        probes.record_finding(server, Finding(ok=letter == "+", error="" if letter == "+" else "no"))
        seen.append({"healthy": "+", "unhealthy": "-", "unknown": "?"}[McpHealth.objects.get().state])
    assert "".join(seen) == "++++++++++----+"
    first_bad = make_server(name="bad")
    for _ in range(2):
        probes.record_finding(first_bad, Finding(ok=False, error="no"))
    assert McpHealth.objects.get(server=first_bad).state == "unknown"
    server.refresh_from_db()
    assert server.status == "active"


def test_what_speaks_websocket_is_not_probed(api: ApiClient, db: None) -> None:
    server = make_server(transport="websocket", endpoint="wss://x.example/mcp")
    assert probes.start_due() == 0
    assert api.post(f"/mcp-servers/{server.pk}/probe").status_code == 409
    assert probes.probe_server(server_id=server.pk) is None


def test_history_is_kept_short(db: None) -> None:
    server = make_server()
    for _ in range(probes.KEPT_PROBES + 5):
        probes.record_finding(server, Finding(ok=True, latency_ms=1.5, tools=[]))
    assert McpProbe.objects.count() == probes.KEPT_PROBES


def test_a_finding_about_an_endpoint_of_before_is_dropped(db: None) -> None:
    before = make_server()
    McpServer.objects.update(endpoint="https://y.example/mcp")
    assert not probes.record_finding(before, Finding(ok=True))
    assert not McpHealth.objects.exists()


def test_probing_by_the_api_and_by_the_sweep(
    api: ApiClient, transactional_db: None, settings: Any, http_server: str
) -> None:
    settings.PROBE_ALLOW = LOCAL
    body = {"name": "weather", "endpoint": http_server, "transport": "streamable-http"}
    path = "/mcp-servers/" + api.post("/mcp-servers", body).json()["id"]
    assert probes.start_due() == 0
    assert api.get(path).json()["health"] == "unknown"
    answer = api.post(f"{path}/probe")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    server = api.get(path).json()
    assert (server["health"], server["status"]) == ("healthy", "draft")
    assert [tool["name"] for tool in server["tools"]] == ["alerts", "forecast"]
    assert (server["probe"]["serverVersion"], server["probe"]["toolCount"]) == ("7.1", 2)
    api.put(path, {"status": "active"})
    assert probes.start_due() == 1
    assert probes.start_due() == 0
    history = api.get(f"{path}/probes?limit=1")
    assert [(entry["ok"], entry["toolCount"]) for entry in history.json()] == [(True, 2)]
    assert "next" in history["Link"]
    moved = api.put(path, {"endpoint": http_server + "/elsewhere"}).json()
    assert (moved["health"], moved["tools"], moved["probe"]["serverVersion"]) == ("unknown", [], None)
    assert probes.start_due() == 1
    assert api.get(path).json()["probe"]["failures"] == 1
