"""The fleet by phase: who is in trouble and why, first."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from opencrane.console.listing import COUNT_CAP, as_count
from opencrane.console.pages import ConsolePage
from operations import selectors as operations
from tenants import selectors
from tenants.models import Phase
from tenants.running import why_not_running

SHOWN = 12
_ORDER = (Phase.ERROR, Phase.PENDING, Phase.RUNNING, Phase.SUSPENDED)


class FleetByPhase(ConsolePage):
    resource = "tenants"
    title = "Fleet by phase"
    template_name = "tenants/fleet.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        counts = selectors.fleet_counts(COUNT_CAP)
        now = timezone.now()
        columns: list[dict[str, Any]] = []
        for phase in _ORDER:
            tenants = selectors.tenants_in_phase(phase, SHOWN) if counts[phase] else []
            columns.append(
                {
                    "phase": phase.value,
                    "count": as_count(counts[phase]),
                    "url": f"{reverse('admin:tenants')}?{urlencode({'phase': phase.value})}",
                    "rows": [{"tenant": tenant, "why": why_not_running(tenant, now)} for tenant in tenants],
                    "has_more": counts[phase] > len(tenants),
                }
            )
        return self.render(
            {
                "columns": columns,
                "is_empty": not counts["total"],
                "definition_problems": operations.definition_problems(),
            }
        )


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("fleet/", FleetByPhase.as_view(), "fleet")
    site.add_navigation("Fleet", "By phase", "monitoring", "admin:fleet", resource="tenants", position=15)
