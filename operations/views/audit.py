"""The audit trail: newest first, by action, kind, actor, tenant, time and text."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from cluster.kinds import all_kinds
from opencrane.console.listing import PAGE_ROWS, Filter, FilterBar, page_of, url_with
from opencrane.console.pages import ConsolePage
from opencrane.errors import NotFoundError
from operations import audit_reading, selectors
from operations.audit_export import AUDIT
from operations.audit_pages import AuditFilter
from operations.views.export import ExportAction, midnight

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


class AuditExport(ExportAction):
    resource = "audit"
    export = AUDIT
    names = ("action", "kind", "actor", "tenant", "since", "until", "resource", "request", "q")
    list_page = "admin:audit"

    def wanted(self, values: dict[str, str]) -> AuditFilter:
        return _wanted(values)


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
        since=midnight(values.get("since")),
        until=midnight(values.get("until"), days=1),
        q=values.get("q"),
    )


def _seals() -> dict[str, Any]:
    """What the badge says: what was sealed last, and what the last check of the seals found."""
    return {"last": selectors.newest_seal(), "check": selectors.audit_verification()}


def _same(values: list[str]) -> list[tuple[str, str]]:
    return [(value, value) for value in values]


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("audit/", AuditList.as_view(), "audit")
    site.add_page("audit/export/", AuditExport.as_view(), "audit_export")
    site.add_page("audit/<int:entry_id>/", AuditEntryPage.as_view(), "audit_entry")
    site.add_navigation("Operations", "Audit", "history", "admin:audit", resource="audit", position=50)
