"""Bodies and answers of the MCP servers API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from mcpservers import rules
from mcpservers.models import McpCredential, McpHealth, McpServer
from opencrane import secretrefs
from opencrane.api.fields import ChoiceField, JsonField, RuledField, StringField
from opencrane.api.responses import to_json
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from policies.api.grants import OPTIONAL, GrantAnswerSerializer, IgnoredField, grants_field

CAPABILITIES_MAX_BYTES = 65_536
MAX_CREDENTIALS = 100


class SecretRefField(RuledField):
    """A reference to a secret; what looks like the secret itself is refused."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("help_text", "`secret-name` or `namespace/secret-name#key`; never the value.")
        super().__init__(**kwargs)

    def normal(self, text: str) -> str:
        return secretrefs.check_reference(text)


@extend_schema_field({"type": ["object", "array", "null"], "items": {}, "additionalProperties": True})
class CapabilitiesField(JsonField):
    """An object or a list, as the operator likes to describe the server."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict | list):
            raise serializers.ValidationError("Has to be an object or a list.")
        if len(to_json(data)) > CAPABILITIES_MAX_BYTES:
            raise serializers.ValidationError(f"Has to be at most {CAPABILITIES_MAX_BYTES} bytes of JSON.")
        return data


class CredentialBodySerializer(StrictSerializer):
    """`static` (the default) needs a `secretRef`; `obo` exchanges the user's own token and has none."""

    display_name = StringField(max_length=200)
    brokering_mode = ChoiceField(choices=McpCredential.Mode.choices, **OPTIONAL)
    secret_ref = SecretRefField(**OPTIONAL)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        mode = attrs.get("brokering_mode") or McpCredential.Mode.STATIC
        if mode == McpCredential.Mode.STATIC and not attrs.get("secret_ref"):
            raise serializers.ValidationError({"secretRef": [f"A static credential needs it. {secretrefs.HINT}"]})
        if mode == McpCredential.Mode.OBO and attrs.get("secret_ref"):
            raise serializers.ValidationError({"secretRef": ["An obo credential has none: it is the user's own."]})
        return attrs


class ListedCredentialSerializer(CredentialBodySerializer):
    """A credential within a server's list; with its `id` it stays the one it is."""

    id = StringField(max_length=64, **OPTIONAL)
    created_at = IgnoredField(**OPTIONAL)


class UpdateMcpServerSerializer(StrictSerializer):
    """Only the fields that are present change; lists of grants and credentials replace the old ones whole."""

    name = StringField(max_length=253, required=False)
    endpoint = StringField(
        max_length=rules.ENDPOINT_MAX,
        required=False,
        help_text="An absolute URL: http(s) for streamable-http and sse, ws(s) for websocket.",
    )
    transport = ChoiceField(choices=McpServer.Transport.choices, required=False)
    description = StringField(max_length=2000, **OPTIONAL)
    scope = ChoiceField(choices=McpServer.Scope.choices, **OPTIONAL, help_text="`org` where it is absent.")
    status = ChoiceField(choices=McpServer.Status.choices, **OPTIONAL, help_text="`draft` where it is absent.")
    capabilities = CapabilitiesField(**OPTIONAL)
    source_id = StringField(max_length=64, **OPTIONAL)
    grants = grants_field()
    credentials = serializers.ListField(child=ListedCredentialSerializer(), max_length=MAX_CREDENTIALS, **OPTIONAL)


class CreateMcpServerSerializer(UpdateMcpServerSerializer):
    name = StringField(max_length=253)
    endpoint = StringField(max_length=rules.ENDPOINT_MAX)
    transport = ChoiceField(choices=McpServer.Transport.choices)


# -- answers; selectors build them, these describe them ---------------------------------------------------------------


class CredentialSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    display_name = serializers.CharField()
    brokering_mode = serializers.ChoiceField(choices=McpCredential.Mode.choices)
    secret_ref = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class ProbeSummarySerializer(ResponseSerializer):
    last_at = serializers.DateTimeField(allow_null=True)
    since = serializers.DateTimeField(allow_null=True, help_text="Since when the health is what it is.")
    latency_ms = serializers.FloatField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    failures = serializers.IntegerField(help_text="How many probes in a row have failed.")
    server_name = serializers.CharField(allow_null=True)
    server_version = serializers.CharField(allow_null=True)
    protocol_version = serializers.CharField(allow_null=True)
    tool_count = serializers.IntegerField(allow_null=True)


class McpServerItemSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_null=True)
    endpoint = serializers.CharField()
    transport = serializers.ChoiceField(choices=McpServer.Transport.choices)
    scope = serializers.ChoiceField(choices=McpServer.Scope.choices)
    status = serializers.ChoiceField(choices=McpServer.Status.choices)
    capabilities = CapabilitiesField(allow_null=True)
    source_id = serializers.CharField(allow_null=True)
    grants = GrantAnswerSerializer(many=True)
    credentials = CredentialSerializer(many=True)
    health = serializers.ChoiceField(choices=McpHealth.State.choices)
    probe = ProbeSummarySerializer()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ToolSerializer(ResponseSerializer):
    name = serializers.CharField()
    description = serializers.CharField(allow_null=True)


class McpServerSerializer(McpServerItemSerializer):
    tools = ToolSerializer(many=True, help_text="As the last successful probe found them.")


class McpServerStatusSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["deleted"])


class ProbeSerializer(ResponseSerializer):
    at = serializers.DateTimeField()
    ok = serializers.BooleanField()
    latency_ms = serializers.FloatField(allow_null=True)
    tool_count = serializers.IntegerField(allow_null=True)
    error = serializers.CharField(allow_null=True)


class ProbeStartedSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["queued"])
