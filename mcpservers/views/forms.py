"""The form of an MCP server's own fields, checked by the API's serializers."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from mcpservers.api.serializers import CAPABILITIES_MAX_BYTES, CreateMcpServerSerializer, UpdateMcpServerSerializer
from mcpservers.models import McpServer
from opencrane.api.serializers import flatten_errors
from opencrane.console.values import parse_object, pretty_json
from tenants.views.forms import FormField, Section

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
_FIELDS = {each.name: each for section in SECTIONS for each in section.fields}
_COLUMNS = {"sourceId": "source_id"}


class ServerForm:
    """What was filled in, and what is wrong with it: input name to reasons, `body` for what belongs to none."""

    def __init__(self, raw: dict[str, str]) -> None:
        self.raw = raw
        self.errors: dict[str, list[str]] = {}

    @classmethod
    def blank(cls) -> "ServerForm":
        return cls({"transport": "streamable-http", "status": "draft", "scope": "org"})

    @classmethod
    def of(cls, server: McpServer) -> "ServerForm":
        raw = {name: getattr(server, _COLUMNS.get(name, name)) for name in _FIELDS if name != "capabilities"}
        capabilities = "" if server.capabilities is None else pretty_json(server.capabilities)
        return cls({name: str(value) for name, value in raw.items()} | {"capabilities": capabilities})

    @classmethod
    def posted(cls, post: Mapping[str, str]) -> "ServerForm":
        return cls({name: post.get(name, "").replace("\r\n", "\n").strip() for name in _FIELDS})

    def created(self) -> dict[str, Any] | None:
        """The checked body of a create; None when `errors` says why not."""
        body = {name: self._value(name) for name in _FIELDS}
        return self._checked(CreateMcpServerSerializer, {k: v for k, v in body.items() if v is not None})

    def changes(self, server: McpServer) -> dict[str, Any] | None:
        """The checked fields that were touched; None when `errors` says why not."""
        before = self.of(server).raw
        touched = {name: self._value(name) for name in _FIELDS if self.raw[name] != before[name].strip()}
        for required in ("name", "endpoint"):
            if required in touched and touched[required] is None:
                touched[required] = ""
        return self._checked(UpdateMcpServerSerializer, touched)

    def note(self, fields: Mapping[str, list[str]]) -> None:
        for path, reasons in fields.items():
            where = path.partition(".")[0]
            self.errors.setdefault(where if where in _FIELDS else "body", []).extend(reasons)

    def sections(self) -> list[dict[str, Any]]:
        """The form for the template."""
        return [
            {
                "title": section.title,
                "inputs": [
                    {"field": each, "value": self.raw.get(each.name, ""), "errors": self.errors.get(each.name, [])}
                    for each in section.fields
                ],
            }
            for section in SECTIONS
        ]

    def _checked(self, serializer_class: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        serializer = serializer_class(data=body)
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            self.note(flatten_errors(exc.detail))
        return None if self.errors else dict(serializer.validated_data)

    def _value(self, name: str) -> Any:
        text = self.raw.get(name, "")
        if not text or name != "capabilities":
            return text or None
        # Under a key, since a list is welcome as well.
        nested = "value:\n" + "\n".join(f"  {line}" for line in text.split("\n"))
        try:
            return (parse_object(nested, max_length=2 * CAPABILITIES_MAX_BYTES) or {}).get("value")
        except ValueError as exc:
            self.errors.setdefault(name, []).append(str(exc))
            return None
