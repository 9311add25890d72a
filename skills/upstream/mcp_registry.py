"""An MCP registry's list of servers.

Source: https://github.com/modelcontextprotocol/registry, docs/reference/api/openapi.yaml and
docs/reference/server-json/generic-server-json.md: `GET /v0/servers` with `cursor`, `limit` and `version=latest`.
"""

import hashlib
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from mcpservers.rules import check_endpoint
from opencrane.addresses import Network
from opencrane.outbound import RefusedAddressError, guarded_client
from skills.upstream.found import Found, SourceError, text_of

PAGE = 100
MAX_PAGES = 500
PAGE_BYTES = 8 * 1024 * 1024
REQUEST_SECONDS = 15.0
TOTAL_SECONDS = 600.0
OFFICIAL = "io.modelcontextprotocol.registry/official"
_TRANSPORTS = ("streamable-http", "sse")


def read_servers(url: str, allowed: tuple[Network, ...]) -> Iterator[Found]:
    """The latest version of every server that a registry lists.

    Args:
        url: of the registry; `/v0/servers` is added unless it ends so already.

    Raises:
        SourceError: it may not be connected to, does not answer, or answers something else.
    """
    address = url.rstrip("/")
    if not address.endswith(("/v0/servers", "/v0.1/servers")):
        address += "/v0/servers"
    deadline = time.monotonic() + TOTAL_SECONDS
    seen: set[str] = set()
    cursors: set[str] = set()
    cursor = ""
    with guarded_client(allowed, timeout_seconds=REQUEST_SECONDS) as client:
        for _ in range(MAX_PAGES):
            page = _page(client, address, cursor)
            entries = page.get("servers")
            if not isinstance(entries, list):
                raise SourceError("It answers, but with no list of servers.")
            for entry in entries:
                found = _found(entry)
                if found is not None and found.upstream_id not in seen:
                    seen.add(found.upstream_id)
                    yield found
            cursor = _next_cursor(page)
            if not cursor:
                return
            if cursor in cursors:
                raise SourceError("Its pages lead in a circle.")
            cursors.add(cursor)
            if time.monotonic() > deadline:
                raise SourceError(f"Reading it takes longer than {TOTAL_SECONDS:g} s.")
    raise SourceError(f"It has more than {MAX_PAGES} pages.")


def _page(client: httpx.Client, address: str, cursor: str) -> dict[str, Any]:
    query = {"limit": str(PAGE), "version": "latest"} | ({"cursor": cursor} if cursor else {})
    deadline = time.monotonic() + 2 * REQUEST_SECONDS
    body = b""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "opencrane"}
    try:
        with client.stream("GET", address, params=query, headers=headers) as response:
            if response.status_code != 200:
                raise SourceError(f"It answers with HTTP status {response.status_code}{_hint(response.status_code)}.")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise SourceError("It compresses its answer although it was asked not to.")
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > PAGE_BYTES:
                    raise SourceError(f"A page of it is longer than {PAGE_BYTES} bytes.")
                if time.monotonic() > deadline:
                    raise SourceError("It takes too long to answer.")
    except RefusedAddressError as exc:
        raise SourceError(str(exc)) from exc
    except httpx.TimeoutException as exc:
        raise SourceError("It does not answer in time.") from exc
    except httpx.ConnectError as exc:
        raise SourceError(f"{urlsplit(address).hostname} cannot be connected to.") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise SourceError("It breaks off the connection.") from exc
    try:
        page = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise SourceError("It answers, but not with JSON.") from exc
    if not isinstance(page, dict):
        raise SourceError("It answers, but with no list of servers.")
    return page


def _hint(status: int) -> str:
    if status in (401, 403):
        return ", and wants credentials, which sources have none of"
    return ", and redirects, which is not followed" if 300 <= status < 400 else ""


def _next_cursor(page: dict[str, Any]) -> str:
    metadata = page.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    # `next_cursor` before September 2025.
    return text_of(metadata.get("nextCursor") or metadata.get("next_cursor"), 4096)


def _found(entry: Any) -> Found | None:
    """One entry; None for what is no server, not the latest version, or was deleted."""
    if not isinstance(entry, dict):
        return None
    nested = entry.get("server")
    server: dict[str, Any] = nested if isinstance(nested, dict) else entry
    name = text_of(server.get("name"), 253)
    if not name:
        return None
    meta = entry.get("_meta")
    official = meta.get(OFFICIAL) if isinstance(meta, dict) else None
    official = official if isinstance(official, dict) else {}
    status = official.get("status") or server.get("status")
    if official.get("isLatest") is False or status == "deleted":
        return None
    canonical = orjson.dumps(server, option=orjson.OPT_SORT_KEYS)
    remote, problem = _remote(server)
    details: dict[str, Any] = dict(remote)
    if title := text_of(server.get("title"), 200):
        details["title"] = title
    if status == "deprecated":
        details["status"] = "deprecated"
    repository = server.get("repository")
    if isinstance(repository, dict) and (where := text_of(repository.get("url"), 500)):
        details["repository"] = where
    return Found(
        kind="mcp-server",
        upstream_id=name,
        name=name,
        version=text_of(server.get("version"), 128) or "unknown",
        digest=f"sha256:{hashlib.sha256(canonical).hexdigest()}",
        description=text_of(server.get("description"), 2000),
        details=details,
        problem=problem,
    )


def _remote(server: dict[str, Any]) -> tuple[dict[str, str], str]:
    """The first endpoint that could be called as it is, and why there is none."""
    remotes = server.get("remotes")
    problem = "It has no endpoint of its own, only packages to be run."
    for remote in remotes if isinstance(remotes, list) else []:
        if not isinstance(remote, dict):
            continue
        # `transport_type` before July 2025.
        transport = remote.get("type") or remote.get("transport_type")
        url = text_of(remote.get("url"), 2048)
        if transport not in _TRANSPORTS:
            problem = "It speaks none of streamable-http and sse."
            continue
        try:
            check_endpoint(url, transport)
        except ValueError:
            problem = "Its endpoint has blanks to be filled in, or is no absolute URL."
            continue
        return {"endpoint": url, "transport": str(transport)}, ""
    return {}, problem
