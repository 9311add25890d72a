"""Third-party sources: the list, one source with its inventory and syncs, the form, approval, sync and import."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from opencrane.api.params import parse_uuid
from opencrane.console.editing import EditPage, NewPage, Precondition
from opencrane.console.forms import FormField, ObjectForm, Section
from opencrane.console.listing import Filter, FilterBar, listing
from opencrane.console.lists import ListPage
from opencrane.console.objects import ByName, ObjectActions
from opencrane.console.pages import complaint
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError, InvalidError
from operations import selectors as operations
from operations.audit_pages import AuditFilter
from operations.views.jobs import progress_values
from operations.views.objects import AuditedPage
from policies.models import Scope
from skills import source_reading
from skills.api.sources import CreateSourceSerializer, UpdateSourceSerializer
from skills.errors import ThirdPartySourceNotFoundError
from skills.models import ThirdPartySource
from skills.services import sources, syncing

TYPES = {
    "git-repository": "Git repository",
    "anthropic-skills": "Anthropic skills",
    "mcp-registry": "MCP registry",
    "manual-upload": "Manual upload",
}
STATUSES = {
    "pending-approval": ("warn", "approval", "Waits for approval"),
    "healthy": ("ok", "check_circle", "Healthy"),
    "syncing": ("info", "progress_activity", "Syncing"),
    "error": ("bad", "error", "Cannot be read"),
}
STATES = {
    "new": ("info", "fiber_new", "New"),
    "update": ("warn", "upgrade", "Update"),
    "imported": ("ok", "check_circle", "Imported"),
    "unusable": ("bad", "block", "Cannot be imported"),
    "gone": ("muted", "hide_source", "Gone"),
}
KINDS = {"skill": "Skill", "mcp-server": "MCP server"}
ROWS, SYNCS_SHOWN, FAILURES_TOLD = 50, 20, 5

SECTIONS = (
    Section(
        "Source",
        (
            FormField("name", "Name", help="What people call it; bundles from it carry it.", is_required=True),
            FormField("type", "Type", "select", options=tuple(TYPES.items())),
            FormField(
                "url",
                "Address",
                help="An absolute http(s) URL without user name and password. Of an MCP registry, without /v0/servers.",
                is_required=True,
            ),
            FormField("ref", "Branch or tag", help="Of a repository. Blank: what the repository itself prefers."),
            FormField(
                "syncMode",
                "Sync",
                "select",
                "Scheduled sources are read by themselves, once they have been approved.",
                options=(("manual", "When somebody asks"), ("scheduled", "Scheduled")),
            ),
        ),
    ),
)


class SourceForm(ObjectForm[ThirdPartySource]):
    sections = SECTIONS
    creates, updates = CreateSourceSerializer, UpdateSourceSerializer

    @classmethod
    def of(cls, source: ThirdPartySource) -> "SourceForm":
        raw = {name: getattr(source, name) for name in ("name", "type", "url", "ref")}
        return cls(raw | {"syncMode": source.sync_mode})


class SourceList(ListPage):
    resource = "third-party-sources"
    title = "Third-party sources"
    template_name = "skills/sources.html"
    noun = "source"
    search = "Search name or address"
    keyset = source_reading.NEWEST
    new_page = "admin:source_new"

    def filters(self) -> list[Filter]:
        return [
            Filter("sync_status", "Status", "choice", [(key, words[2]) for key, words in STATUSES.items()]),
            Filter("type", "Type", "choice", list(TYPES.items())),
        ]

    def found(self, filters: dict[str, str]) -> QuerySet[ThirdPartySource]:
        return source_reading.sources_matching(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        return [
            {"status": STATUSES[row.sync_status], "type": TYPES[row.type], "items": row.item_count or 0}
            for row in objects
        ]


class SourcePage(AuditedPage[Any]):
    resource = "third-party-sources"
    template_name = "skills/source.html"
    noun = "third-party source"
    url_name = "source"
    header_template = "skills/_source_header.html"
    tab_templates = "skills/source_"
    tabs = {"inventory": "Inventory", "imports": "Bundles from here", "syncs": "Syncs", "audit": "Audit"}
    needs = {"audit": "audit", "syncs": "jobs", "imports": "skills"}

    def find(self, source_id: UUID) -> Any:
        return source_reading.source_shown(source_id)

    def header(self, source: Any) -> dict[str, Any]:
        job = operations.job_under_way(source_reading.exclusive_key(source.pk))
        return {
            "title": source.name,
            "generation": source.generation,
            "source": source,
            "status": STATUSES[source.sync_status],
            "type": TYPES[source.type],
            "is_manual": source.type == ThirdPartySource.Type.MANUAL_UPLOAD,
            "is_pending": source.state == ThirdPartySource.State.PENDING_APPROVAL,
            "is_scheduled": source_reading.is_scheduled(source),
            "is_due": source.next_sync_at <= timezone.now(),
            "running": progress_values(job) if job else None,
        }

    def inventory_tab(self, source: ThirdPartySource) -> dict[str, Any]:
        counts = source_reading.item_counts(source)
        states = [(key, f"{words[2]} ({counts.get(key, 0)})") for key, words in STATES.items()]
        bar = FilterBar(
            self.request,
            [
                Filter("state", "State", "choice", states),
                Filter("kind", "Kind", "choice", list(KINDS.items())),
            ],
            "Search name, description or upstream id",
        )
        found = source_reading.items_of(source, bar.values())
        page = listing(self.request, source_reading.ITEMS_BY_NAME, found, rows=ROWS)
        rows = [
            {
                "item": item,
                "state": STATES[item.import_state],
                "kind": KINDS[item.kind],
                "can_import": item.import_state in (source_reading.NEW, source_reading.UPDATE),
                "details": {key: item.details[key] for key in ("endpoint", "folder") if item.details.get(key)},
            }
            for item in page.rows
        ]
        return {
            "bar": bar,
            "listing": page,
            "rows": rows,
            "counts": {key: (words, counts[key]) for key, words in STATES.items() if counts.get(key)},
            "total": sum(counts.values()),
            "scopes": Scope.choices,
        }

    def imports_tab(self, source: ThirdPartySource) -> dict[str, Any]:
        found = source_reading.imports_from(source)
        page = listing(self.request, source_reading.BUNDLES_NEWEST, found)
        return {"listing": page, "servers": source_reading.servers_from(source)}

    def syncs_tab(self, source: ThirdPartySource) -> dict[str, Any]:
        return {"jobs": source_reading.syncs_of(source, SYNCS_SHOWN), "shown": SYNCS_SHOWN}

    def audited(self, source: Any) -> AuditFilter:
        return AuditFilter(resource=f"ThirdPartySource/{source.name}")


class NewSource(NewPage):
    resource = "third-party-sources"
    title = "New third-party source"
    form = SourceForm
    submit = "Create source"
    list_page = "admin:sources"

    def blank(self) -> SourceForm:
        return SourceForm({"type": "git-repository", "syncMode": "manual"}, is_new=True)

    def create(self, values: dict[str, Any]) -> str:
        source_id = sources.create_source(values=values, actor=self.actor)
        messages.success(self.request, f"Source {values['name']} is saved. It is read once it has been approved.")
        return SourcePage.url(source_id)


class EditSource(EditPage[ThirdPartySource]):
    resource = "third-party-sources"
    template_name = "skills/source_form.html"
    page = SourcePage
    form = SourceForm
    review_template = ""

    def more(self, source: ThirdPartySource) -> dict[str, Any]:
        return {"is_approved": source.state != ThirdPartySource.State.PENDING_APPROVAL}

    def save(self, source: ThirdPartySource, changes: dict[str, Any], precondition: Precondition) -> None:
        sources.update_source(source_id=source.pk, changes=changes, precondition=precondition, actor=self.actor)
        messages.success(self.request, f"Source {changes.get('name', source.name)} is saved.")


class SourceActions(ObjectActions):
    resource = "third-party-sources"
    page = SourcePage

    def do_approve(self, source_id: UUID) -> None:
        sources.approve_source(source_id=source_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, "The source is approved; it may be read now.")

    def do_sync(self, source_id: UUID) -> None:
        syncing.start_sync(source_id=source_id, actor=self.actor)

    def do_import(self, source_id: UUID) -> None:
        chosen = [found for text in self.request.POST.getlist("item")[:ROWS] if (found := parse_uuid(text))]
        if not chosen:
            raise InvalidError("Nothing was imported: no item is selected.")
        scope = self.request.POST.get("scope", "")
        if scope not in Scope.values:
            raise InvalidError(fields={"scope": ["Is missing from the form; open the page again."]})
        done, failed = 0, []
        names = source_reading.item_names(chosen)
        for item_id in chosen:
            try:
                sources.import_item(source_id=source_id, item_id=item_id, scope=scope, actor=self.actor)
                done += 1
            except DomainError as exc:
                failed.append(f"{names.get(item_id, item_id)}: {complaint(self.request, exc)}")
        if done:
            word = "item is a draft now; it" if done == 1 else "items are drafts now; each"
            messages.success(self.request, f"{done} {word} goes its way from here: scan and review, or grants.")
        for why in failed[:FAILURES_TOLD]:
            messages.error(self.request, f"Not imported, {why}")
        if len(failed) > FAILURES_TOLD:
            messages.error(self.request, f"{len(failed) - FAILURES_TOLD} more were not imported.")

    def do_delete(self, source_id: UUID) -> str:
        name = source_reading.source_by_id(source_id).name
        self.require_typed(name)
        sources.delete_source(source_id=source_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"Source {name} is deleted. What was imported from it stays.")
        return reverse("admin:sources")


class SourceByName(ByName):
    resource = "third-party-sources"
    page = SourcePage
    missing = ThirdPartySourceNotFoundError

    def find(self, name: str) -> ThirdPartySource | None:
        return source_reading.source_named(name)


def register() -> None:
    """Called by `skills.admin`."""
    site: Any = admin.site
    site.add_page("sources/", SourceList.as_view(), "sources")
    site.add_page("new-source/", NewSource.as_view(), "source_new")
    site.add_page("sources/<uuid:source_id>/", SourcePage.as_view(), "source")
    site.add_page("sources/<uuid:source_id>/edit/", EditSource.as_view(), "source_edit")
    site.add_page("sources/<uuid:source_id>/do/<str:action>/", SourceActions.as_view(), "source_do")
    site.add_page("source-named/<path:name>/", SourceByName.as_view(), "source_named")
    site.add_object_page("ThirdPartySource", "admin:source_named")
    site.add_navigation(
        "Skills", "Sources", "travel_explore", "admin:sources", resource="third-party-sources", position=29
    )
