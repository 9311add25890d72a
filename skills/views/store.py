"""The OCI store: what is in it, what is on its way, and the backfill."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from opencrane.api.keyset import Keyset
from opencrane.console.listing import listing
from opencrane.console.pages import ConsoleAction, ConsolePage
from operations import selectors as operations
from operations.views.jobs import progress_values
from skills import store_reading
from skills.models import SkillBundle
from skills.services import backfill, publishing

STATES = {
    "pushed": ("ok", "cloud_done", "In the store"),
    "pending": ("info", "cloud_upload", "On its way"),
    "failed": ("bad", "cloud_off", "Refused"),
    "none": ("muted", "inventory_2", "Never pushed"),
}
WAITING = Keyset([("oci_not_before", "asc"), ("id", "asc")], name="pushes in the console")


class StorePage(ConsolePage):
    resource = "skills"
    title = "Skill store"
    template_name = "skills/store.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        state = request.GET.get("state", "")
        state = state if state in STATES else ""
        counts = store_reading.published_by_state()
        found = store_reading.published_in(state)
        page = listing(request, WAITING, found)
        running = operations.job_under_way(backfill.KIND)
        last = None if running else store_reading.last_backfill()
        return self.render(
            {
                "registry": settings.SKILL_OCI_REGISTRY_URL,
                "repository": settings.SKILL_OCI_REPOSITORY,
                "is_logging_in": bool(settings.SKILL_OCI_USERNAME),
                "states": [{"key": key, "chip": words, "count": counts.get(key, 0)} for key, words in STATES.items()],
                "published": sum(counts.values()),
                "state": state,
                "rows": [{"bundle": row, "chip": STATES[row.oci_state]} for row in page.rows],
                "listing": page,
                "running": progress_values(running) if running else None,
                "last": last,
                "last_result": (last.result or {}) if last else {},
            }
        )


class StoreAction(ConsoleAction):
    """Start a backfill."""

    resource = "skills"

    def act(self) -> str:
        backfill.start_backfill(actor=self.actor)
        return self.back()

    def back(self) -> str:
        return reverse("admin:skill_store")


class PushAction(ConsoleAction):
    """Push one bundle now."""

    resource = "skills"

    def act(self, *, bundle_id: UUID) -> str:
        bundle: SkillBundle = publishing.request_push(bundle_id=bundle_id, actor=self.actor)
        messages.info(self.request, f"A worker pushes {bundle} now; the result shows here.")
        return self.back(bundle_id=bundle_id)

    def back(self, *, bundle_id: UUID) -> str:
        return self.next_or(reverse("admin:skill_store"))


def register() -> None:
    """Called by `skills.admin`."""
    site: Any = admin.site
    site.add_page("skill-store/", StorePage.as_view(), "skill_store")
    site.add_page("skill-store/backfill/", StoreAction.as_view(), "skill_backfill")
    site.add_page("skill-store/push/<uuid:bundle_id>/", PushAction.as_view(), "skill_push")
    site.add_navigation("Skills", "Store", "inventory_2", "admin:skill_store", resource="skills", position=28)
