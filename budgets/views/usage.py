"""The ledger of usage: filter, read, export."""

import datetime
from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.dateparse import parse_date

from budgets import reading, usage_export
from budgets.selectors import UsageFilter
from opencrane.api.params import parse_uuid
from opencrane.console.listing import Filter, FilterBar, distinct_values, listing_by
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.errors import InvalidError
from operations import job_files


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


class UsageExport(ConsoleAction):
    """Start the export of what the filters show."""

    resource = "token-usage"

    def act(self) -> str:
        names = ("tenant", "model", "since", "until", "whose", "tenantId")
        values = {name: text for name in names if (text := self.request.POST.get(name, "").strip()[:200])}
        file_format = self.request.POST.get("format", "")
        if file_format not in job_files.FORMATS:
            raise InvalidError(fields={"format": ["Has to be jsonl or csv."]})
        job = usage_export.start_export(wanted=wanted_of(values), file_format=file_format, actor=self.actor)
        return reverse("admin:job", args=[job.pk])

    def back(self) -> str:
        return reverse("admin:usage")


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
        since=_midnight(values.get("since")),
        until=_midnight(values.get("until"), days=1),
        unattributed=values.get("whose") == "nobody",
    )


def _midnight(text: str | None, days: int = 0) -> datetime.datetime | None:
    try:
        day = parse_date(text) if text else None
        if day is None:
            return None
        return datetime.datetime.combine(day, datetime.time(), datetime.UTC) + datetime.timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def register() -> None:
    """Called by `budgets.admin`."""
    site: Any = admin.site
    site.add_page("usage/", UsagePage.as_view(), "usage")
    site.add_page("usage/export/", UsageExport.as_view(), "usage_export")
    site.add_navigation("Money", "Usage", "receipt_long", "admin:usage", resource="token-usage", position=39)
