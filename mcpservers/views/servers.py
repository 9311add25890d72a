"""MCP servers: the list, one server with grants, credentials, tools and probes, and the actions."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
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
from opencrane.console.access import READ, may
from opencrane.console.listing import Filter, FilterBar, capped_count, listing, page_of
from opencrane.console.pages import ConsoleAction, ConsolePage, request_id, sentence
from opencrane.console.values import differences, pretty_json
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError, InvalidError
from operations import audit_reading
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkPage, bulk_bar, register_bulk
from policies.views.grant_rows import GrantRows
from policies.views.groups import suggestions

TABS = {
    "overview": "Overview",
    "grants": "Grants",
    "credentials": "Credentials",
    "tools": "Tools",
    "probes": "Probes",
    "audit": "Audit",
}
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
AUDIT_ROWS = 25
PROBE_ROWS = 25


def server_url(server_id: UUID, tab: str = "") -> str:
    url = reverse("admin:mcp_server", args=[server_id])
    return f"{url}?tab={tab}" if tab else url


def filter_bar(request: HttpRequest) -> FilterBar:
    """Search and filters of the list, from the URL."""
    return FilterBar(
        request,
        [
            Filter("health", "Health", "choice", [(key, words[2]) for key, words in HEALTH.items()]),
            Filter("status", "Status", "choice", [(key, words[2]) for key, words in STATUS.items()]),
            Filter("transport", "Transport", "choice", [(each, each) for each in McpServer.Transport.values]),
        ],
        "Search name, description or endpoint",
    )


class ServerList(ConsolePage):
    resource = "mcp-servers"
    title = "MCP servers"
    template_name = "mcpservers/servers.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = filter_bar(request)
        found = reading.servers_listed(bar.values())
        page = listing(request, reading.NEWEST, found)
        rows = []
        for server in page.rows:
            health = getattr(server, "health", None)
            rows.append(
                {
                    "server": server,
                    "health": HEALTH[health.state if health else "unknown"],
                    "status": STATUS[server.status],
                    "probe": health or unprobed(server),
                    "grants": server.grant_count or 0,
                }
            )
        is_filtered = bool(bar.active)
        count = capped_count(found)
        return self.render(
            bulk_bar(MCP_SERVERS, "admin:mcp_servers_bulk", bar, count)
            | {
                "bar": bar,
                "listing": page,
                "rows": rows,
                "count": count,
                "is_filtered": is_filtered,
                "is_empty": not rows and not is_filtered and not request.GET.get("cursor"),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )


class ServersBulkPage(BulkPage):
    resource = "mcp-servers"
    bulk = MCP_SERVERS
    list_url = "admin:mcp_servers"

    def filters(self, request: HttpRequest) -> FilterBar:
        return filter_bar(request)

    def names(self, filters: dict[str, str], limit: int) -> list[str]:
        return reading.server_names(filters, limit)


def header_values(server: McpServer, health: McpHealth | None) -> dict[str, Any]:
    """Chips, actions and the progress of a probe that was asked for."""
    return {
        "server": server,
        "health": HEALTH[health.state if health else "unknown"],
        "status": STATUS[server.status],
        "probe": health or unprobed(server),
        "can_probe": server.transport != McpServer.Transport.WEBSOCKET,
    }


def unprobed(server: McpServer) -> McpHealth:
    """What is known of a server before its first probe."""
    return McpHealth(server=server, tools=[])


class ServerPage(ConsolePage):
    resource = "mcp-servers"
    template_name = "mcpservers/server.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, server_id: UUID) -> HttpResponse:
        server = selectors.server_by_id(server_id)
        if request.GET.get("part") == "header":
            return self._header(server)
        tabs = {key: label for key, label in TABS.items() if key != "audit" or may(request.user, "audit", READ)}
        tab = request.GET.get("tab", "")
        tab = tab if tab in tabs else "overview"
        return server_page(self, server, tab, getattr(self, f"_{tab}")(server))

    def _header(self, server: McpServer) -> HttpResponse:
        response = self.fragment("mcpservers/_server_header.html", header_values(server, selectors.health_of(server)))
        if not server.is_probe_wanted:
            # The probe has ended; the whole page has more to say.
            response["HX-Refresh"] = "true"
        return response

    def _overview(self, server: McpServer) -> dict[str, Any]:
        capabilities = "" if server.capabilities is None else pretty_json(server.capabilities)
        return {"capabilities": capabilities}

    def _grants(self, server: McpServer) -> dict[str, Any]:
        grants = reading.server_view(server.pk)[1]["grants"]
        return {"grants": grants, "rows": GrantRows.of(grants, scope=server.scope), **suggestions()}

    def _credentials(self, server: McpServer) -> dict[str, Any]:
        return credential_values(server)

    def _tools(self, server: McpServer) -> dict[str, Any]:
        health = selectors.health_of(server)
        return {"tools": health.tools if health else []}

    def _probes(self, server: McpServer) -> dict[str, Any]:
        found = selectors.probes_of(server)
        page = listing(self.request, reading.PROBES_NEWEST, found, rows=PROBE_ROWS)
        return {"listing": page, "kept": probes.KEPT_PROBES}

    def _audit(self, server: McpServer) -> dict[str, Any]:
        wanted = AuditFilter(resource=f"McpServer/{server.name}")
        found = audit_reading.read_page(wanted, self.request, rows=AUDIT_ROWS)
        return {"entries": found.entries, "listing": page_of(self.request, found.entries, found.next_cursor)}


def server_page(
    page: ConsolePage, server: McpServer, tab: str, values: dict[str, Any], status: int = 200
) -> HttpResponse:
    """A server's page at one tab."""
    shown = header_values(server, selectors.health_of(server)) | {"generation": server.generation} | values
    tabs = {key: label for key, label in TABS.items() if key != "audit" or may(page.request.user, "audit", READ)}
    shown |= {"title": server.name, "tab": tab, "tabs": tabs, "tab_template": f"mcpservers/server_{tab}.html"}
    return page.render(shown, template="mcpservers/server.html", status=status)


