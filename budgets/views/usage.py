"""The ledger of usage: filter, read, export."""

from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from budgets import reading
from budgets.selectors import UsageFilter
from budgets.usage_export import USAGE
from opencrane.api.params import parse_uuid
from opencrane.console.listing import Filter, FilterBar, distinct_values, listing_by
from opencrane.console.pages import ConsolePage
from operations.views.export import ExportAction, midnight


class UsagePage(ConsolePage):
    resource = "token-usage"
    title = "Usage"
    template_name = "budgets/usage.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        models = [(name, name) for name in distinct_values("budgets_usageday", "model")]
        bar = FilterBar(request, usage_filters(models), has_search=False)
        wanted = wanted_of(bar.values())
        page = listing_by(request, reading.USAGE_NEWEST, partial(reading.usage_listed, wanted))
        if wanted.tenant_id and page.rows:
            # People know it by its name.
            by_id = next(each for each in bar.filters if each.name == "tenantId")
            by_id.options = [(by_id.value, page.rows[0].tenant)]
        return self.render(
            {
                "bar": bar,
                "rows": page.rows,
                "listing": page,
                "is_filtered": bool(bar.active),
                "filters": bar.values(),
            }
        )


class UsageExport(ExportAction):
    resource = "token-usage"
    export = USAGE
    names = ("tenant", "model", "since", "until", "whose", "tenantId")
    list_page = "admin:usage"

    def wanted(self, values: dict[str, str]) -> UsageFilter:
        return wanted_of(values)


def usage_filters(models: list[tuple[str, str]]) -> list[Filter]:
    return [
        Filter("tenant", "Tenant", "text", placeholder="Exact name"),
        Filter("model", "Model", "text", models, placeholder="Exact name"),
        Filter("since", "From (UTC)", "date"),
        Filter("until", "To, included", "date"),
        Filter("whose", "Whose", "choice", [("nobody", "Unattributed only")]),
        Filter("tenantId", "Tenant", "hidden"),
    ]


def wanted_of(values: dict[str, str]) -> UsageFilter:
    """What the filters ask for; a date that is none asks for nothing."""
    return UsageFilter(
        tenant=values.get("tenant", ""),
        tenant_id=parse_uuid(values["tenantId"]) if "tenantId" in values else None,
        model=values.get("model", ""),
        since=midnight(values.get("since")),
        until=midnight(values.get("until"), days=1),
        unattributed=values.get("whose") == "nobody",
    )


def register() -> None:
    """Called by `budgets.admin`."""
    site: Any = admin.site
    site.add_page("usage/", UsagePage.as_view(), "usage")
    site.add_page("usage/export/", UsageExport.as_view(), "usage_export")
    site.add_navigation("Money", "Usage", "receipt_long", "admin:usage", resource="token-usage", position=39)
