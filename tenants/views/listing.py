"""The list of tenants, and what can be done to many of them."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet

from opencrane.api.keyset import Keyset
from opencrane.console.listing import Filter, distinct_values, url_with
from operations.views.bulk import BulkList, add_bulk_list
from tenants import selectors
from tenants.models import Phase, Tenant
from tenants.services.bulk import TENANTS

SYNC_LABELS = [
    ("synced", "In sync"),
    ("waiting", "Waiting"),
    ("failing", "Failing"),
    ("drifted", "Drifted"),
    ("deleting", "Deleting"),
]


class TenantList(BulkList):
    resource = "tenants"
    title = "Tenants"
    template_name = "tenants/list.html"
    noun = "tenant"
    search = "Search name, display name or e-mail"
    keyset = selectors.NEWEST_FIRST
    new_page = "admin:tenant_new"
    bulk = TENANTS
    url_name = "tenants"

    def filters(self) -> list[Filter]:
        teams = distinct_values("tenants_tenant", "team")
        return [
            Filter("phase", "Health", "choice", [(phase, phase) for phase in Phase.values]),
            Filter("sync", "Sync", "choice", SYNC_LABELS),
            Filter("team", "Team", "text", [(team, team) for team in teams], placeholder="Exact name"),
            Filter("policyRef", "Policy", "hidden"),
            Filter("clusterTenantRef", "Cluster tenant", "hidden"),
        ]

    def found(self, filters: dict[str, str]) -> QuerySet[Tenant]:
        return selectors.tenants_listed(filters)

    def order(self) -> Keyset:
        return selectors.BY_NAME if self.is_by_name else self.keyset

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        return [{"state": tenant.shown_state(is_drifted=tenant.is_drifted)} for tenant in objects]

    def more(self) -> dict[str, Any]:
        return super().more() | {
            "by_name": self.is_by_name,
            "sort_newest_url": url_with(self.request, sort=None),
            "sort_name_url": url_with(self.request, sort="name"),
        }

    @property
    def is_by_name(self) -> bool:
        return self.request.GET.get("sort") == "name"


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    add_bulk_list(site, "tenants", TenantList)
    site.add_navigation("Fleet", "Tenants", "groups", "admin:tenants", resource="tenants", position=20)
