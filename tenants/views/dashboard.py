"""The fleet at a glance. Every number leads to exactly the rows it counts."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from accounts.models import AccessToken
from accounts.selectors import tokens_expiring, tokens_of_person
from opencrane.console.access import READ, may
from opencrane.console.listing import COUNT_CAP, as_count, capped_count
from opencrane.console.pages import ConsolePage
from operations import audit_reading
from operations import selectors as operations
from operations.audit_pages import AuditFilter
from operations.views.drift import verdict
from operations.views.jobs import job_label
from tenants import selectors
from tenants.models import Phase
from tenants.views.listing import SYNC_LABELS

FAILING_SHOWN = 6
JOBS_SHOWN = 5
AUDIT_SHOWN = 8
EXPIRING_SHOWN = 5


class Dashboard(ConsolePage):
    resource = "tenants"
    title = "Fleet at a glance"
    template_name = "tenants/dashboard.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        counts = {key: as_count(value) for key, value in selectors.fleet_counts(COUNT_CAP).items()}
        tenants_url = reverse("admin:tenants")

        def stat(filter_name: str, value: str, label: str) -> dict[str, Any]:
            url = f"{tenants_url}?{urlencode({filter_name: value})}"
            return {"key": value, "label": label, "count": counts[value], "url": url}

        jobs = operations.jobs_to_look_at(JOBS_SHOWN) if may(request.user, "jobs", READ) else []
        entries = []
        if may(request.user, "audit", READ):
            entries = audit_reading.read_page(AuditFilter(), request, rows=AUDIT_SHOWN).entries
        return self.render(
            {
                "total": counts["total"],
                "is_empty": not counts["total"],
                "phases": [stat("phase", phase, phase) for phase in Phase.values],
                "states": [stat("sync", state, label) for state, label in SYNC_LABELS],
                "failing": selectors.failing_tenants(FAILING_SHOWN),
                "failing_count": counts["failing"],
                "verdict": verdict(operations.drift_evaluation("Tenant")),
                "drift_count": capped_count(operations.drift_findings("Tenant")),
                "cluster": operations.cluster_health(),
                "definition_problems": operations.definition_problems(),
                "jobs": [{"job": job, "label": job_label(job)} for job in jobs],
                "entries": entries,
                "expiring": self._expiring_tokens(),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )

    def _expiring_tokens(self) -> list[AccessToken]:
        """Tokens that end soon, of those that this person may see."""
        if not may(self.request.user, "access-tokens", READ):
            return []
        return tokens_expiring(tokens_of_person(self.request.user), EXPIRING_SHOWN)


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_home(Dashboard.as_view())
    site.add_navigation("Fleet", "Dashboard", "dashboard", "admin:index", resource="tenants", position=10)
