"""Our active servers in the words of the MCP registry, version 0.1; the Obot gateway reads its catalog from there.

Source: https://github.com/modelcontextprotocol/registry, docs/reference/api and docs/reference/server-json.
"""

import hashlib
import re
from typing import Any

from mcpservers.models import McpServer

SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-10-17/server.schema.json"
NAMESPACE = "io.opencrane"
# What the registry's format has words for; it knows no WebSocket.
TRANSPORTS = (McpServer.Transport.STREAMABLE_HTTP, McpServer.Transport.SSE)
_FOREIGN = re.compile(r"[^a-zA-Z0-9._-]+")
_NAME_MAX, _TITLE_MAX, _DESCRIPTION_MAX = 170, 100, 100


def registry_name(name: str) -> str:
    """A name as the registry wants it, `namespace/name`; with a hash whenever something had to be changed or cut."""
    plain = _FOREIGN.sub("-", name)[:_NAME_MAX]
    if plain != name:
        plain = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{NAMESPACE}/{plain}"


def entry(server: McpServer) -> dict[str, Any]:
    """One entry of `/v0.1/servers`. Credentials are the gateway's affair and never in it. Pure."""
    # The registry wants a version of everything; ours counts the changes.
    version = f"1.0.{server.generation}"
    return {
        "server": {
            "$schema": SCHEMA,
            "name": registry_name(server.name),
            "title": server.name[:_TITLE_MAX],
            "description": (server.description or server.name)[:_DESCRIPTION_MAX],
            "version": version,
            "remotes": [{"type": server.transport, "url": server.endpoint}],
            "_meta": {
                "io.modelcontextprotocol.registry/publisher-provided": {
                    f"{NAMESPACE}/id": str(server.pk),
                    f"{NAMESPACE}/name": server.name,
                    f"{NAMESPACE}/scope": server.scope,
                }
            },
        },
        "_meta": {
            "io.modelcontextprotocol.registry/official": {
                "status": "active",
                "publishedAt": server.created_at,
                "updatedAt": server.updated_at,
                "isLatest": True,
            }
        },
    }
