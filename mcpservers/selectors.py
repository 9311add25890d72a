"""Reading MCP servers."""

from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from mcpservers.errors import McpCredentialNotFoundError, McpServerNotFoundError
from mcpservers.models import McpCredential, McpHealth, McpProbe, McpServer
from opencrane.api.keyset import Keyset, Page
from opencrane.api.params import parse_uuid
from opencrane.api.pasted import like
from opencrane.rows import one
from policies.payload_listing import GRANTS, Conditions, PayloadListing

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="mcp servers")
PROBES_NEWEST = Keyset([("at", "desc"), ("id", "desc")], name="probes")

_TIME = """to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
CREDENTIAL = f"""json_build_object('id', c.id, 'displayName', c.display_name, 'brokeringMode', c.brokering_mode,
 'secretRef', nullif(c.secret_ref, ''), 'createdAt', {_TIME.format(column="c.created_at")})"""
# Of a server that was never probed.
_UNKNOWN = """'"health":"unknown","probe":{"lastAt":null,"since":null,"latencyMs":null,"error":null,"failures":0,
 "serverName":null,"serverVersion":null,"protocolVersion":null,"toolCount":null}'"""
_SERVERS = PayloadListing(
    NEWEST,
    table="mcpservers_mcpserver s",
    columns="s.*",
    payload_type="mcp-server",
    lists=f"""known AS (
        SELECT c.server_id, json_agg({CREDENTIAL} ORDER BY c.created_at, c.id)::text AS list
        FROM mcpservers_mcpcredential c WHERE c.server_id IN (SELECT id FROM page) GROUP BY c.server_id
    )""",  # noqa: S608 - constants
    item=f"""s.document || coalesce(h.document, {_UNKNOWN}) || {GRANTS} || ',"credentials":'
        || coalesce(known.list, '[]')""",
    joins="LEFT JOIN known ON known.server_id = s.id LEFT JOIN mcpservers_mcphealth h ON h.server_id = s.id",
)


def server_page(filters: dict[str, str], page: Page) -> tuple[bytes, str]:
    """One page of full servers, newest first, as JSON text in one query; and the cursor of the next page, or empty.

    Args:
        filters: any of `q` (name, description, endpoint), `status`, `scope`, `transport`, `health`.
    """
    conditions: Conditions = []
    if text := filters.get("q"):
        conditions.append(("(s.name ILIKE %s OR s.description ILIKE %s OR s.endpoint ILIKE %s)", [like(text)] * 3))
    for column in ("status", "scope", "transport"):
        if column in filters:
            conditions.append((f"s.{column} = %s", [filters[column]]))
    if "health" in filters:
        state = "coalesce((SELECT h.state FROM mcpservers_mcphealth h WHERE h.server_id = s.id), 'unknown')"
        conditions.append((f"{state} = %s", [filters["health"]]))
    return _SERVERS.page(conditions, page)


def server_json(server_id: UUID | None) -> tuple[bytes, int]:
    """One full server with the tools it was last seen to have, as JSON text, and its generation.

    Raises:
        McpServerNotFoundError
    """
    found = _SERVERS.one(server_id, """',"tools":' || coalesce(h.tools, '[]')::text""")
    if found is None:
        raise McpServerNotFoundError
    return found


def server_for_update(server_id: UUID | None) -> McpServer:
    """The server, its row locked until the transaction ends.

    Raises:
        McpServerNotFoundError
    """
    return one(McpServer.objects.select_for_update(), McpServerNotFoundError, pk=server_id)


def server_by_id(server_id: UUID | None) -> McpServer:
    """The server.

    Raises:
        McpServerNotFoundError
    """
    return one(McpServer.objects, McpServerNotFoundError, pk=server_id)


def server_by_id_or_name(text: str) -> McpServer | None:
    """The server of that name, else of that id; None when there is neither."""
    named = McpServer.objects.filter(name=text).first()
    if named is not None:
        return named
    server_id = parse_uuid(text)
    return None if server_id is None else McpServer.objects.filter(pk=server_id).first()


def credential_for_update(server: McpServer, credential_id: UUID | None) -> McpCredential:
    """A credential of a locked server.

    Raises:
        McpCredentialNotFoundError
    """
    return one(McpCredential.objects, McpCredentialNotFoundError, server=server, pk=credential_id)


def active_servers(ids: list[str]) -> list[dict[str, Any]]:
    """Those of the servers that are active, as the effective contract has them; sorted by name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id::text, name, transport, endpoint FROM mcpservers_mcpserver"
            " WHERE id = ANY(string_to_array(%s, ',')::uuid[]) AND status = 'active' ORDER BY name",
            [",".join(ids)],  # psycopg takes its time with every element of a list
        )
        return [
            {"id": server_id, "name": name, "transport": transport, "endpoint": endpoint}
            for server_id, name, transport, endpoint in cursor.fetchall()
        ]


def registered_servers() -> QuerySet[McpServer]:
    """Every active server, for the gateway's registry; sorted by name."""
    return McpServer.objects.filter(status=McpServer.Status.ACTIVE).order_by("name")


def probes_of(server: McpServer) -> QuerySet[McpProbe]:
    """The probes of a server that are kept; unordered."""
    return McpProbe.objects.filter(server=server).order_by()


def health_of(server: McpServer) -> McpHealth | None:
    """What probes say about a server; None before the first."""
    return McpHealth.objects.filter(server=server).first()


def servers_to_probe(limit: int) -> QuerySet[McpServer]:
    """Servers whose probe is due, those waiting longest first."""
    wanted = Q(status=McpServer.Status.ACTIVE) | Q(is_probe_wanted=True)
    due = McpServer.objects.filter(wanted, next_probe_at__lte=Now()).exclude(transport=McpServer.Transport.WEBSOCKET)
    return due.order_by("next_probe_at")[:limit]
