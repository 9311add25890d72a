"""/metrics: the machines, and drift over time."""

from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers

from opencrane.api import params
from opencrane.api.parameters import query
from opencrane.api.responses import json_response
from opencrane.api.serializers import ResponseSerializer
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from opencrane.errors import InvalidError
from operations import selectors
from operations.models import ServerSample
from operations.services import drift_metrics, server_metrics

DAY = timedelta(days=1)
_SPAN = [
    query("since", "From this time on; a day before `until`, if absent.", "date-time"),
    query("until", "Before this time; now, if absent.", "date-time"),
]


class _UsageSerializer(ResponseSerializer):
    cpu_percent = serializers.FloatField(help_text="Of all cores together, 0 to 100.")
    memory_used_bytes = serializers.IntegerField()
    memory_total_bytes = serializers.IntegerField()
    storage_used_bytes = serializers.IntegerField()
    storage_total_bytes = serializers.IntegerField()
    active_tenants = serializers.IntegerField(help_text="Tenants in phase Running.")


class ServerMetricsSerializer(_UsageSerializer):
    source = serializers.ChoiceField(  # type: ignore[assignment]
        choices=ServerSample.Source.choices,
        help_text="Whose CPU and memory: the cluster's nodes, or the host OpenCrane runs on. Storage is the host's.",
    )
    sampled_at = serializers.DateTimeField()


class ServerPointSerializer(_UsageSerializer):
    at = serializers.DateTimeField()


class DriftMetricsSerializer(ResponseSerializer):
    source_count = serializers.IntegerField(help_text="Custom resources in the cluster.")
    projection_count = serializers.IntegerField(help_text="Rows.")
    drift_count = serializers.IntegerField()
    pending_count = serializers.IntegerField(help_text="Left out, as writes were in flight.")
    max_projection_lag_seconds = serializers.FloatField(
        help_text="Age of the oldest write that the cluster has not confirmed."
    )
    evaluated_at = serializers.DateTimeField()
    error = serializers.CharField(allow_null=True, help_text="Why there are no newer counts.")


class ProjectionDriftSerializer(ResponseSerializer):
    tenant = DriftMetricsSerializer()
    access_policy = DriftMetricsSerializer()
    evaluated_at = serializers.DateTimeField(help_text="The oldest of the evaluations.")
    alert_fired = serializers.BooleanField(help_text="Drift has reached the threshold and was not below it since.")
    threshold = serializers.IntegerField(help_text="Mismatches of all kinds together; 0 for no alert.")


class DriftPointSerializer(ResponseSerializer):
    at = serializers.DateTimeField()
    kind = serializers.CharField()
    drift_count = serializers.IntegerField()
    pending_count = serializers.IntegerField()
    max_projection_lag_seconds = serializers.FloatField()


class MetricsViewSet(ApiViewSet):
    resource: ClassVar[str] = "metrics"
    failures = {"projection_drift": ("502", "504")}

    @extend_schema(
        operation_id="metrics_server", summary="How busy the machines are", responses=ServerMetricsSerializer
    )
    def server(self, request: ApiRequest) -> HttpResponse:
        """The newest sample; one is taken each minute."""
        return json_response(sample_as_json(server_metrics.fresh_sample()))

    @extend_schema(
        operation_id="metrics_server_history",
        summary="How busy the machines were",
        parameters=_SPAN,
        responses=ServerPointSerializer(many=True),
    )
    def server_history(self, request: ApiRequest) -> HttpResponse:
        """Averages, oldest first, of at most 300 spans of the same length."""
        return json_response(selectors.server_history(*span(request)))

    @extend_schema(
        operation_id="metrics_projection_drift",
        summary="How far rows and resources disagree",
        parameters=[
            OpenApiParameter("refresh", {"type": "boolean", "default": False}, description="Compare everything now.")
        ],
        responses=ProjectionDriftSerializer,
    )
    def projection_drift(self, request: ApiRequest) -> HttpResponse:
        refresh = params.boolean(request, "refresh", default=False)
        return json_response(drift_metrics.projection_drift(refresh=refresh))

    @extend_schema(
        operation_id="metrics_projection_drift_history",
        summary="How far rows and resources disagreed",
        parameters=_SPAN,
        responses=DriftPointSerializer(many=True),
    )
    def drift_history(self, request: ApiRequest) -> HttpResponse:
        """The highest values of each kind within at most 300 spans of the same length, oldest first."""
        return json_response(selectors.drift_history(*span(request)))


def span(request: Any) -> tuple[datetime, datetime]:
    """The request's `since` and `until`.

    Raises:
        InvalidError: they are no times, the wrong way round, or more than ten years apart.
    """
    until = params.moment(request, "until") or timezone.now()
    try:
        since = params.moment(request, "since") or until - DAY
    except OverflowError as exc:
        raise InvalidError(fields={"until": ["Is too early."]}) from exc
    if not timedelta(0) < until - since <= 3653 * DAY:
        raise InvalidError(fields={"since": ["Has to be before `until`, by ten years at most."]})
    return since, until


def sample_as_json(sample: ServerSample) -> dict[str, Any]:
    """A sample as the API shows it."""
    return {
        "cpuPercent": round(sample.cpu_percent, 2),
        "memoryUsedBytes": sample.memory_used,
        "memoryTotalBytes": sample.memory_total,
        "storageUsedBytes": sample.storage_used,
        "storageTotalBytes": sample.storage_total,
        "activeTenants": sample.active_tenants,
        "source": sample.source,
        "sampledAt": sample.at,
    }
