"""The catalog and the review queue."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from opencrane.console.listing import Filter
from opencrane.console.pages import ConsolePage
from operations.views.bulk import BulkList, add_bulk_list
from policies.models import Scope
from skills import reading
from skills.models import SkillBundle
from skills.services.bulk import SKILL_BUNDLES
from skills.views.chips import SCAN, STATUS, chips_of


class BundleList(BulkList):
    resource = "skills"
    title = "Skill catalog"
    template_name = "skills/bundles.html"
    noun = "skill bundle"
    search = "Search name, description or tags"
    keyset = reading.NEWEST
    new_page = "admin:skill_new"
    bulk = SKILL_BUNDLES
    url_name = "skills"

    def filters(self) -> list[Filter]:
        """How many there are of each stands with them."""
        facets = reading.facets()

        def options(facet: str, words: dict[str, str]) -> list[tuple[str, str]]:
            return [(key, f"{word} ({facets[facet].get(key, 0):,})") for key, word in words.items()]

        return [
            Filter("status", "Status", "choice", options("status", {key: each[2] for key, each in STATUS.items()})),
            Filter("scanStatus", "Scan", "choice", options("scanStatus", {key: each[2] for key, each in SCAN.items()})),
            Filter("scope", "Scope", "choice", options("scope", {each.value: each.label for each in Scope})),
            Filter("tag", "Tag", "text", [(tag, f"{tag} ({count:,})") for tag, count in facets["tag"].items()]),
            Filter("name", "Name", "hidden"),
        ]

    def found(self, filters: dict[str, str]) -> QuerySet[SkillBundle]:
        return reading.bundles_listed(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        return [{"grants": bundle.grant_count or 0, **chips_of(bundle)} for bundle in objects]


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
    add_bulk_list(site, "skills", BundleList)
    site.add_page("skill-reviews/", ReviewQueue.as_view(), "skill_reviews")
    site.add_navigation("Skills", "Catalog", "school", "admin:skills", resource="skills", position=26)
    site.add_navigation("Skills", "Review queue", "rate_review", "admin:skill_reviews", resource="skills", position=27)
