"""The base of pages about one object: its header, its tabs, what can be done to it, and the way to it by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from opencrane.console.access import READ, may
from opencrane.console.pages import ActionSet, ConsolePage
from opencrane.errors import DomainError

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class AddedTab:
    """A tab of a page whose own app knows nothing of it.

    Attributes:
        resource: the row of the role table; who may not read it does not see the tab.
        values: what its template shows of the object.
    """

    label: str
    resource: str
    template: str
    values: Callable[[HttpRequest, Any], dict[str, Any]]


class ObjectPage(ABC, ConsolePage, Generic[Thing]):
    """One object: a header, and tabs of which only the one that is shown is read.

    Its template extends `console/object.html`. What the tab `grants` shows is read by the method `grants_tab`; its
    template is `tab_templates` followed by `grants.html`, or else `console/tab_grants.html`.

    Attributes:
        noun: what such an object is called.
        url_name: of this page, without `admin:`; its path arguments lead to the object.
        header_template: included at the top; polled as `?part=header` by itself while something is under way.
        tabs: key to label. The first is shown unless another is asked for.
        needs: tabs that show another resource, to that resource: they are for those who may read it.
        added: tabs of other apps, after what the object is and before how it is synced.
    """

    http_method_names = ["get", "head"]
    noun: ClassVar[str]
    url_name: ClassVar[str]
    header_template: ClassVar[str]
    tab_templates: ClassVar[str]
    tabs: ClassVar[Mapping[str, str]]
    needs: ClassVar[Mapping[str, str]] = {}
    added: ClassVar[Mapping[str, AddedTab]] = {}

    @classmethod
    def url(cls, *path: object, tab: str = "") -> str:
        """Where the page of an object is."""
        url = reverse(f"admin:{cls.url_name}", args=path)
        return f"{url}?tab={tab}" if tab else url

    @abstractmethod
    def find(self, *args: Any, **path: Any) -> Thing:
        """The object that the path names.

        Raises:
            NotFoundError
        """

    @abstractmethod
    def header(self, thing: Thing) -> dict[str, Any]:
        """What the header and every tab know: `title` and `generation` among it.

        With `is_moving` the header is polled until that is false, and then the whole page is loaded again.
        """

    def part(self, name: str, thing: Thing) -> HttpResponse | None:
        """A part of the page that is polled; None for the whole page."""
        if name != "header":
            return None
        values = self.header(thing)
        return self.fragment(self.header_template, values, is_over=not values.get("is_moving", True))

    def get(self, request: HttpRequest, **path: Any) -> HttpResponseBase:
        thing = self.find(**path)
        part = self.part(request.GET.get("part", ""), thing)
        if part is not None:
            return part
        tab = request.GET.get("tab", "")
        tabs = self.seen_tabs()
        tab = tab if tab in tabs else next(iter(tabs))
        if tab in self.added:
            return self.show(thing, tab, self.added[tab].values(request, thing))
        return self.show(thing, tab, getattr(self, f"{tab}_tab")(thing))

    def seen_tabs(self) -> dict[str, str]:
        """The tabs that this person may see."""
        needs = dict(self.needs)
        labels: dict[str, str] = {}
        for key, label in self.tabs.items():
            if key == "sync":
                labels |= {each: tab.label for each, tab in self.added.items()}
                needs |= {each: tab.resource for each, tab in self.added.items()}
            labels[key] = label
        user = self.request.user
        return {key: label for key, label in labels.items() if key not in needs or may(user, needs[key], READ)}

    def show(
        self, thing: Thing, tab: str, values: dict[str, Any], *, status: int = 200, seen: str = ""
    ) -> HttpResponse:
        """The page at one tab. No tab takes the header's names.

        Args:
            seen: the generation that a refused form was made from.
        """
        own = self.added[tab].template if tab in self.added else f"{self.tab_templates}{tab}.html"
        frame = {
            "object": thing,
            "noun": self.noun,
            "page_url": reverse(f"admin:{self.url_name}", kwargs=self.kwargs),
            "header_template": self.header_template,
            "tab": tab,
            "tabs": self.seen_tabs(),
            "tab_templates": [own, f"console/tab_{tab}.html"],
        }
        shown = values | self.header(thing) | frame
        return self.render(shown | ({"generation": seen} if seen else {}), status=status)


class ObjectActions(ActionSet):
    """What can be done to an object, from its page.

    Attributes:
        page: that page.
    """

    page: ClassVar[type[ObjectPage[Any]]]

    def back(self, **path: Any) -> str:
        path.pop("action", None)
        return self.next_or(self.page.url(*path.values()))


class ByName(ABC, ConsolePage):
    """Where links from the audit trail go, which knows names.

    Attributes:
        page: the page of the objects.
        missing: what is refused when none has that name any more.
    """

    http_method_names = ["get", "head"]
    page: ClassVar[type[ObjectPage[Any]]]
    missing: ClassVar[type[DomainError]]

    @abstractmethod
    def find(self, name: str) -> Any:
        """The object, or None."""

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        found = self.find(name)
        if found is None:
            raise self.missing(f"There is no {self.page.noun} named {name} any more.")
        return HttpResponseRedirect(self.page.url(found.pk))
