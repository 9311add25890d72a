"""MCP servers: the list, one server with grants, credentials, tools and probes, and the actions."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from rest_framework import serializers

from mcpservers import reading, selectors
from mcpservers.api.serializers import CredentialBodySerializer, UpdateMcpServerSerializer
from mcpservers.errors import McpServerNotFoundError
from mcpservers.models import McpCredential, McpHealth, McpServer
from mcpservers.services import probes, servers
from mcpservers.services.bulk import MCP_SERVERS
from mcpservers.views.forms import ServerForm
from opencrane.api.serializers import flatten_errors
from opencrane.console.editing import EditPage, NewPage, Precondition
from opencrane.console.listing import Filter, listing
from opencrane.console.objects import ByName, ObjectActions
from opencrane.console.values import pretty_json
from opencrane.console.writes import same_generation
from opencrane.errors import InvalidError
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkList, add_bulk_list
from policies.views.grants import EditGrants, GrantedPage

HEALTH = {
    "healthy": ("ok", "check_circle", "Healthy"),
    "unhealthy": ("bad", "error", "Unhealthy"),
    "unknown": ("muted", "help", "Not known yet"),
}
STATUS = {
    "active": ("ok", "toggle_on", "Active"),
    "degraded": ("warn", "warning", "Degraded"),
    "draft": ("muted", "edit_note", "Draft"),
}
PROBE_ROWS = 25


class ServerList(BulkList):
    resource = "mcp-servers"
    title = "MCP servers"
    template_name = "mcpservers/servers.html"
    noun = "MCP server"
    search = "Search name, description or endpoint"
    keyset = reading.NEWEST
    new_page = "admin:mcp_server_new"
    bulk = MCP_SERVERS
    url_name = "mcp_servers"

    def filters(self) -> list[Filter]:
        return [
            Filter("health", "Health", "choice", [(key, words[2]) for key, words in HEALTH.items()]),
            Filter("status", "Status", "choice", [(key, words[2]) for key, words in STATUS.items()]),
            Filter("transport", "Transport", "choice", [(each, each) for each in McpServer.Transport.values]),
        ]

    def found(self, filters: dict[str, str]) -> QuerySet[McpServer]:
        return reading.servers_listed(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        rows = []
        for server in objects:
            health = getattr(server, "health", None)
            rows.append(
                {
                    "health": HEALTH[health.state if health else "unknown"],
                    "status": STATUS[server.status],
                    "probe": health or unprobed(server),
                    "grants": server.grant_count or 0,
                }
            )
        return rows


def unprobed(server: McpServer) -> McpHealth:
    """What is known of a server before its first probe."""
    return McpHealth(server=server, tools=[])


class ServerPage(GrantedPage[McpServer]):
    resource = "mcp-servers"
    template_name = "mcpservers/server.html"
    noun = "MCP server"
    url_name = "mcp_server"
    header_template = "mcpservers/_server_header.html"
    tab_templates = "mcpservers/server_"
    tabs = {
        "overview": "Overview",
        "grants": "Grants",
        "credentials": "Credentials",
        "tools": "Tools",
        "probes": "Probes",
        "audit": "Audit",
    }

    def find(self, server_id: UUID) -> McpServer:
        return selectors.server_by_id(server_id)

    def header(self, server: McpServer) -> dict[str, Any]:
        health = selectors.health_of(server)
        return {
            "title": server.name,
            "generation": server.generation,
            "server": server,
            "health": HEALTH[health.state if health else "unknown"],
            "status": STATUS[server.status],
            "probe": health or unprobed(server),
            "can_probe": server.transport != McpServer.Transport.WEBSOCKET,
            "is_moving": server.is_probe_wanted,
        }

    def overview_tab(self, server: McpServer) -> dict[str, Any]:
        return {"capabilities": "" if server.capabilities is None else pretty_json(server.capabilities)}

    def grants_of(self, server: McpServer) -> list[dict[str, Any]]:
        grants: list[dict[str, Any]] = reading.server_view(server.pk)[1]["grants"]
        return grants

    def credentials_tab(self, server: McpServer) -> dict[str, Any]:
        return {
            "credentials": list(server.credentials.all()),
            "modes": [
                ("static", "A secret in the cluster, the same for everybody"),
                ("obo", "The user's own token, exchanged"),
            ],
            "raw": {"brokeringMode": "static"},
            "errors": {},
        }

    def tools_tab(self, server: McpServer) -> dict[str, Any]:
        health = selectors.health_of(server)
        return {"tools": health.tools if health else []}

    def probes_tab(self, server: McpServer) -> dict[str, Any]:
        page = listing(self.request, reading.PROBES_NEWEST, selectors.probes_of(server), rows=PROBE_ROWS)
        return {"listing": page, "kept": probes.KEPT_PROBES}

    def audited(self, server: McpServer) -> AuditFilter:
        return AuditFilter(resource=f"McpServer/{server.name}")


class NewServer(NewPage):
    resource = "mcp-servers"
    title = "New MCP server"
    form = ServerForm
    submit = "Create MCP server"
    list_page = "admin:mcp_servers"

    def blank(self) -> ServerForm:
        return ServerForm({"transport": "streamable-http", "status": "draft", "scope": "org"}, is_new=True)

    def create(self, values: dict[str, Any]) -> str:
        server_id = servers.create_server(values=values, actor=self.actor)
        name = values["name"]
        messages.success(self.request, f"MCP server {name} is saved. Nobody may call it before it is granted.")
        return ServerPage.url(server_id, tab="grants")


class EditServer(EditPage[McpServer]):
    resource = "mcp-servers"
    page = ServerPage
    form = ServerForm
    review_template = "mcpservers/server_review.html"

    def save(self, server: McpServer, changes: dict[str, Any], precondition: Precondition) -> None:
        servers.update_server(server_id=server.pk, changes=changes, precondition=precondition, actor=self.actor)
        messages.success(self.request, f"MCP server {changes.get('name', server.name)} is saved.")

    def consequences(self, server: McpServer, changes: dict[str, Any]) -> dict[str, Any]:
        return {"is_moved": bool({"endpoint", "transport"} & set(changes))}


class EditServerGrants(EditGrants[McpServer], ServerPage):
    serializer = UpdateMcpServerSerializer

    def save(self, server: McpServer, changes: dict[str, Any], precondition: Precondition) -> None:
        servers.update_server(server_id=server.pk, changes=changes, precondition=precondition, actor=self.actor)


class AddCredential(ServerPage):
    http_method_names = ["post"]

    def post(self, request: HttpRequest, server_id: UUID) -> HttpResponse:
        server = selectors.server_by_id(server_id)
        raw = {name: request.POST.get(name, "").strip() for name in ("displayName", "brokeringMode", "secretRef")}
        serializer: Any = CredentialBodySerializer(data={name: value for name, value in raw.items() if value})
        try:
            serializer.is_valid(raise_exception=True)
            servers.add_credential(server_id=server_id, values=dict(serializer.validated_data), actor=self.actor)
        except serializers.ValidationError as exc:
            # What was typed into the reference may be the secret itself, and does not come back.
            shown = {"raw": raw | {"secretRef": ""}, "errors": flatten_errors(exc.detail)}
            return self.show(server, "credentials", self.credentials_tab(server) | shown, status=400)
        messages.success(request, f"Credential {raw['displayName']} is added.")
        return HttpResponseRedirect(self.url(server_id, tab="credentials"))


class ServerActions(ObjectActions):
    resource = "mcp-servers"
    page = ServerPage

    def do_probe(self, server_id: UUID) -> None:
        probes.request_probe(server_id=server_id)
        messages.info(self.request, "A worker probes it now; the result shows here.")

    def do_remove_credential(self, server_id: UUID) -> str:
        chosen = self.request.POST.get("credential", "")
        found = McpCredential.objects.filter(server=server_id)
        credential = next((each for each in found if str(each.pk) == chosen), None)
        if credential is None:
            raise InvalidError("There is no such credential any more.")
        servers.delete_credential(server_id=server_id, credential_id=credential.pk, actor=self.actor)
        messages.success(self.request, f"Credential {credential.display_name} is removed.")
        return ServerPage.url(server_id, tab="credentials")

    def do_delete(self, server_id: UUID) -> str:
        name = selectors.server_by_id(server_id).name
        self.require_typed(name)
        servers.delete_server(server_id=server_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"MCP server {name} is deleted.")
        return reverse("admin:mcp_servers")


class ServerByName(ByName):
    resource = "mcp-servers"
    page = ServerPage
    missing = McpServerNotFoundError

    def find(self, name: str) -> McpServer | None:
        return reading.server_named(name)


def register() -> None:
    """Called by `mcpservers.admin`."""
    site: Any = admin.site
    add_bulk_list(site, "mcp-servers", ServerList)
    site.add_page("new-mcp-server/", NewServer.as_view(), "mcp_server_new")
    site.add_page("mcp-servers/<uuid:server_id>/", ServerPage.as_view(), "mcp_server")
    site.add_page("mcp-servers/<uuid:server_id>/edit/", EditServer.as_view(), "mcp_server_edit")
    site.add_page("mcp-servers/<uuid:server_id>/grants/", EditServerGrants.as_view(), "mcp_server_grants")
    site.add_page("mcp-servers/<uuid:server_id>/credentials/", AddCredential.as_view(), "mcp_server_credentials")
    site.add_page("mcp-servers/<uuid:server_id>/do/<str:action>/", ServerActions.as_view(), "mcp_server_do")
    site.add_page("mcp-server-named/<path:name>/", ServerByName.as_view(), "mcp_server_named")
    site.add_object_page("McpServer", "admin:mcp_server_named")
    site.add_navigation("Access", "MCP servers", "dns", "admin:mcp_servers", resource="mcp-servers", position=34)
