"""Jobs: what runs, what ran, what went wrong; cancel and retry."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

from opencrane.api.keyset import Keyset
from opencrane.console.access import READ, may
from opencrane.console.listing import Filter, FilterBar, listing
from opencrane.console.pages import ConsoleAction, ConsolePage
from operations import jobs as runners
from operations import selectors
from operations.job_files import has_file
from operations.job_pages import file_response
from operations.models import Job, JobItem
from operations.services import jobs

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="jobs in the console")
ITEMS = Keyset([("id", "asc")], name="job items in the console")
FAILED_SHOWN = 20
KIND_LABELS = {
    "cluster.repair": "Repair",
    "cluster.check_drift": "Drift check",
    "audit.export": "Export of the audit trail",
    "skills.backfill": "Backfill of the skill store",
    "skills.sync_source": "Sync of a source",
    "budgets.export": "Export of usage",
}
# Kind of job to what it works on, and the name of the page with their list.
KIND_LISTS: dict[str, tuple[str, str]] = {}


def job_label(job: Job) -> str:
    """What a job does, in words: `Bulk action on tenants: suspend`."""
    label = KIND_LABELS.get(job.kind, job.kind)
    about = job.params.get("action") or job.params.get("kind") or job.params.get("source") or ""
    return f"{label}: {about}" if about else label


class JobList(ConsolePage):
    resource = "jobs"
    title = "Jobs"
    template_name = "operations/jobs.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = FilterBar(
            request,
            [
                Filter("status", "Status", "choice", [(each.value, each.label) for each in Job.Status]),
                Filter("kind", "Kind", "choice", list(KIND_LABELS.items())),
                Filter("actor", "Started by"),
            ],
            has_search=False,
        )
        page = listing(request, NEWEST, selectors.jobs_matching(bar.values()))
        rows = [{"job": job, "label": job_label(job)} for job in page.rows]
        return self.render({"bar": bar, "listing": page, "rows": rows, "is_filtered": bool(bar.active)})


class JobPage(ConsolePage):
    resource = "jobs"
    template_name = "operations/job.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        job = selectors.job_by_id(job_id)
        if request.GET.get("part") == "progress":
            response = self.fragment("operations/_job_progress.html", progress_values(job))
            # Once it has ended, the whole page has more to say: results, retry.
            if job.is_finished:
                response["HX-Refresh"] = "true"
            return response
        only = request.GET.get("outcome", "")[:40]
        items = selectors.job_items(job, only)
        page = listing(request, ITEMS, items, rows=100)
        counts = selectors.job_outcomes(job)
        return self.render(
            {
                "title": job_label(job),
                "only": only,
                "listing": page,
                "counts": counts,
                "failures": [] if only else selectors.job_failures(job, FAILED_SHOWN),
                "can_retry": job.is_finished
                and (job.status in (Job.Status.FAILED, Job.Status.CANCELLED) or JobItem.Outcome.FAILED in counts),
                "failed_count": counts.get(JobItem.Outcome.FAILED, 0),
                "has_file": has_file(job) and may(request.user, "audit", READ),
                "works_on": KIND_LISTS.get(job.kind),
                "is_known": runners.runner_for(job.kind) is not None,
            }
            | progress_values(job)
        )


def progress_values(job: Job) -> dict[str, Any]:
    """What the progress bar shows; used by pages that follow a job of their own as well."""
    percent = min(100, round(100 * job.done / job.total)) if job.total else None
    return {"job": job, "label": job_label(job), "percent": 100 if job.status == "succeeded" else percent}


class JobFile(ConsolePage):
    """The file that an export made."""

    resource = "audit"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponseBase:
        return file_response(selectors.job_by_id(job_id))


class JobCancel(ConsoleAction):
    resource = "jobs"

    def act(self, *, job_id: UUID) -> str:
        job = jobs.cancel_job(job_id=job_id, actor=self.actor)
        told = "cancelled" if job.is_finished else "asked to stop; it does after the step it is at"
        messages.info(self.request, f"The job is {told}. What it has done stays done.")
        return self.back(job_id=job_id)

    def back(self, *, job_id: UUID) -> str:
        return reverse("admin:job", args=[job_id])


class JobRetry(ConsoleAction):
    """A new job, for what failed in this one."""

    resource = "jobs"

    def act(self, *, job_id: UUID) -> str:
        return reverse("admin:job", args=[jobs.retry_job(job_id=job_id, actor=self.actor).pk])

    def back(self, *, job_id: UUID) -> str:
        return reverse("admin:job", args=[job_id])


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("jobs/", JobList.as_view(), "jobs")
    site.add_page("jobs/<uuid:job_id>/", JobPage.as_view(), "job")
    site.add_page("jobs/<uuid:job_id>/file/", JobFile.as_view(), "job_file")
    site.add_page("jobs/<uuid:job_id>/cancel/", JobCancel.as_view(), "job_cancel")
    site.add_page("jobs/<uuid:job_id>/retry/", JobRetry.as_view(), "job_retry")
    site.add_object_page("Job", "admin:job")
    site.add_navigation("Operations", "Jobs", "assignment", "admin:jobs", resource="jobs", position=40)
