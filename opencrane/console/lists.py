"""The base of pages with a list: filters, a count, one keyset page, and what to say while there is nothing."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from opencrane.api.keyset import Keyset
from opencrane.console.listing import Filter, FilterBar, Listing, capped_count, listing
from opencrane.console.pages import ConsolePage


class ListPage(ABC, ConsolePage):
    """A list. Its template extends `console/list.html`, where each row has the object as `row.object`.

    Attributes:
        keyset: the order.
        noun: what the objects are called: `tenant`, or `policy,policies`.
        search: label of the search box; none without it.
        new_page: name of the page that makes one, if there is such a page.
    """

    http_method_names = ["get", "head"]
    keyset: ClassVar[Keyset]
    noun: ClassVar[str]
    search: ClassVar[str] = ""
    new_page: ClassVar[str] = ""

    @abstractmethod
    def found(self, filters: dict[str, str]) -> QuerySet[Any, Any]:
        """The objects that fit the search (`q`) and filters; unordered."""

    def filters(self) -> list[Filter]:
        return []

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        """What the table shows of each object, beside the object itself."""
        return [{} for _ in objects]

    def more(self) -> dict[str, Any]:
        """What else the template needs; `self.bar` and `self.count` are known by then."""
        return {}

    def order(self) -> Keyset:
        return self.keyset

    def page(self, found: QuerySet[Any, Any]) -> Listing[Any]:
        return listing(self.request, self.order(), found)

    def filter_bar(self, request: HttpRequest) -> FilterBar:
        return FilterBar(request, self.filters(), self.search, has_search=bool(self.search))

    def get(self, request: HttpRequest) -> HttpResponse:
        self.bar = self.filter_bar(request)
        found = self.found(self.bar.values())
        page = self.page(found)
        rows = [{"object": each} | values for each, values in zip(page.rows, self.rows(page.rows), strict=True)]
        self.count = capped_count(found)
        is_filtered = bool(self.bar.active)
        values = {
            "bar": self.bar,
            "listing": page,
            "rows": rows,
            "count": self.count,
            "noun": self.noun,
            "one": self.noun.partition(",")[0],
            "new_url": reverse(self.new_page) if self.new_page else "",
            "is_filtered": is_filtered,
            "is_empty": not rows and not is_filtered and not request.GET.get("cursor"),
            "api_url": request.build_absolute_uri("/api/v1"),
        }
        return self.render(values | self.more())
