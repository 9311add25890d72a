"""The catalog and the review queue."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from opencrane.console.listing import Filter, FilterBar, capped_count, listing
from opencrane.console.pages import ConsolePage
from operations.views.bulk import BulkPage, bulk_bar, register_bulk
from policies.models import Scope
from skills import reading
from skills.services.bulk import SKILL_BUNDLES
from skills.views.chips import SCAN, STATUS, chips_of


def filter_bar(request: HttpRequest) -> FilterBar:
    """Search and filters of the list, from the URL; how many there are of each stands with them."""
    facets = reading.facets()

    def options(facet: str, words: dict[str, str]) -> list[tuple[str, str]]:
        return [(key, f"{word} ({facets[facet].get(key, 0):,})") for key, word in words.items()]

    return FilterBar(
        request,
        [
            Filter("status", "Status", "choice", options("status", {key: each[2] for key, each in STATUS.items()})),
            Filter("scanStatus", "Scan", "choice", options("scanStatus", {key: each[2] for key, each in SCAN.items()})),
            Filter("scope", "Scope", "choice", options("scope", {each.value: each.label for each in Scope})),
            Filter("tag", "Tag", "text", [(tag, f"{tag} ({count:,})") for tag, count in facets["tag"].items()]),
            Filter("name", "Name", "hidden"),
        ],
        "Search name, description or tags",
    )


class BundleList(ConsolePage):
    resource = "skills"
    title = "Skill catalog"
    template_name = "skills/bundles.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = filter_bar(request)
        found = reading.bundles_listed(bar.values())
        page = listing(request, reading.NEWEST, found)
        is_filtered = bool(bar.active)
        count = capped_count(found)
        return self.render(
            bulk_bar(SKILL_BUNDLES, "admin:skills_bulk", bar, count)
            | {
                "bar": bar,
                "listing": page,
                "rows": [{"bundle": row, "grants": row.grant_count or 0, **chips_of(row)} for row in page.rows],
                "count": count,
                "is_filtered": is_filtered,
                "is_empty": not page.rows and not is_filtered and not request.GET.get("cursor"),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )


class BundlesBulkPage(BulkPage):
    resource = "skills"
    bulk = SKILL_BUNDLES
    list_url = "admin:skills"

    def filters(self, request: HttpRequest) -> FilterBar:
        return filter_bar(request)

    def names(self, filters: dict[str, str], limit: int) -> list[str]:
        return reading.bundle_names(filters, limit)


class ReviewQueue(ConsolePage):
    """What waits for somebody, in columns by what it waits for."""

    resource = "skills"
    title = "Review queue"
    template_name = "skills/queue.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        found = reading.review_queues()
        queues = [
            {
                "queue": queue,
                "rows": [{"bundle": row, **chips_of(row)} for row in queue.rows],
                "url": _list_url(queue.key),
            }
            for queue in found
        ]
        promotions = reading.waiting_promotions()
        values: dict[str, Any] = {"queues": queues, "promotions": promotions}
        return self.render(values | {"is_empty": not promotions and not any(queue.count for queue in found)})


_LISTS = {
    "failed": "?scanStatus=failed",
    "review": "?status=review",
    "ready": "?status=draft&scanStatus=passed",
    "scan": "?scanStatus=pending",
    "store": "?status=published",
}


def _list_url(key: str) -> str:
    return reverse("admin:skills") + _LISTS[key]


def register() -> None:
    """Called by `skills.admin`."""
    site: Any = admin.site
    site.add_page("skills/", BundleList.as_view(), "skills")
    register_bulk(site, "skills-bulk/", BundlesBulkPage, "skills_bulk")
    site.add_page("skill-reviews/", ReviewQueue.as_view(), "skill_reviews")
    site.add_navigation("Skills", "Catalog", "school", "admin:skills", resource="skills", position=26)
    site.add_navigation("Skills", "Review queue", "rate_review", "admin:skill_reviews", resource="skills", position=27)
