"""How the audit trail and jobs look in the OpenAPI document."""

from rest_framework import serializers

from opencrane.api.fields import JsonField, JsonObjectField
from opencrane.api.serializers import ResponseSerializer
from operations.models import Job


class AuditActorSerializer(ResponseSerializer):
    kind = serializers.CharField(help_text="`user`, `token`, `pod` or `system`.")
    name = serializers.CharField(help_text="Whose doing it was; of an access token, its creator's.")
    token = serializers.CharField(required=False, help_text="The access token's label, if it was one.")


class AuditEntrySerializer(ResponseSerializer):
    id = serializers.CharField()
    timestamp = serializers.DateTimeField()
    tenant = serializers.CharField(help_text="Name of the tenant it concerns; empty for none.")
    tenant_id = serializers.UUIDField(allow_null=True)
    action = serializers.CharField(help_text="`noun.past_tense`")
    resource = serializers.CharField(help_text="`Kind/name`")
    message = serializers.CharField()
    actor = AuditActorSerializer()
    request_id = serializers.CharField()
    address = serializers.CharField()
    before = JsonObjectField(allow_null=True)
    after = JsonObjectField(allow_null=True)


class PaginationSerializer(ResponseSerializer):
    limit = serializers.IntegerField(min_value=1, max_value=1000)
    next_cursor = serializers.CharField(required=False)
    has_more = serializers.BooleanField()


class AuditPageSerializer(ResponseSerializer):
    # `data` is taken by Serializer; the key is restored below.
    entries = AuditEntrySerializer(many=True)
    pagination = PaginationSerializer()

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        fields = super().get_fields()
        return {"data": fields["entries"], "pagination": fields["pagination"]}


class JobSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    kind = serializers.CharField()
    status = serializers.ChoiceField(choices=Job.Status.choices)
    done = serializers.IntegerField()
    total = serializers.IntegerField(allow_null=True)
    params = JsonObjectField()
    result = JsonObjectField(allow_null=True)
    error = serializers.CharField()
    cancel_requested = serializers.BooleanField()
    retry_of = serializers.UUIDField(allow_null=True)
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class JobItemSerializer(ResponseSerializer):
    key = serializers.CharField()
    outcome = serializers.CharField()
    message = serializers.CharField()
    detail = JsonField(allow_null=True)


class JobDetailSerializer(JobSerializer):
    items = JobItemSerializer(many=True)
