"""The audit trail: newest first, by action, kind, actor, tenant, time and text."""

import datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.dateparse import parse_date

from cluster.kinds import all_kinds
from opencrane.console.listing import PAGE_ROWS, Filter, FilterBar, page_of, url_with
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.errors import InvalidError, NotFoundError
from operations import audit_export, audit_reading, job_files, selectors
from operations.audit_pages import AuditFilter

# Kinds of resources that are audited without being dual-written.
_PLAIN_KINDS = (
    "AccessToken", "AwarenessRollout", "Budget", "DeviceGrant", "Group", "Job", "LitellmKey", "McpServer",
    "ProviderKey", "RetainedData", "Secret", "SessionScope", "SkillBundle", "ThirdPartySource", "TokenUsage", "User",
    "Webhook",
)  # fmt: skip


class AuditList(ConsolePage):
    resource = "audit"
    title = "Audit"
    template_name = "operations/audit.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        kinds = sorted({*_PLAIN_KINDS, *(kind.name for kind in all_kinds())})
        bar = FilterBar(
            request,
            [
                Filter("action", "Action", "text", _same(audit_reading.known_actions()), placeholder="tenant.*"),
                Filter("kind", "Kind", "choice", _same(kinds)),
                Filter("actor", "Actor", "text", _same(audit_reading.known_actors())),
                Filter("tenant", "Tenant", "text", placeholder="Exact name"),
                Filter("since", "From (UTC)", "date"),
                Filter("until", "To, included", "date"),
                Filter("resource", "Resource", "hidden"),
                Filter("request", "Request", "hidden"),
            ],
            search_label="Search messages",
        )
        values = bar.values()
        wanted = _wanted(values)
        found = audit_reading.read_page(wanted, request, rows=PAGE_ROWS)
        return self.render(
            {
                "bar": bar,
                "entries": found.entries,
                "listing": page_of(request, found.entries, found.next_cursor),
                "newest_url": url_with(request),
                "filters": values,
                "seals": _seals(),
                "formats": [("jsonl", "JSON lines"), ("csv", "CSV")],
                "is_short": bool(values.get("q")) and len(found.entries) < PAGE_ROWS and bool(found.next_cursor),
            }
        )


class AuditExport(ConsoleAction):
    """Start the export of what the filters show."""

    resource = "audit"

    def act(self) -> str:
        names = ("action", "kind", "actor", "tenant", "since", "until", "resource", "request", "q")
        values = {name: text for name in names if (text := self.request.POST.get(name, "").strip()[:500])}
        file_format = self.request.POST.get("format", "")
        if file_format not in job_files.FORMATS:
            raise InvalidError(fields={"format": ["Has to be jsonl or csv."]})
        job = audit_export.start_export(wanted=_wanted(values), file_format=file_format, actor=self.actor)
        return reverse("admin:job", args=[job.pk])

    def back(self) -> str:
        return reverse("admin:audit")


class AuditEntryPage(ConsolePage):
    """One entry, nothing cut."""

    resource = "audit"
    title = "Audit entry"
    template_name = "operations/audit_entry.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, entry_id: int) -> HttpResponse:
        entry = selectors.audit_entry(entry_id)
        if entry is None:
            raise NotFoundError("There is no such audit entry.")
        if request.GET.get("part") == "diff":
            return self.fragment("operations/_audit_diff.html", {"entry": entry})
        return self.render({"entry": entry})


def _wanted(values: dict[str, str]) -> AuditFilter:
    """What the filters of the page ask for."""
    return AuditFilter(
        tenant=values.get("tenant"),
        action=values.get("action"),
        resource=values.get("resource") or (f"{values['kind']}/*" if "kind" in values else None),
        actor=values.get("actor"),
        request_id=values.get("request"),
        since=_midnight(values.get("since")),
        until=_midnight(values.get("until"), days=1),
        q=values.get("q"),
    )


def _seals() -> dict[str, Any]:
    """What the badge says: what was sealed last, and what the last check of the seals found."""
    return {"last": selectors.newest_seal(), "check": selectors.audit_verification()}


def _same(values: list[str]) -> list[tuple[str, str]]:
    return [(value, value) for value in values]


def _midnight(text: str | None, *, days: int = 0) -> datetime.datetime | None:
    """The first moment of a day in UTC; None for what is no date."""
    try:
        day = parse_date(text or "")
        if day is None:
            return None
        return datetime.datetime.combine(day, datetime.time(), datetime.UTC) + datetime.timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("audit/", AuditList.as_view(), "audit")
    site.add_page("audit/export/", AuditExport.as_view(), "audit_export")
    site.add_page("audit/<int:entry_id>/", AuditEntryPage.as_view(), "audit_entry")
    site.add_navigation("Operations", "Audit", "history", "admin:audit", resource="audit", position=50)
