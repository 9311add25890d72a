"""The MCP servers API: parse, call one service, answer."""

from functools import partial
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action

from mcpservers import selectors
from mcpservers.api.serializers import (
    CreateMcpServerSerializer,
    CredentialBodySerializer,
    CredentialSerializer,
    McpServerItemSerializer,
    McpServerSerializer,
    McpServerStatusSerializer,
    ProbeSerializer,
    ProbeStartedSerializer,
    UpdateMcpServerSerializer,
)
from mcpservers.models import McpCredential, McpHealth, McpServer
from mcpservers.services import probes, servers
from opencrane.api import params
from opencrane.api.parameters import CURSOR, IF_MATCH, IF_NONE_MATCH, LIMIT, query
from opencrane.api.responses import (
    body_etag,
    check_if_match,
    json_response,
    page_response,
    tagged_response,
    written_response,
)
from opencrane.api.viewsets import ApiRequest, ApiViewSet

_CHOICES = {
    "status": McpServer.Status.values,
    "scope": McpServer.Scope.values,
    "transport": McpServer.Transport.values,
    "health": McpHealth.State.values,
}


class McpServerViewSet(ApiViewSet):
    resource = "mcp-servers"
    lookup_field = "id"
    serializer_class = McpServerSerializer
    failures = {"create": ("409", "422"), "update": ("409", "422")}

    @extend_schema(
        parameters=[
            query("q", "Text in the name, description or endpoint."),
            *(OpenApiParameter(name, str, enum=values) for name, values in _CHOICES.items()),
            LIMIT,
            CURSOR,
        ],
        responses={200: McpServerItemSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        filters = {"q": text} if (text := params.text(request, "q")) else {}
        for name, values in _CHOICES.items():
            if value := params.choice(request, name, values):
                filters[name] = value
        return page_response(request, *selectors.server_page(filters, selectors.NEWEST.page(request)))

    @extend_schema(request=CreateMcpServerSerializer, responses={201: McpServerSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        server_id = servers.create_server(values=self.parsed_body(CreateMcpServerSerializer), actor=self.actor)
        return written_response(*selectors.server_json(server_id), status=201)

    @extend_schema(parameters=[IF_NONE_MATCH], responses={200: McpServerSerializer})
    def retrieve(self, request: ApiRequest, id: str) -> HttpResponse:
        body, generation = selectors.server_json(params.parse_uuid(id))
        return tagged_response(request, body_etag(generation, body), body)

    @extend_schema(request=UpdateMcpServerSerializer, parameters=[IF_MATCH], responses={200: McpServerSerializer})
    def update(self, request: ApiRequest, id: str) -> HttpResponse:
        server_id = params.parse_uuid(id)
        servers.update_server(
            server_id=server_id,
            changes=self.parsed_body(UpdateMcpServerSerializer),
            precondition=partial(check_if_match, request),
            actor=self.actor,
        )
        return written_response(*selectors.server_json(server_id))

    @extend_schema(parameters=[IF_MATCH], responses={200: McpServerStatusSerializer})
    def destroy(self, request: ApiRequest, id: str) -> HttpResponse:
        """Removes the server, its credentials and every grant about it."""
        servers.delete_server(
            server_id=params.parse_uuid(id), precondition=partial(check_if_match, request), actor=self.actor
        )
        return json_response({"id": id.lower(), "status": "deleted"})

    @extend_schema(methods=["GET"], responses={200: CredentialSerializer(many=True)})
    @extend_schema(methods=["POST"], request=CredentialBodySerializer, responses={201: CredentialSerializer})
    @action(detail=True, methods=["get", "post"])
    def credentials(self, request: ApiRequest, id: str) -> HttpResponse:
        server_id = params.parse_uuid(id)
        if request.method == "POST":
            values = self.parsed_body(CredentialBodySerializer)
            credential = servers.add_credential(server_id=server_id, values=values, actor=self.actor)
            return json_response(_shown(credential), status=201)
        server = selectors.server_by_id(server_id)
        return json_response([_shown(credential) for credential in server.credentials.all()])

    @extend_schema(responses={200: McpServerStatusSerializer})
    @action(detail=True, methods=["delete"])
    def credential(self, request: ApiRequest, id: str, **path: str) -> HttpResponse:
        credential_id = path["credentialId"]
        servers.delete_credential(
            server_id=params.parse_uuid(id), credential_id=params.parse_uuid(credential_id), actor=self.actor
        )
        return json_response({"id": credential_id.lower(), "status": "deleted"})

    @extend_schema(request=None, responses={202: ProbeStartedSerializer})
    @action(detail=True, methods=["post"])
    def probe(self, request: ApiRequest, id: str) -> HttpResponse:
        """Have a worker probe the server now, whatever its status; the result shows in the server and its probes."""
        server = probes.request_probe(server_id=params.parse_uuid(id))
        return json_response({"id": server.pk, "status": "queued"}, status=202)

    @extend_schema(parameters=[LIMIT, CURSOR], responses={200: ProbeSerializer(many=True)})
    @action(detail=True, methods=["get"])
    def probes(self, request: ApiRequest, id: str) -> HttpResponse:
        """The last probes, newest first."""
        server = selectors.server_by_id(params.parse_uuid(id))
        rows, headers = selectors.PROBES_NEWEST.read(request, selectors.probes_of(server))
        found = [
            {
                "at": probe.at,
                "ok": probe.ok,
                "latencyMs": probe.latency_ms,
                "toolCount": probe.tool_count,
                "error": probe.error or None,
            }
            for probe in rows
        ]
        return json_response(found, headers=headers)


def _shown(credential: McpCredential) -> dict[str, Any]:
    return {
        "id": credential.pk,
        "displayName": credential.display_name,
        "brokeringMode": credential.brokering_mode,
        "secretRef": credential.secret_ref or None,
        "createdAt": credential.created_at,
    }
