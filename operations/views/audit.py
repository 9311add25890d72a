"""The audit trail: newest first, by action, kind, actor, tenant, time and text."""

import datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.dateparse import parse_date

from cluster.kinds import all_kinds
from opencrane.console.listing import PAGE_ROWS, Filter, FilterBar, page_of, url_with
from opencrane.console.pages import ConsolePage
from opencrane.errors import NotFoundError
from operations import audit_reading, selectors
from operations.audit_pages import AuditFilter

# Kinds of resources that are audited without being dual-written.
_PLAIN_KINDS = ("AccessToken", "AwarenessRollout", "Group", "Job", "McpServer", "SessionScope", "User")


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
        wanted = AuditFilter(
            tenant=values.get("tenant"),
            action=values.get("action"),
            resource=values.get("resource") or (f"{values['kind']}/*" if "kind" in values else None),
            actor=values.get("actor"),
            request_id=values.get("request"),
            since=_midnight(values.get("since")),
            until=_midnight(values.get("until"), days=1),
            q=values.get("q"),
        )
        found = audit_reading.read_page(wanted, request, rows=PAGE_ROWS)
        return self.render(
            {
                "bar": bar,
                "entries": found.entries,
                "listing": page_of(request, found.entries, found.next_cursor),
                "newest_url": url_with(request),
                "is_short": bool(values.get("q")) and len(found.entries) < PAGE_ROWS and bool(found.next_cursor),
            }
        )


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
    site.add_page("audit/<int:entry_id>/", AuditEntryPage.as_view(), "audit_entry")
    site.add_navigation("Operations", "Audit", "history", "admin:audit", resource="audit", position=50)
