"""Health of the platform itself: dependencies, the cluster, what waits, and whether the scheduler runs."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from cluster.kinds import all_kinds
from opencrane.console.listing import COUNT_CAP, as_count
from opencrane.console.pages import ConsolePage
from opencrane.health import check_dependencies
from operations import selectors
from operations.views.drift import interval_seconds, verdict
from operations.views.jobs import job_label

_WORDS = {
    "database": ("PostgreSQL", "database"),
    "broker": ("Broker (Redis or Valkey)", "swap_horiz"),
    "cluster": ("Kubernetes API server", "hub"),
}


class HealthPage(ConsolePage):
    resource = "metrics"
    title = "System health"
    template_name = "operations/health.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        checks = check_dependencies()
        evaluations = selectors.drift_evaluations()
        kinds = []
        for kind in all_kinds():
            backlog = selectors.sync_backlog(kind, COUNT_CAP)
            kinds.append(
                {
                    "name": kind.name,
                    "waiting": as_count(backlog["count"]),
                    "failing": as_count(backlog["failing"]),
                    "oldest": backlog["oldest"],
                    "verdict": verdict(evaluations.get(kind.name)),
                }
            )
        dependencies = [
            {"key": name, "title": _WORDS[name][0], "icon": _WORDS[name][1], **check} for name, check in checks.items()
        ]
        return self.render(
            {
                "dependencies": dependencies,
                "is_well": all(check["ok"] for check in checks.values()),
                "cluster": selectors.cluster_health(),
                "definitions": selectors.definitions(),
                "kinds": kinds,
                "interval": interval_seconds(),
                "jobs": [{"job": job, "label": job_label(job)} for job in selectors.jobs_to_look_at(10)],
            }
        )


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("health/", HealthPage.as_view(), "health")
    site.add_navigation("Operations", "System health", "monitor_heart", "admin:health", resource="metrics", position=60)
