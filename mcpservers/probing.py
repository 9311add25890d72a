"""One probe: speak MCP to an endpoint with the official SDK, and say what it is.

The SDK is imported where it is used: only workers probe, and it is large. Every connection goes to an address that was
judged (opencrane/outbound.py), within limits of time and size, without credentials and without following redirects to
elsewhere.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from opencrane.addresses import Network
from opencrane.outbound import RefusedAddressError, addresses_of, judged

TIMEOUT_SECONDS = 15.0
CONNECT_SECONDS = 5.0
MAX_BYTES = 4 * 1024 * 1024
MAX_TOOLS = 500
MAX_PAGES = 20
MAX_TEXT = 500


@dataclass(frozen=True)
class Finding:
    """What a probe found.

    Attributes:
        latency_ms: how long it took to shake hands.
        tools: `{name, description}`; None when they could not be listed.
        error: why it failed, or what is missing in a success; a sentence without secrets.
    """

    ok: bool
    latency_ms: float | None = None
    server_name: str = ""
    server_version: str = ""
    protocol_version: str = ""
    tools: list[dict[str, Any]] | None = None
    error: str = ""


@dataclass
class _Traffic:
    """What came over the wire during one probe."""

    left: int
    refusal: str = ""
    statuses: list[int] = field(default_factory=list)


def probe(endpoint: str, transport: str, allowed: tuple[Network, ...]) -> Finding:
    """Shake hands with an MCP server and list its tools; never raises for what the other side does.

    Args:
        transport: `streamable-http` or `sse`; the SDK speaks no WebSocket.
    """
    return asyncio.run(_probe(endpoint, transport, allowed))


async def _probe(endpoint: str, transport: str, allowed: tuple[Network, ...]) -> Finding:
    traffic = _Traffic(left=MAX_BYTES)
    known: dict[str, Any] = {}
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await _converse(endpoint, transport, allowed, traffic, known)
        return Finding(ok=True, **known)
    except TimeoutError:
        error = f"No answer within {TIMEOUT_SECONDS:g} s."
    except Exception as exc:  # noqa: BLE001 - the SDK and what the server makes of it raise all sorts, groups included
        error = _sentence(exc)
    if traffic.refusal:
        error = traffic.refusal
    elif traffic.left <= 0:
        error = f"It sent more than {MAX_BYTES} bytes."
    elif 401 in traffic.statuses or 403 in traffic.statuses:
        # It is there and does its work; probes carry no credentials.
        known.setdefault("latency_ms", None)
        return Finding(ok=True, error="It asks for credentials, so its tools are not known.", **known)
    elif bad := [status for status in traffic.statuses if status >= 300]:
        error = f"It answered with HTTP status {bad[-1]}."
    return Finding(ok=False, error=error[:MAX_TEXT], latency_ms=known.get("latency_ms"))


async def _converse(
    endpoint: str, transport: str, allowed: tuple[Network, ...], traffic: _Traffic, known: dict[str, Any]
) -> None:
    from mcp.client import Client
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client

    began = time.perf_counter()
    http = _http_client(allowed, traffic)
    async with http:
        if transport == "sse":
            streams: Any = sse_client(
                endpoint,
                timeout=CONNECT_SECONDS,
                sse_read_timeout=TIMEOUT_SECONDS,
                httpx_client_factory=lambda *_args, **_kwargs: _http_client(allowed, traffic),
            )
        else:
            streams = streamable_http_client(endpoint, http_client=http, max_sse_event_size=MAX_BYTES)
        async with Client(streams, mode="auto", read_timeout_seconds=TIMEOUT_SECONDS) as client:
            known["latency_ms"] = round((time.perf_counter() - began) * 1000, 1)
            known["protocol_version"] = str(client.protocol_version)[:40]
            if client.server_info is not None:
                known["server_name"] = client.server_info.name[:200]
                known["server_version"] = client.server_info.version[:200]
            known["tools"] = await _tools(client) if client.server_capabilities.tools is not None else []


async def _tools(client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += [
            {"name": tool.name[:200], "description": (tool.description or "")[:MAX_TEXT] or None} for tool in page.tools
        ]
        cursor = page.next_cursor
        if not cursor or len(found) >= MAX_TOOLS:
            break
    # PostgreSQL holds no NUL characters.
    clean = [{key: text and text.replace("\x00", "") for key, text in tool.items()} for tool in found[:MAX_TOOLS]]
    return sorted(clean, key=lambda tool: str(tool["name"]))


def _http_client(allowed: tuple[Network, ...], traffic: _Traffic) -> Any:
    import httpcore2
    import httpx2

    class Backend(httpcore2.AnyIOBackend):
        async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses = judged(host, addresses_of(found), allowed)
            except RefusedAddressError as exc:
                traffic.refusal = str(exc)
                raise httpcore2.ConnectError(str(exc)) from exc
            except OSError as exc:
                traffic.refusal = f"{host} cannot be resolved."
                raise httpcore2.ConnectError(traffic.refusal) from exc
            failure: Exception | None = None
            for address in addresses:
                try:
                    return await super().connect_tcp(address, port, *args, **kwargs)
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                    failure = exc
            raise failure or httpcore2.ConnectError("no address")

    class Counted(httpx2.AsyncByteStream):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self.inner:
                traffic.left -= len(chunk)
                if traffic.left <= 0:
                    raise httpx2.ReadError("too much")
                yield chunk

        async def aclose(self) -> None:
            await self.inner.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            traffic.statuses.append(response.status_code)
            if response.headers.get("content-encoding", "identity") != "identity":
                # We asked for none; a few bytes could unpack to gigabytes.
                await response.aclose()
                raise httpx2.ReadError("compressed though not asked for")
            response.stream = Counted(response.stream)
            return response

    transport = Transport(trust_env=False)
    # As in opencrane/outbound.py: the pool takes a network backend, its wrapper does not.
    transport._pool = httpcore2.AsyncConnectionPool(
        ssl_context=httpx2.create_ssl_context(trust_env=False), network_backend=Backend()
    )
    return httpx2.AsyncClient(
        transport=transport,
        timeout=httpx2.Timeout(CONNECT_SECONDS, read=TIMEOUT_SECONDS),
        headers={"Accept-Encoding": "identity", "User-Agent": "opencrane-probe"},
        trust_env=False,
        follow_redirects=False,
    )


def _sentence(exc: BaseException) -> str:
    """What went wrong at the root, without URLs."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    from mcp.shared.exceptions import MCPError

    if isinstance(exc, MCPError):
        return f"It answered with an MCP error: {exc.message}"
    names = {"ConnectError": "It cannot be connected to.", "ConnectTimeout": "It cannot be connected to in time."}
    return names.get(type(exc).__name__, f"It does not speak MCP as expected: {type(exc).__name__}.")
