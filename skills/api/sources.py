"""The third-party sources API: parse, call one service, answer."""

from functools import partial
from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers

from opencrane.api import params
from opencrane.api.fields import ChoiceField, JsonObjectField, PatternField, StringField
from opencrane.api.parameters import CURSOR, IF_MATCH, IF_NONE_MATCH, LIMIT, limit_parameter, query
from opencrane.api.responses import body_etag, check_if_match, json_response, tagged_response, to_json, written_response
from opencrane.api.serializers import AcceptedSerializer, ResponseSerializer, StrictSerializer
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from operations.models import Job
from policies.api.grants import OPTIONAL
from policies.models import Scope
from skills import source_reading, source_rules
from skills.models import SourceImport, SourceItem, ThirdPartySource
from skills.services import sources, syncing


class UpdateSourceSerializer(StrictSerializer):
    """Only the fields that are present change. Another type, url or ref makes the source wait for approval again."""

    name = StringField(max_length=253, required=False)
    type = ChoiceField(choices=ThirdPartySource.Type.choices, required=False)
    url = StringField(
        max_length=source_rules.URL_MAX,
        required=False,
        help_text="An absolute http(s) URL without a user name; of an MCP registry, what `/v0/servers` is added to.",
    )
    ref = PatternField(
        source_rules.REF_PATTERN,
        "Has to be the name of a branch or tag.",
        max_length=200,
        **OPTIONAL,
        help_text="A branch or tag of a repository; what it prefers itself where it is absent.",
    )
    sync_mode = ChoiceField(choices=ThirdPartySource.SyncMode.choices, **OPTIONAL, help_text="`manual` if absent.")


class CreateSourceSerializer(UpdateSourceSerializer):
    name = StringField(max_length=253)
    type = ChoiceField(choices=ThirdPartySource.Type.choices)
    url = StringField(max_length=source_rules.URL_MAX)


class ImportSerializer(StrictSerializer):
    scope = ChoiceField(choices=Scope.choices, **OPTIONAL, help_text="Of what is made; `org` if absent.")


class SourceSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    type = serializers.ChoiceField(choices=ThirdPartySource.Type.choices)
    url = serializers.CharField()
    ref = serializers.CharField(allow_null=True)
    sync_mode = serializers.ChoiceField(choices=ThirdPartySource.SyncMode.choices)
    sync_status = serializers.ChoiceField(choices=source_reading.SYNC_STATUSES)
    sync_error = serializers.CharField(allow_null=True, help_text="Why the last sync failed.")
    last_synced_at = serializers.DateTimeField(allow_null=True)
    next_sync_at = serializers.DateTimeField(allow_null=True)
    revision = serializers.CharField(allow_null=True, help_text="Of a repository, the commit that was read last.")
    item_count = serializers.IntegerField()
    approved_by = serializers.CharField(allow_null=True)
    approved_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class SourceStatusSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["deleted"])


class SyncReportSerializer(ResponseSerializer):
    source_id = serializers.UUIDField()
    revision = serializers.CharField(allow_null=True)
    added = serializers.IntegerField()
    changed = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    gone = serializers.IntegerField()
    skipped = serializers.IntegerField(help_text="MCP servers that have no endpoint that could be called.")
    failed = serializers.IntegerField(help_text="Skills that cannot be read.")


class ImportedSerializer(ResponseSerializer):
    version = serializers.CharField()
    digest = serializers.CharField()
    bundle_id = serializers.UUIDField(allow_null=True)
    server_id = serializers.UUIDField(allow_null=True)
    imported_at = serializers.DateTimeField()
    imported_by = serializers.CharField()


class SourceItemSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=SourceItem.Kind.choices)
    name = serializers.CharField()
    upstream_id = serializers.CharField()
    version = serializers.CharField()
    digest = serializers.CharField()
    description = serializers.CharField(allow_null=True)
    details = JsonObjectField()
    state = serializers.ChoiceField(choices=source_reading.ITEM_STATES)
    problem = serializers.CharField(allow_null=True, help_text="Why it cannot be imported.")
    imported = ImportedSerializer(allow_null=True, help_text="What the newest import made of it.")
    found_at = serializers.DateTimeField()
    changed_at = serializers.DateTimeField()


