"""What pods report, under /api/internal."""

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema

from accounts.pods import InternalViewSet
from awareness.api.serializers import ReportSerializer
from awareness.services.participation import record_participation
from opencrane.api.responses import json_response
from opencrane.api.viewsets import ApiRequest

# Making a serializer costs more than it takes to validate a report, and this one keeps nothing of what it validates.
_REPORT = ReportSerializer()


class InternalParticipationViewSet(InternalViewSet):
    """Reports of a tenant's own pod."""

    # The payload's limit, with room for the rest and for white space.
    body_limit: ClassVar[int] = 64 * 1024

    @extend_schema(exclude=True)
    def report(self, request: ApiRequest) -> HttpResponse:
        """201 for a new report, 200 for one whose key is known."""
        event = _REPORT.run_validation(request.data)
        if record_participation(tenant_id=self.tenant_id, event=event):
            return json_response({"status": "recorded"}, 201)
        return json_response({"status": "duplicate"})
