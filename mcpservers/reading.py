"""What the console shows of MCP servers beyond what the API gives."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from django.db.models import CharField, Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Cast

from mcpservers import selectors
from mcpservers.models import McpHealth, McpServer
from opencrane.api.keyset import Keyset
from opencrane.api.params import parse_uuid
from policies.models import Grant

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="mcp servers in the console")
PROBES_NEWEST = Keyset([("at", "desc"), ("id", "desc")], name="probes in the console")


def names_of(payload_ids: Sequence[str]) -> dict[str, str]:
    """The names of servers that grants are about, by the grants' payload id."""
    ids = [found for text in payload_ids if (found := parse_uuid(text))]
    rows = McpServer.objects.filter(pk__in=ids).values_list("pk", "name") if ids else []
    return {str(pk): name for pk, name in rows}


def ids_of(names: Sequence[str]) -> dict[str, UUID]:
    """The ids of servers by name."""
    return dict(McpServer.objects.filter(name__in=names).values_list("name", "pk")) if names else {}


def servers_listed(filters: dict[str, str]) -> QuerySet[McpServer]:
    """Servers that fit `q`, `status`, `transport` and `health`, with `grant_count` and their health; unordered."""
    about = Grant.objects.filter(payload_type="mcp-server", payload_id=Cast(OuterRef("pk"), CharField())).order_by()
    counted = about.values("payload_id").annotate(many=Count("pk")).values("many")
    found = McpServer.objects.order_by().select_related("health").annotate(grant_count=Subquery(counted))
    if text := filters.get("q"):
        found = found.filter(Q(name__icontains=text) | Q(description__icontains=text) | Q(endpoint__icontains=text))
    for name in ("status", "transport"):
        if name in filters:
            found = found.filter(**{name: filters[name]})
    match filters.get("health"):
        case None:
            return found
        case McpHealth.State.UNKNOWN.value:
            return found.filter(Q(health=None) | Q(health__state="unknown"))
        case state:
            return found.filter(health__state=state)


def server_view(server_id: UUID) -> tuple[McpServer, dict[str, Any]]:
    """One server, and all of it as the API gives it; two queries.

    Raises:
        McpServerNotFoundError
    """
    body, _ = selectors.server_json(server_id)
    return selectors.server_by_id(server_id), orjson.loads(body)


def server_named(name: str) -> McpServer | None:
    """The server of that name."""
    return McpServer.objects.filter(name=name).first()