class SourceViewSet(ApiViewSet):
    """Places that skills and MCP servers are taken from."""

    resource: ClassVar[str] = "third-party-sources"
    tag = "Third-party Sources"
    lookup_field = "id"
    serializer_class = SourceSerializer
    failures = {
        "create": ("409",),
        "update": ("409",),
        "sync": ("409", "502"),
        "import_item": ("409",),
    }

    @extend_schema(
        parameters=[
            query("q", "Text in the name or address."),
            OpenApiParameter("type", str, enum=ThirdPartySource.Type.values),
            OpenApiParameter("syncStatus", str, enum=source_reading.SYNC_STATUSES),
            LIMIT,
            CURSOR,
        ],
        responses={200: SourceSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        filters = {
            "q": params.text(request, "q"),
            "type": params.choice(request, "type", ThirdPartySource.Type.values),
            "sync_status": params.choice(request, "syncStatus", source_reading.SYNC_STATUSES),
        }
        found = source_reading.sources_matching({key: value for key, value in filters.items() if value})
        rows, headers = source_reading.NEWEST.read(request, found)
        return json_response([source_reading.source_json(row) for row in rows], headers=headers)

    @extend_schema(request=CreateSourceSerializer, responses={201: SourceSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        """Make a source; it is read once it has been approved."""
        source_id = sources.create_source(values=self.parsed_body(CreateSourceSerializer), actor=self.actor)
        return written_response(*_shown(source_id), status=201)

    @extend_schema(parameters=[IF_NONE_MATCH], responses={200: SourceSerializer})
    def retrieve(self, request: ApiRequest, id: str) -> HttpResponse:
        body, generation = _shown(params.parse_uuid(id))
        return tagged_response(request, body_etag(generation, body), body)

    @extend_schema(request=UpdateSourceSerializer, parameters=[IF_MATCH], responses={200: SourceSerializer})
    def update(self, request: ApiRequest, id: str) -> HttpResponse:
        source_id = params.parse_uuid(id)
        sources.update_source(
            source_id=source_id,
            changes=self.parsed_body(UpdateSourceSerializer),
            precondition=partial(check_if_match, request),
            actor=self.actor,
        )
        return written_response(*_shown(source_id))

    @extend_schema(parameters=[IF_MATCH], responses={200: SourceStatusSerializer})
    def destroy(self, request: ApiRequest, id: str) -> HttpResponse:
        """Removes the source and its inventory; what was imported stays."""
        sources.delete_source(
            source_id=params.parse_uuid(id), precondition=partial(check_if_match, request), actor=self.actor
        )
        return json_response({"id": id.lower(), "status": "deleted"})

    @extend_schema(request=None, parameters=[IF_MATCH], responses={200: SourceSerializer})
    def approve(self, request: ApiRequest, id: str) -> HttpResponse:
        """Let the source be read; one that is scheduled is synced within a minute."""
        source_id = params.parse_uuid(id)
        sources.approve_source(source_id=source_id, precondition=partial(check_if_match, request), actor=self.actor)
        return written_response(*_shown(source_id))

    @extend_schema(request=None, responses={200: SyncReportSerializer, 202: AcceptedSerializer})
    def sync(self, request: ApiRequest, id: str) -> HttpResponse:
        """Read the source and bring the inventory in line; what takes longer than a moment goes on as a job."""
        job = syncing.sync_and_wait(source_id=params.parse_uuid(id), actor=self.actor)
        if job.status != Job.Status.SUCCEEDED:
            return json_response({"jobId": job.pk, "status": job.status}, status=202)
        return json_response(job.result)

    @extend_schema(
        operation_id="third_party_sources_items_list",
        parameters=[
            query("q", "Text in the name, description or upstream id."),
            OpenApiParameter("kind", str, enum=SourceItem.Kind.values),
            OpenApiParameter("state", str, enum=source_reading.ITEM_STATES),
            limit_parameter(default=100),
            CURSOR,
        ],
        responses={200: SourceItemSerializer(many=True)},
    )
    def items(self, request: ApiRequest, id: str) -> HttpResponse:
        """What the source offered when it was read last, by name; 100 to a page unless said otherwise."""
        source = source_reading.source_by_id(params.parse_uuid(id))
        filters = {
            "q": params.text(request, "q"),
            "kind": params.choice(request, "kind", SourceItem.Kind.values),
            "state": params.choice(request, "state", source_reading.ITEM_STATES),
        }
        found = source_reading.items_of(source, {key: value for key, value in filters.items() if value})
        rows, headers = source_reading.ITEMS_BY_NAME.read(request, found)
        return json_response([source_reading.item_json(row) for row in rows], headers=headers)

    @extend_schema(
        operation_id="third_party_sources_items_import",
        request=ImportSerializer,
        responses={201: ImportedSerializer},
    )
    def import_item(self, request: ApiRequest, id: str, **path: str) -> HttpResponse:
        """Make a draft bundle or draft MCP server of an item. A later version makes another draft, and changes none."""
        body: Any = self.request.data
        values = {} if body is None else self.parsed_body(ImportSerializer)
        made = sources.import_item(
            source_id=params.parse_uuid(id),
            item_id=params.parse_uuid(path["itemId"]),
            scope=values.get("scope") or Scope.ORG.value,
            actor=self.actor,
        )
        return json_response(_import_json(made), status=201)


def _shown(source_id: Any) -> tuple[bytes, int]:
    source = source_reading.source_shown(source_id)
    return to_json(source_reading.source_json(source)), source.generation


def _import_json(made: SourceImport) -> dict[str, Any]:
    return {
        "version": made.version,
        "digest": made.digest,
        "bundleId": made.bundle_id,
        "serverId": made.server_id,
        "importedAt": made.imported_at,
        "importedBy": made.imported_by,
    }
