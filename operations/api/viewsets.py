"""/audit and /jobs."""

from typing import Any, ClassVar

from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from opencrane.api import params
from opencrane.api.identity import actor_of
from opencrane.api.keyset import Keyset, next_link
from opencrane.api.parameters import CURSOR, LIMIT, limit_parameter, query
from opencrane.api.responses import json_response, to_json
from opencrane.api.viewsets import ApiViewSet
from operations import audit_export, audit_pages, job_files, selectors
from operations.api.serializers import AuditPageSerializer, JobDetailSerializer, JobSerializer
from operations.errors import JobNotFoundError
from operations.job_pages import file_response, item_as_json, job_as_json
from operations.models import Job, JobItem
from operations.services import jobs

JOBS_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="jobs")
ITEMS_IN_ORDER = Keyset([("id", "asc")], name="job items", default_limit=100)

_JOB_ID = OpenApiParameter("id", str, OpenApiParameter.PATH)
_FILTERS = [
    query("tenant", "Exact tenant name."),
    query("tenantId", "One tenant's UUID: what others of the same name did stays out.", "uuid"),
    query("action", "Exact action, or `tenant.*` for all that begin so."),
    query("resource", "Exact resource, `Tenant/anna`, or `Tenant/*`."),
    query("actor", "Exact name of who did it."),
    query("requestId", "Everything that one request did."),
    query("since", "From this time on.", "date-time"),
    query("until", "Before this time.", "date-time"),
    query("q", "Text within message, resource or action; pages may then be short and still have a next one."),
]


def _wanted(request: Any) -> audit_pages.AuditFilter:
    """What the query parameters of `_FILTERS` ask for."""
    return audit_pages.AuditFilter(
        tenant=params.text(request, "tenant"),
        tenant_id=params.uuid(request, "tenantId"),
        action=params.text(request, "action"),
        resource=params.text(request, "resource"),
        actor=params.text(request, "actor"),
        request_id=params.text(request, "requestId"),
        since=params.moment(request, "since"),
        until=params.moment(request, "until"),
        q=params.text(request, "q"),
    )


class AuditViewSet(ApiViewSet):
    """What was done, by whom, newest first."""

    resource: ClassVar[str] = "audit"

    # Not called `list`, which would make the document say that it answers with an array.
    @extend_schema(
        operation_id="audit_list",
        summary="List audit entries",
        parameters=[
            *_FILTERS,
            limit_parameter(default=100),
            CURSOR,
        ],
        responses=AuditPageSerializer,
    )
    def show(self, request: Any) -> HttpResponse:
        wanted = _wanted(request)
        page = audit_pages.NEWEST.page(request)
        found = audit_pages.audit_page(wanted, page)
        pagination: dict[str, Any] = {"limit": page.limit, "hasMore": found.next_cursor is not None}
        headers = {}
        if found.next_cursor is not None:
            pagination["nextCursor"] = found.next_cursor
            headers["Link"] = next_link(request, found.next_cursor)
        body = b'{"data":' + found.entries + b',"pagination":' + to_json(pagination) + b"}"
        return json_response(body, headers=headers)

    @extend_schema(
        operation_id="audit_export",
        summary="Export audit entries to a file, as a job",
        parameters=[query("format", "JSON lines, by default, or CSV.", enum=job_files.FORMATS), *_FILTERS],
        request=None,
        responses={202: JobSerializer},
    )
    def export(self, request: Any) -> HttpResponse:
        """The job's `file` gives it, for some days."""
        file_format = params.choice(request, "format", job_files.FORMATS) or "jsonl"
        job = audit_export.AUDIT.start(wanted=_wanted(request), file_format=file_format, actor=self.actor)
        return json_response(job_as_json(job), 202)


class JobFileViewSet(ApiViewSet):
    """The file that a job made; whoever may read the audit trail may have it."""

    resource: ClassVar[str] = "audit"
    produces = ("application/x-ndjson", "text/csv", "application/json")

    @extend_schema(
        operation_id="jobs_file",
        summary="The file that an export made",
        parameters=[_JOB_ID],
        responses={(200, "application/x-ndjson"): OpenApiTypes.BINARY, (200, "text/csv"): OpenApiTypes.BINARY},
    )
    def show(self, request: Any, id: str) -> StreamingHttpResponse:
        return file_response(selectors.job_by_id(_job_id(id)))


class JobViewSet(ApiViewSet):
    """Work that outlasts a request."""

    resource: ClassVar[str] = "jobs"
    failures = {"cancel": ("409",), "retry": ("409",)}

    @extend_schema(
        summary="List jobs, newest first",
        parameters=[
            query("status", "Only jobs in this state.", enum=Job.Status.values),
            query("kind", "Only jobs of this kind."),
            LIMIT,
            CURSOR,
        ],
        responses=JobSerializer(many=True),
    )
    def list(self, request: Any) -> HttpResponse:
        filters = {
            "status": params.choice(request, "status", Job.Status.values),
            "kind": params.text(request, "kind"),
        }
        found = Job.objects.filter(**{name: value for name, value in filters.items() if value is not None})
        rows, headers = JOBS_NEWEST.read(request, found)
        return json_response([job_as_json(job) for job in rows], headers=headers)

    @extend_schema(
        summary="Show a job with its items, in the order they were worked on",
        parameters=[
            _JOB_ID,
            query("outcome", "Only items with this outcome, for example `failed`."),
            limit_parameter(default=100),
            CURSOR,
        ],
        responses=JobDetailSerializer,
    )
    def retrieve(self, request: Any, id: str) -> HttpResponse:
        job = selectors.job_by_id(_job_id(id))
        found = JobItem.objects.filter(job=job)
        outcome = params.text(request, "outcome")
        if outcome is not None:
            found = found.filter(outcome=outcome)
        items, headers = ITEMS_IN_ORDER.read(request, found)
        return json_response(job_as_json(job) | {"items": [item_as_json(item) for item in items]}, headers=headers)

    @extend_schema(summary="Cancel a job", parameters=[_JOB_ID], request=None, responses=JobSerializer)
    def cancel(self, request: Any, id: str) -> HttpResponse:
        return json_response(job_as_json(jobs.cancel_job(job_id=_job_id(id), actor=actor_of(request))))

    @extend_schema(
        summary="Start a job again, for its failed items if it has any",
        parameters=[_JOB_ID],
        request=None,
        responses={202: JobSerializer},
    )
    def retry(self, request: Any, id: str) -> HttpResponse:
        return json_response(job_as_json(jobs.retry_job(job_id=_job_id(id), actor=actor_of(request))), 202)


def _job_id(text: str) -> Any:
    job_id = params.parse_uuid(text)
    if job_id is None:
        raise JobNotFoundError
    return job_id
