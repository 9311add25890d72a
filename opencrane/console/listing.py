"""Lists: filters that live in the URL, keyset pages, counts that stay cheap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlencode

from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest

from opencrane.api.keyset import Keyset, Page

PAGE_ROWS = 50
COUNT_CAP = 10_000
Row = TypeVar("Row")


def url_with(request: HttpRequest, /, **changes: str | None) -> str:
    """This page's address with parameters set, or removed by None. The place within a list is given up."""
    query = [
        (key, value)
        for key, values in request.GET.lists()
        for value in values
        if key not in changes and key != "cursor" and value != ""
    ]
    query += [(key, value) for key, value in changes.items() if value not in {None, ""}]
    return f"{request.path}?{urlencode(query)}" if query else request.path


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are, or that there are more than anyone wants to know."""

    value: int
    is_capped: bool = False

    def __str__(self) -> str:
        return f"{self.value:,}+" if self.is_capped else f"{self.value:,}"

    def __bool__(self) -> bool:
        return self.value > 0

    def noun(self, one: str, many: str = "") -> str:
        """`1 tenant`, `3 tenants`, `10,000+ tenants`."""
        return f"{self} {one if self.value == 1 and not self.is_capped else many or one + 's'}"


def as_count(value: int, cap: int = COUNT_CAP) -> Count:
    """A number that was counted up to one more than `cap`."""
    return Count(min(value, cap), value > cap)


def capped_count(queryset: QuerySet[Any, Any], cap: int = COUNT_CAP) -> Count:
    """Count no further than `cap`: a big table costs no more than that."""
    return as_count(queryset.order_by().values("pk")[: cap + 1].count(), cap)


def distinct_values(table: str, column: str, limit: int = 50) -> list[str]:
    """The values of an indexed text column, by skipping from one to the next: cheap in a table of any size.

    Args:
        table, column: names from our own code, never from a request.
    """
    sql = f"""
        WITH RECURSIVE skip AS (
            (SELECT {column} AS value FROM {table} ORDER BY {column} LIMIT 1)
            UNION ALL
            SELECT (SELECT {column} FROM {table} WHERE {column} > skip.value ORDER BY {column} LIMIT 1)
              FROM skip WHERE skip.value IS NOT NULL
        )
        SELECT value FROM skip WHERE value <> '' LIMIT %s
    """  # noqa: S608  (names are ours)
    with connection.cursor() as cursor:
        cursor.execute(sql, [limit])
        return [row[0] for row in cursor.fetchall()]


@dataclass(slots=True)
class Filter:
    """One thing a list can be filtered by.

    Attributes:
        name: the query parameter.
        kind: how it is asked for. `hidden` ones come by links only.
        options: value and label, for `choice` the only ones, for `text` suggestions.
    """

    name: str
    label: str
    kind: Literal["choice", "text", "date", "hidden"] = "text"
    options: Sequence[tuple[str, str]] = ()
    value: str = ""
    placeholder: str = ""

    @property
    def shown(self) -> str:
        """The value as people read it."""
        return dict(self.options).get(self.value, self.value)


@dataclass(slots=True)
class FilterBar:
    """The search box and the filters of a list, as this request has them."""

    request: HttpRequest
    filters: list[Filter]
    search_label: str = "Search"
    search: str = ""
    has_search: bool = True
    keep: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        query = self.request.GET
        if self.has_search:
            self.search = _tidy(query.get("q", ""))
        for each in self.filters:
            value = _tidy(query.get(each.name, ""))
            if each.kind == "choice" and value not in dict(each.options):
                value = ""
            each.value = value
        self.keep = {name: query[name] for name in ("sort",) if query.get(name)}

    def values(self) -> dict[str, str]:
        """Every filter that is set, `q` among them."""
        found = {each.name: each.value for each in self.filters if each.value}
        return found | ({"q": self.search} if self.search else {})

    @property
    def active(self) -> list[dict[str, str]]:
        """What is set, each with the address that takes it away."""
        chips = [
            {"label": each.label, "value": each.shown, "url": url_with(self.request, **{each.name: None})}
            for each in self.filters
            if each.value
        ]
        if self.search:
            chips.insert(0, {"label": "Search", "value": self.search, "url": url_with(self.request, q=None)})
        return chips

    @property
    def path(self) -> str:
        return self.request.path


def _tidy(text: str) -> str:
    return text.replace("\x00", "").strip()[:200]


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """One page of a list, and where it goes on."""

    rows: list[Row]
    next_url: str
    first_url: str


def listing(
    request: HttpRequest,
    keyset: Keyset,
    queryset: QuerySet[Any, Any],
    rows: int = PAGE_ROWS,
) -> Listing[Any]:
    """One page of a queryset in the keyset's order, in one query.

    Raises:
        InvalidCursorError: the cursor belongs to another list.
    """
    return listing_by(request, keyset, lambda page: list(keyset.apply(queryset, page)), rows)


def listing_by(
    request: HttpRequest,
    keyset: Keyset,
    read: Callable[[Page], list[Any]],
    rows: int = PAGE_ROWS,
    key: Callable[[Any], Sequence[Any]] | None = None,
) -> Listing[Any]:
    """The same for rows that are not read by the ORM.

    Args:
        read: the rows of a page, and one more if there is.
        key: sort values of a row; None where they are its attributes.
    """
    found = read(replace(keyset.page(request), limit=rows))
    is_last = len(found) <= rows
    return page_of(request, found[:rows], "" if is_last else keyset.encode((key or keyset.key)(found[rows - 1])))


def page_of(request: HttpRequest, rows: list[Any], next_cursor: str | None) -> Listing[Any]:
    """The same for a page that has been read already."""
    return Listing(
        rows,
        url_with(request, cursor=next_cursor) if next_cursor else "",
        url_with(request) if request.GET.get("cursor") else "",
    )
