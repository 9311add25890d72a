"""What deleted tenants have left in the cluster: parse, call one service, answer."""

from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema

from opencrane.api import params
from opencrane.api.parameters import CURSOR, LIMIT
from opencrane.api.responses import json_response
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from tenants import selectors
from tenants.api.serializers import RetainedDataSerializer, RetainedDataStatusSerializer
from tenants.presentation import retained_data
from tenants.services import retained


class RetainedDataViewSet(ApiViewSet):
    resource: ClassVar[str] = "tenants"
    tag = "Tenants"
    failures: ClassVar[Any] = {"destroy": ("404",)}

    @extend_schema(
        operation_id="retained_data_list",
        parameters=[
            OpenApiParameter("tenant", str, description="Only what a tenant of this name has left."),
            LIMIT,
            CURSOR,
        ],
        responses={200: RetainedDataSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        """Volumes and encryption keys that deleted tenants have left, newest first."""
        found = selectors.retained_data(params.text(request, "tenant") or "")
        rows, headers = selectors.RETAINED_NEWEST.read(request, found)
        return json_response([retained_data(row) for row in rows], headers=headers)

    @extend_schema(
        operation_id="retained_data_delete",
        parameters=[OpenApiParameter("reason", str, description="Why; goes into the audit trail.")],
        responses={200: RetainedDataStatusSerializer},
    )
    def destroy(self, request: ApiRequest, data_id: str) -> HttpResponse:
        """Delete a volume and its key for good; a worker does it within seconds."""
        found = params.parse_uuid(data_id)
        retained.delete_retained(data_id=found, reason=params.text(request, "reason") or "", actor=self.actor)
        return json_response({"id": found, "status": "deleted"})
