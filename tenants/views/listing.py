"""The list of tenants, and the preview of what is to be done to many of them."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse

from opencrane.console.listing import Filter, FilterBar, capped_count, distinct_values, listing, url_with
from opencrane.console.pages import ConsolePage, sentence, tell_refusal
from opencrane.errors import DomainError, InvalidError
from tenants import selectors
from tenants.models import Phase, Tenant
from tenants.services import bulk

SYNC_LABELS = [
    ("synced", "In sync"),
    ("waiting", "Waiting"),
    ("failing", "Failing"),
    ("drifted", "Drifted"),
    ("deleting", "Deleting"),
]
# action -> button, icon, what will happen, whether the count has to be typed
BULK_ACTIONS: dict[str, dict[str, Any]] = {
    "suspend": {"label": "Suspend", "icon": "pause_circle", "future": "suspended", "is_grave": False},
    "resume": {"label": "Resume", "icon": "play_circle", "future": "resumed", "is_grave": False},
    "sync": {"label": "Try now", "icon": "sync", "future": "applied to the cluster again", "is_grave": False},
    "delete": {"label": "Delete", "icon": "delete", "future": "deleted", "is_grave": True},
}


def filter_bar(request: HttpRequest, *, with_teams: bool = True) -> FilterBar:
    """Search and filters of the list, from the URL."""
    teams = distinct_values("tenants_tenant", "team") if with_teams else []
    return FilterBar(
        request,
        [
            Filter("phase", "Health", "choice", [(phase, phase) for phase in Phase.values]),
            Filter("sync", "Sync", "choice", SYNC_LABELS),
            Filter("team", "Team", "text", [(team, team) for team in teams], placeholder="Exact name"),
            Filter("policyRef", "Policy", "hidden"),
            Filter("clusterTenantRef", "Cluster tenant", "hidden"),
        ],
        search_label="Search name, display name or e-mail",
    )


class TenantList(ConsolePage):
    resource = "tenants"
    title = "Tenants"
    template_name = "tenants/list.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = filter_bar(request)
        by_name = request.GET.get("sort") == "name"
        found = selectors.tenants_listed(bar.values())
        if by_name:
            page = listing(request, selectors.BY_NAME, found, lambda row: (row.name,))
        else:
            page = listing(request, selectors.NEWEST_FIRST, found, lambda row: (row.created_at, row.pk))
        rows = [{"tenant": row, "state": selectors.shown_state(row, is_drifted=row.is_drifted)} for row in page.rows]
        is_filtered = bool(bar.active)
        return self.render(
            {
                "bar": bar,
                "listing": page,
                "rows": rows,
                "count": capped_count(selectors.tenants_matching(bar.values())),
                "is_filtered": is_filtered,
                "is_empty": not rows and not is_filtered and not request.GET.get("cursor"),
                "by_name": by_name,
                "sort_newest_url": url_with(request, sort=None),
                "sort_name_url": url_with(request, sort="name"),
                "bulk_actions": BULK_ACTIONS,
                "bulk_limit": bulk.MAX_TENANTS,
                "query": urlencode(bar.values()),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )


class BulkPage(ConsolePage):
    """First asks, with the names of all that will be touched; then starts the job."""

    resource = "tenants"
    template_name = "tenants/bulk.html"
    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        action = request.POST.get("action", "")
        if action not in BULK_ACTIONS:
            return self.refused(InvalidError("There is no such action."))
        if request.POST.get("step") == "start":
            return self._start(action)
        names, is_cut = self._chosen()
        if not names:
            return self.refused(InvalidError("No tenant was chosen.", detail="Go back and choose at least one."))
        return self._preview(action, names, is_cut)

    def _chosen(self) -> tuple[list[str], bool]:
        """Names as they are now, and whether there are more than one job may take."""
        if self.request.POST.get("all") != "1":
            named = self.request.POST.getlist("name")[: bulk.MAX_TENANTS]
            known = Tenant.objects.filter(name__in=named).order_by("name").values_list("name", flat=True)
            return list(known), False
        query = QueryDict(self.request.POST.get("query", ""))
        request = self.request
        filtered = FilterBar(_with_query(request, query), filter_bar(request, with_teams=False).filters)
        names = selectors.names_matching(filtered.values(), bulk.MAX_TENANTS + 1)
        return names[: bulk.MAX_TENANTS], len(names) > bulk.MAX_TENANTS

    def _preview(self, action: str, names: list[str], is_cut: bool, problem: str = "") -> HttpResponse:
        plan = BULK_ACTIONS[action]
        count = len(names)
        tenants = f"{count:,} tenant{'' if count == 1 else 's'}"
        return self.render(
            {
                "title": f"{plan['label']} {tenants}",
                "action": action,
                "plan": plan,
                "names": names,
                "tenants": tenants,
                "is_cut": is_cut,
                "limit": bulk.MAX_TENANTS,
                "phrase": f"delete {count}" if plan["is_grave"] else "",
                "problem": problem,
            },
            status=400 if problem else 200,
        )

    def _start(self, action: str) -> HttpResponse:
        names = self.request.POST.get("names", "").split()
        reason = self.request.POST.get("reason", "").strip()
        plan = BULK_ACTIONS[action]
        if plan["is_grave"] and self.request.POST.get("phrase", "").strip() != f"delete {len(names)}":
            return self._preview(action, names, False, f"Type “delete {len(names)}” to confirm.")
        try:
            job = bulk.start_bulk(action=action, names=names, reason=reason, actor=self.actor)
        except DomainError as exc:
            tell_refusal(self.request, exc)
            return self._preview(action, names[: bulk.MAX_TENANTS], False, sentence(exc))
        return HttpResponseRedirect(reverse("admin:job", args=[job.pk]))


def _with_query(request: HttpRequest, query: QueryDict) -> HttpRequest:
    """The request as the list had it: a selection of all that matches carries the list's filters along."""
    listed = HttpRequest()
    listed.path, listed.META = request.path, request.META
    setattr(listed, "GET", query)  # noqa: B010  (declared as immutable, which this one is as well)
    return listed


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("tenants/", TenantList.as_view(), "tenants")
    site.add_page("tenants-bulk/", BulkPage.as_view(), "tenants_bulk")
    site.add_navigation("Fleet", "Tenants", "groups", "admin:tenants", resource="tenants", position=20)
