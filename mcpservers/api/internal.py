"""The catalog that the Obot gateway reads, under /api/internal."""

from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema

from accounts.pods import WORKLOAD, InternalViewSet
from mcpservers import registry
from mcpservers.models import McpServer
from opencrane.api import params
from opencrane.api.keyset import Keyset
from opencrane.api.responses import json_response
from opencrane.api.viewsets import ApiRequest

BY_NAME = Keyset([("name", "asc")], name="registry", default_limit=100)


class InternalRegistryViewSet(InternalViewSet):
    """Active MCP servers as an MCP registry lists them."""

    callers: ClassVar[str] = WORKLOAD

    @extend_schema(exclude=True)
    def show(self, request: ApiRequest) -> HttpResponse:
        """`/v0.1/servers` with `cursor`, `limit`, `search` and `updated_since`; of each server there is one version."""
        found = McpServer.objects.filter(status=McpServer.Status.ACTIVE, transport__in=registry.TRANSPORTS)
        if text := params.text(request, "search"):
            found = found.filter(name__icontains=text)
        if since := params.moment(request, "updated_since"):
            found = found.filter(updated_at__gt=since)
        page = BY_NAME.page(request)
        limit = page.limit or 0
        rows = list(BY_NAME.apply(found, page))
        shown = rows[:limit]
        metadata: dict[str, Any] = {"count": len(shown)}
        if len(rows) > limit:
            metadata["nextCursor"] = BY_NAME.encode([shown[-1].name])
        return json_response({"servers": [registry.entry(server) for server in shown], "metadata": metadata})
