"""What deleted tenants have left in the cluster, and deleting it for good."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from opencrane.console.listing import FilterBar, capped_count, listing
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.errors import InvalidError
from tenants import selectors
from tenants.presentation import retained_data
from tenants.services import retained
from tenants.views.editing import may_adopt


class RetainedDataList(ConsolePage):
    resource = "tenants"
    title = "Retained data"
    template_name = "tenants/retained.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = FilterBar(request, [], "Exact name of a tenant")
        found = selectors.retained_data(bar.search)
        page = listing(request, selectors.RETAINED_NEWEST, found)
        rows = [retained_data(row) for row in page.rows]
        values = {"bar": bar, "listing": page, "rows": rows, "count": capped_count(found)}
        return self.render(values | {"may_adopt": may_adopt(request.user)})


class DeleteRetainedData(ConsoleAction):
    """Asks for the tenant's name to be typed, as there is no way back."""

    resource = "tenants"

    def act(self, *, data_id: UUID) -> str:
        typed = self.request.POST.get("confirm", "").strip()
        if typed != self.request.POST.get("tenant"):
            raise InvalidError("Nothing was deleted: the name typed was another one.")
        reason = self.request.POST.get("reason", "").strip()[:500]
        found = retained.delete_retained(data_id=data_id, reason=reason, actor=self.actor)
        messages.success(self.request, f"A worker deletes what {found.tenant} has left.")
        return self.back(data_id=data_id)

    def back(self, *, data_id: UUID) -> str:
        return reverse("admin:retained_data")


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("retained-data/", RetainedDataList.as_view(), "retained_data")
    site.add_page("retained-data/<uuid:data_id>/delete/", DeleteRetainedData.as_view(), "retained_data_delete")
    site.add_navigation("Fleet", "Retained data", "inventory_2", "admin:retained_data", resource="tenants", position=28)
