"""Every route that is served, with its methods and what decides who may use it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from accounts.pods import InternalViewSet
from opencrane.api.viewsets import ApiViewSet
from opencrane.console.pages import ConsolePage

UNSAFE = frozenset({"POST", "PUT", "DELETE"})
# What stands in the place of a path's parameters: names that nothing has.
_SAMPLES = {
    "uuid": "00000000-0000-4000-8000-000000000000",
    "int": "999999999",
    "slug": "nobody",
    "str": "nobody",
    "path": "nobody",
    None: "nobody",
}


@dataclass(frozen=True)
class Route:
    """One method of one route.

    Attributes:
        method: GET, POST, PUT or DELETE.
        pattern: as urls.py has it, from the root: `api/v1/tenants/<str:name>`.
        resource: the row of the role table that the view names; empty for none.
        kind: `api`, `public` (an API view that lets everybody in), `internal`, `page`, or `other` (a plain function).
    """

    method: str
    pattern: str
    resource: str
    kind: str

    @property
    def path(self) -> str:
        """A URL path that leads there."""
        return "/" + re.sub(
            r"<(?:(\w+):)?\w+>", lambda match: _SAMPLES[match[1]], self.pattern.removesuffix("$").replace("^", "")
        )

    def __str__(self) -> str:
        return f"{self.method} /{self.pattern}"


def _walk(patterns: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for each in patterns:
        if isinstance(each, URLPattern):
            yield prefix + str(each.pattern), each.callback
        elif isinstance(each, URLResolver):
            yield from _walk(each.url_patterns, prefix + str(each.pattern))


def _routes(pattern: str, view: Any) -> Iterator[Route]:
    viewset = getattr(view, "cls", None)
    page = getattr(view, "view_class", None)
    if isinstance(viewset, type) and issubclass(viewset, ApiViewSet):
        kind = "internal" if issubclass(viewset, InternalViewSet) else "public" if viewset.public else "api"
        for method in view.actions:
            if method != "head":
                yield Route(method.upper(), pattern, viewset.resource, kind)
    elif isinstance(page, type) and issubclass(page, ConsolePage):
        for method in page.http_method_names:
            # A class may allow a method that it has no code for: that is a 405 for everybody.
            if method not in {"head", "options"} and hasattr(page, method):
                yield Route(method.upper(), pattern, page.resource, "page")
    else:
        for method in ("GET", "POST"):
            yield Route(method, pattern, "", "other")


def all_routes() -> list[Route]:
    """In the order of urls.py; the two names of one route are two."""
    return [route for pattern, view in _walk(get_resolver().url_patterns) for route in _routes(pattern, view)]
