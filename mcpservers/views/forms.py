"""The form of an MCP server's own fields."""

from typing import Any

from mcpservers.api.serializers import CAPABILITIES_MAX_BYTES, CreateMcpServerSerializer, UpdateMcpServerSerializer
from mcpservers.models import McpServer
from opencrane.console.forms import FormField, ObjectForm, Section
from opencrane.console.values import parse_object, pretty_json

SECTIONS = (
    Section(
        "Server",
        (
            FormField("name", "Name", help="What policies and people call it.", is_required=True),
            FormField(
                "status",
                "Status",
                "select",
                "Only active servers are in contracts, and probed by themselves.",
                options=tuple((each.value, each.label) for each in McpServer.Status),
            ),
            FormField(
                "endpoint",
                "Endpoint",
                help="An absolute URL without a password: http(s); ws(s) for websocket.",
                is_required=True,
            ),
            FormField(
                "transport",
                "Transport",
                "select",
                "Servers that speak websocket are not probed.",
                options=tuple((each.value, each.value) for each in McpServer.Transport),
            ),
            FormField("description", "Description"),
            FormField("scope", "Scope", "select", options=tuple((each.value, each.label) for each in McpServer.Scope)),
        ),
    ),
    Section(
        "More",
        (
            FormField("sourceId", "Source", help="Where its description came from, if from a catalogue."),
            FormField(
                "capabilities", "Capabilities", "object", "An object or a list, as JSON or YAML, for people to read."
            ),
        ),
    ),
)


class ServerForm(ObjectForm[McpServer]):
    sections = SECTIONS
    creates, updates = CreateMcpServerSerializer, UpdateMcpServerSerializer

    @classmethod
    def of(cls, server: McpServer) -> "ServerForm":
        names = ("name", "status", "endpoint", "transport", "description", "scope")
        capabilities = "" if server.capabilities is None else pretty_json(server.capabilities)
        raw = {name: getattr(server, name) for name in names}
        return cls(raw | {"sourceId": server.source_id, "capabilities": capabilities})

    def value(self, field: FormField) -> Any:
        text = self.raw.get(field.name, "")
        if field.name != "capabilities" or not text:
            return text
        # Under a key, since a list is welcome as well.
        nested = "value:\n" + "\n".join(f"  {line}" for line in text.split("\n"))
        try:
            return (parse_object(nested, max_length=2 * CAPABILITIES_MAX_BYTES) or {}).get("value")
        except ValueError as exc:
            self.note({field.name: [str(exc)]})
            return None
