"""What tenants' pods report, one row for each tenant, by severity, wave and place on the board."""

from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from awareness import selectors
from awareness.views.rollout import PLACE_LABELS
from opencrane.console.listing import Filter, FilterBar, listing_by
from opencrane.console.pages import ConsolePage

SEVERITIES = {
    "critical": ("bad", "error", "Critical"),
    "warning": ("warn", "warning", "Warning"),
    "ok": ("ok", "check_circle", "Fine"),
}


class ParticipationList(ConsolePage):
    resource = "awareness"
    title = "Participation"
    template_name = "awareness/participation.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        counts = selectors.participation_counts()
        counts["ok"] = counts["total"] - counts["critical"] - counts["warning"]
        waves = selectors.current_rollout().waves
        bar = FilterBar(
            request,
            [
                Filter("severity", "Severity", "choice", [(key, words[2]) for key, words in SEVERITIES.items()]),
                Filter("wave", "Wave", "choice", [(wave, wave) for wave in waves]),
                Filter("place", "On the board", "choice", [(key, words[0]) for key, words in PLACE_LABELS.items()]),
            ],
            "Search name or display name",
        )
        page = listing_by(request, selectors.BY_NAME, partial(selectors.participants, bar.values()))
        return self.render(
            {
                "bar": bar,
                "listing": page,
                "rows": [{"tenant": each, "severity": SEVERITIES[each.severity]} for each in page.rows],
                "stats": [
                    {"key": key, "label": words[2], "count": counts[key], "url": f"{request.path}?severity={key}"}
                    for key, words in SEVERITIES.items()
                ],
                "total": counts["total"],
                "silent_minutes": int(selectors.SILENT_AFTER.total_seconds() // 60),
            }
        )


def register() -> None:
    """Called by `awareness.admin`."""
    site: Any = admin.site
    site.add_page("participation/", ParticipationList.as_view(), "participation")
    site.add_navigation(
        "Awareness", "Participation", "sensors", "admin:participation", resource="awareness", position=37
    )