def credential_values(server: McpServer) -> dict[str, Any]:
    """The credentials tab."""
    return {
        "credentials": list(server.credentials.all()),
        "modes": [
            ("static", "A secret in the cluster, the same for everybody"),
            ("obo", "The user's own token, exchanged"),
        ],
        "raw": {"brokeringMode": "static"},
        "errors": {},
    }


class NewServer(ConsolePage):
    resource = "mcp-servers"
    title = "New MCP server"
    template_name = "mcpservers/server_form.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form(ServerForm.blank())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = ServerForm.posted(request.POST)
        values = form.created()
        if values is None:
            return self._form(form, status=400)
        try:
            server_id = servers.create_server(values=values, actor=self.actor)
        except DomainError as exc:
            return self._form(noted(form, exc, request), status=exc.http_status)
        messages.success(request, f"MCP server {values['name']} is saved. Nobody may call it before it is granted.")
        return HttpResponseRedirect(server_url(server_id, "grants"))

    def _form(self, form: ServerForm, status: int = 200) -> HttpResponse:
        values = {"form": form, "sections": form.sections(), "cancel_url": reverse("admin:mcp_servers")}
        return self.render(values, status=status)


class EditServer(ConsolePage):
    """Steps by POST: `review` shows the difference, `edit` goes back to the form, `save` writes."""

    resource = "mcp-servers"
    template_name = "mcpservers/server_form.html"

    def get(self, request: HttpRequest, server_id: UUID) -> HttpResponse:
        server = selectors.server_by_id(server_id)
        return self._form(server, ServerForm.of(server), str(server.generation))

    def post(self, request: HttpRequest, server_id: UUID) -> HttpResponse:
        server = selectors.server_by_id(server_id)
        form = ServerForm.posted(request.POST)
        seen = request.POST.get("generation", "")
        if request.POST.get("step") == "edit":
            return self._form(server, form, seen)
        precondition = same_generation(request)
        precondition(server.generation)
        changes = form.changes(server)
        if changes is None:
            return self._form(server, form, seen, status=400)
        if not changes:
            messages.info(request, "Nothing differs from what is there, so nothing was saved.")
            return HttpResponseRedirect(server_url(server_id))
        if request.POST.get("step") != "save":
            before = {name: getattr(server, name) for name in changes}
            return self.render(
                {
                    "title": f"Save {server.name}?",
                    "server": server,
                    "raw": form.raw,
                    "generation": seen,
                    "rows": differences(before, changes),
                    "count": len(changes),
                    "is_moved": bool({"endpoint", "transport"} & set(changes)),
                },
                template="mcpservers/server_review.html",
            )
        try:
            servers.update_server(server_id=server_id, changes=changes, precondition=precondition, actor=self.actor)
        except DomainError as exc:
            return self._form(server, noted(form, exc, request), seen, status=exc.http_status)
        messages.success(request, f"MCP server {changes.get('name', server.name)} is saved.")
        return HttpResponseRedirect(server_url(server_id))

    def _form(self, server: McpServer, form: ServerForm, seen: str, status: int = 200) -> HttpResponse:
        return self.render(
            {
                "title": f"Edit {server.name}",
                "form": form,
                "sections": form.sections(),
                "generation": seen,
                "cancel_url": server_url(server.pk),
            },
            status=status,
        )


