"""Usage that workloads push, under /api/internal."""

from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema

from accounts.pods import WORKLOAD, InternalViewSet
from budgets.api.serializers import UsageBodySerializer, UsageRecordSerializer
from budgets.models import TokenUsage
from budgets.services.usage import Usage, record_usage
from opencrane.api.responses import json_response
from opencrane.api.viewsets import ApiRequest


class InternalUsageViewSet(InternalViewSet):
    """For workloads that OPENCRANE_INTERNAL_CALLERS names; pods get 403."""

    callers: ClassVar[str] = WORKLOAD

    @extend_schema(exclude=True)
    def record(self, request: ApiRequest) -> HttpResponse:
        """Takes one record, or `{"records": [...]}` with up to 1,000; all of them or none.

        201 when something was new or corrected, else 200. The same again changes nothing.
        """
        is_many = isinstance(request.data, dict) and "records" in request.data
        body = self.parsed_body(UsageBodySerializer if is_many else UsageRecordSerializer)
        given: list[dict[str, Any]] = body["records"] if is_many else [body]
        done = record_usage(
            (
                Usage(
                    request_id=values["request_id"],
                    tenant=values.get("tenant") or "",
                    model=values["model"],
                    input_tokens=values["input_tokens"],
                    output_tokens=values["output_tokens"],
                    cost_usd=values["total_cost_usd"],
                    at=values.get("recorded_at"),
                )
                for values in given
            ),
            source=TokenUsage.Source.PUSH,
            actor=self.actor,
        )
        answer = {
            "recorded": done.new,
            "corrected": done.corrected,
            "duplicates": done.same,
            "overruled": done.overruled,
            "unattributed": done.unattributed,
        }
        return json_response(answer, status=201 if done.new or done.corrected else 200)
