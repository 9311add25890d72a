"""The list of tenants, and what can be done to many of them."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from opencrane.console.listing import Filter, FilterBar, capped_count, distinct_values, listing, url_with
from opencrane.console.pages import ConsolePage
from operations.views.bulk import BulkPage, bulk_bar, register_bulk
from tenants import selectors
from tenants.models import Phase
from tenants.services.bulk import TENANTS

SYNC_LABELS = [
    ("synced", "In sync"),
    ("waiting", "Waiting"),
    ("failing", "Failing"),
    ("drifted", "Drifted"),
    ("deleting", "Deleting"),
]


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
            page = listing(request, selectors.BY_NAME, found)
        else:
            page = listing(request, selectors.NEWEST_FIRST, found)
        rows = [{"tenant": row, "state": selectors.shown_state(row, is_drifted=row.is_drifted)} for row in page.rows]
        is_filtered = bool(bar.active)
        count = capped_count(selectors.tenants_matching(bar.values()))
        return self.render(
            bulk_bar(TENANTS, "admin:tenants_bulk", bar, count)
            | {
                "bar": bar,
                "listing": page,
                "rows": rows,
                "count": count,
                "is_filtered": is_filtered,
                "is_empty": not rows and not is_filtered and not request.GET.get("cursor"),
                "by_name": by_name,
                "sort_newest_url": url_with(request, sort=None),
                "sort_name_url": url_with(request, sort="name"),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )


class TenantsBulkPage(BulkPage):
    resource = "tenants"
    bulk = TENANTS
    list_url = "admin:tenants"

    def filters(self, request: HttpRequest) -> FilterBar:
        return filter_bar(request, with_teams=False)

    def names(self, filters: dict[str, str], limit: int) -> list[str]:
        return selectors.names_matching(filters, limit)


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("tenants/", TenantList.as_view(), "tenants")
    register_bulk(site, "tenants-bulk/", TenantsBulkPage, "tenants_bulk")
    site.add_navigation("Fleet", "Tenants", "groups", "admin:tenants", resource="tenants", position=20)
