"""`POST /skills/catalog/backfill`."""

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from opencrane.api.responses import json_response
from opencrane.api.serializers import AcceptedSerializer, ResponseSerializer
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from operations.models import Job
from skills.services import backfill


class BackfillResultSerializer(ResponseSerializer):
    id = serializers.CharField()
    name = serializers.CharField()
    digest = serializers.CharField()
    outcome = serializers.ChoiceField(choices=[backfill.PUSHED, backfill.SKIPPED, backfill.FAILED])
    reason = serializers.CharField(required=False)


class BackfillReportSerializer(ResponseSerializer):
    total = serializers.IntegerField()
    pushed = serializers.IntegerField()
    skipped = serializers.IntegerField(help_text="There is no content, or the store has it already.")
    failed = serializers.IntegerField()
    results = BackfillResultSerializer(many=True)


class BackfillViewSet(ApiViewSet):
    resource: ClassVar[str] = "skills"
    failures = {"backfill": ("409", "502")}

    @extend_schema(
        operation_id="skills_catalog_backfill",
        request=None,
        responses={200: BackfillReportSerializer, 202: AcceptedSerializer},
    )
    def backfill(self, request: ApiRequest) -> HttpResponse:
        """Push every published bundle to the OCI store; what takes longer than a moment goes on as a job."""
        job = backfill.backfill_and_wait(actor=self.actor)
        if job.status != Job.Status.SUCCEEDED:
            return json_response({"jobId": job.pk, "status": job.status}, status=202)
        return json_response(job.result)
