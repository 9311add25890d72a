"""How drift reports and repairs read, for every dual-written kind."""

from typing import Any

from rest_framework import serializers

from opencrane.api.fields import JsonField
from opencrane.api.serializers import ResponseSerializer


class DifferenceSerializer(ResponseSerializer):
    field = serializers.CharField()
    cluster = JsonField(allow_null=True)
    row = JsonField(allow_null=True)


class _Differing(ResponseSerializer):
    """What mismatches and repairs both tell about an object."""

    name = serializers.CharField()
    fields_ = serializers.ListField(child=serializers.CharField(), required=False, help_text="Sorted spec names.")
    differences = DifferenceSerializer(many=True, required=False)

    def get_fields(self) -> dict[str, Any]:
        # Called `fields` outside; a serializer has an attribute of that name.
        fields = super().get_fields()
        fields["fields"] = fields.pop("fields_")
        return fields


class MismatchSerializer(_Differing):
    issue = serializers.ChoiceField(choices=["missing-source", "missing-projection", "field-mismatch"])
    managers = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="Who else holds each field in the cluster, newest first.",
    )


class DriftSummarySerializer(ResponseSerializer):
    source_count = serializers.IntegerField()
    projection_count = serializers.IntegerField()
    drift_count = serializers.IntegerField()
    pending_count = serializers.IntegerField()


class DriftReportSerializer(ResponseSerializer):
    resource = serializers.CharField()
    mode = serializers.ChoiceField(choices=["detect-only"])
    compared_fields = serializers.ListField(child=serializers.CharField())
    summary = DriftSummarySerializer()
    mismatches = MismatchSerializer(many=True)


class RepairEntrySerializer(_Differing):
    action = serializers.ChoiceField(choices=["created", "updated", "skipped"])
    reason = serializers.CharField()
    dry_run = serializers.BooleanField()


class RepairReportSerializer(ResponseSerializer):
    resource = serializers.CharField()
    mode = serializers.ChoiceField(choices=["dry-run", "apply"])
    repaired_count = serializers.IntegerField()
    skipped_count = serializers.IntegerField()
    entries = RepairEntrySerializer(many=True)
