"""What the APIs of all dual-written kinds share: drift, repair, and answering once the cluster has confirmed."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action

from cluster.models import SYNC_STATES
from cluster.names import RESERVED
from cluster.wait import Write
from opencrane.api import params
from opencrane.api.fields import DnsLabelField, StringListField
from opencrane.api.responses import json_response
from opencrane.api.serializers import AcceptedSerializer, ResponseSerializer, StrictSerializer, camelize
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from operations import repairs
from operations.driftschemas import DriftReportSerializer, RepairReportSerializer
from operations.models import Job


class RepairSerializer(StrictSerializer):
    names = StringListField(
        required=False,
        allow_null=True,
        max_items=10_000,
        help_text="Repair only these; absent or null means every mismatch.",
    )


class NameField(DnsLabelField):
    """The name of a new object."""

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if name in RESERVED:
            raise serializers.ValidationError("This name is reserved.")
        return name


class SyncSerializer(ResponseSerializer):
    """How the cluster follows a row."""

    state = serializers.ChoiceField(choices=SYNC_STATES)
    generation = serializers.IntegerField()
    observed_generation = serializers.IntegerField()
    attempts = serializers.IntegerField()
    error = serializers.CharField(allow_null=True)
    failing_since = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)


class DualWrittenViewSet(ApiViewSet):
    """Base of the viewsets of tenants, policies and cluster tenants.

    Attributes:
        kind: name of the kind, as the sync engine knows it.
    """

    kind: ClassVar[str]
    lookup_field = "name"
    failures: ClassVar[Mapping[str, Sequence[str]]] = {
        "create": ("409", "422", "502", "504"),
        "update": ("409", "422", "502", "504"),
        "destroy": ("409", "422", "502", "504"),
        "drift": ("502",),
        "repair": ("409", "502"),
    }

    @extend_schema(responses={200: DriftReportSerializer})
    @action(detail=False, methods=["get"])
    def drift(self, request: ApiRequest) -> HttpResponse:
        """Compare every custom resource with its row, now."""
        return json_response(repairs.drift_report(self.kind))

    @extend_schema(
        request=RepairSerializer,
        parameters=[OpenApiParameter("dryRun", {"type": "boolean", "default": True})],
        responses={200: RepairReportSerializer, 202: AcceptedSerializer},
    )
    @action(detail=False, methods=["post"])
    def repair(self, request: ApiRequest) -> HttpResponse:
        """Let the custom resources win: rows are made and changed to match, nothing is deleted."""
        names = self.optional_body(RepairSerializer).get("names")
        if params.boolean(request, "dryRun", default=True):
            return json_response(repairs.repair_plan(self.kind, names=names))
        job = repairs.repair_and_wait(self.kind, names=names, actor=self.actor)
        if job.status != Job.Status.SUCCEEDED:
            return json_response({"jobId": job.pk, "status": job.status}, status=202)
        return json_response(job.result)

    def spec(self, serializer_class: Any) -> dict[str, Any]:
        """The request's body as spec fields."""
        return {camelize(key): value for key, value in self.parsed_body(serializer_class).items()}

    def optional_body(self, serializer_class: Any) -> dict[str, Any]:
        """The request's body, or nothing where there is none."""
        body: Any = self.request.data
        return {} if body is None else self.parsed_body(serializer_class)

    def confirmed(self, write: Write, name: str, status: str) -> HttpResponse:
        """The answer to a write, once the cluster has it."""
        write.wait()
        return json_response({"name": name, "status": status})