class EditGrants(ConsolePage):
    """Replaces the server's list of grants."""

    resource = "mcp-servers"
    http_method_names = ["post"]

    def post(self, request: HttpRequest, server_id: UUID) -> HttpResponse:
        server = selectors.server_by_id(server_id)
        rows = GrantRows.posted(request.POST, scope=server.scope)
        serializer: Any = UpdateMcpServerSerializer(data={"grants": rows.data()})
        status, rest = 400, {}
        try:
            serializer.is_valid(raise_exception=True)
            servers.update_server(
                server_id=server_id,
                changes=dict(serializer.validated_data),
                precondition=same_generation(request),
                actor=self.actor,
            )
        except serializers.ValidationError as exc:
            rest = rows.note(flatten_errors(exc.detail))
        except DomainError as exc:
            rest, status = rows.note(exc.fields), exc.http_status
            if not exc.fields:
                rest = {"body": [f"{sentence(exc)} (request {request_id(request)})"]}
        else:
            messages.success(request, f"The grants of {server.name} are saved.")
            return HttpResponseRedirect(server_url(server_id, "grants"))
        problems = [reason for reasons in rest.values() for reason in reasons]
        seen = request.POST.get("generation", "")
        values = {"rows": rows, "problems": problems, "generation": seen, **suggestions()}
        return server_page(self, server, "grants", values, status=status)


class AddCredential(ConsolePage):
    resource = "mcp-servers"
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
            shown = raw | {"secretRef": ""}
            values = credential_values(server) | {"raw": shown, "errors": flatten_errors(exc.detail)}
            return server_page(self, server, "credentials", values, status=400)
        messages.success(request, f"Credential {raw['displayName']} is added.")
        return HttpResponseRedirect(server_url(server_id, "credentials"))


class ServerAction(ConsoleAction):
    """Probe now, remove a credential, delete."""

    resource = "mcp-servers"

    def act(self, *, server_id: UUID, action: str) -> str:
        match action:
            case "probe":
                probes.request_probe(server_id=server_id)
                messages.info(self.request, "A worker probes it now; the result shows here.")
                return self.next_or(server_url(server_id))
            case "remove-credential":
                return self._remove_credential(server_id)
            case "delete":
                return self._delete(server_id)
        raise InvalidError("There is no such action.")

    def _remove_credential(self, server_id: UUID) -> str:
        chosen = self.request.POST.get("credential", "")
        found = McpCredential.objects.filter(server=server_id)
        credential = next((each for each in found if str(each.pk) == chosen), None)
        if credential is None:
            raise InvalidError("There is no such credential any more.")
        servers.delete_credential(server_id=server_id, credential_id=credential.pk, actor=self.actor)
        messages.success(self.request, f"Credential {credential.display_name} is removed.")
        return server_url(server_id, "credentials")

    def _delete(self, server_id: UUID) -> str:
        name = selectors.server_by_id(server_id).name
        if self.request.POST.get("confirm", "").strip() != name:
            raise InvalidError(f"Nothing was deleted: the name typed was not {name}.")
        servers.delete_server(server_id=server_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"MCP server {name} is deleted.")
        return reverse("admin:mcp_servers")

    def back(self, *, server_id: UUID, action: str) -> str:
        return self.next_or(server_url(server_id))


class ServerByName(ConsolePage):
    """Where links from the audit trail go, which knows names."""

    resource = "mcp-servers"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        server = reading.server_named(name)
        if server is None:
            raise McpServerNotFoundError(f"There is no MCP server named {name} any more.")
        return HttpResponseRedirect(server_url(server.pk))


def noted(form: ServerForm, error: DomainError, request: HttpRequest) -> ServerForm:
    """The form with a service's refusal at the field it is about, or above all fields."""
    if error.code.endswith("_EXISTS"):
        form.note({"name": [sentence(error)]})
    elif error.fields:
        form.note(error.fields)
    else:
        form.note({"body": [f"{sentence(error)} (request {request_id(request)})"]})
    return form


def register() -> None:
    """Called by `mcpservers.admin`."""
    site: Any = admin.site
    site.add_page("mcp-servers/", ServerList.as_view(), "mcp_servers")
    register_bulk(site, "mcp-servers-bulk/", ServersBulkPage, "mcp_servers_bulk")
    site.add_page("new-mcp-server/", NewServer.as_view(), "mcp_server_new")
    site.add_page("mcp-servers/<uuid:server_id>/", ServerPage.as_view(), "mcp_server")
    site.add_page("mcp-servers/<uuid:server_id>/edit/", EditServer.as_view(), "mcp_server_edit")
    site.add_page("mcp-servers/<uuid:server_id>/grants/", EditGrants.as_view(), "mcp_server_grants")
    site.add_page("mcp-servers/<uuid:server_id>/credentials/", AddCredential.as_view(), "mcp_server_credentials")
    site.add_page("mcp-servers/<uuid:server_id>/do/<str:action>/", ServerAction.as_view(), "mcp_server_do")
    site.add_page("mcp-server-named/<path:name>/", ServerByName.as_view(), "mcp_server_named")
    site.add_object_page("McpServer", "admin:mcp_server_named")
    site.add_navigation("Access", "MCP servers", "dns", "admin:mcp_servers", resource="mcp-servers", position=34)
