"""The base of pages with a form: one that makes an object, and one that changes it after a look at the difference."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from opencrane.console.forms import ObjectForm
from opencrane.console.objects import ObjectPage, Thing
from opencrane.console.pages import ConsolePage
from opencrane.console.values import differences
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError

Precondition = Callable[[int], None]


class NewPage(ABC, ConsolePage):
    """Makes an object. Its template is, or extends, `console/form.html`.

    Attributes:
        form: its form.
        submit: what the button says.
        list_page: name of the page to go to instead.
    """

    template_name = "console/form.html"
    form: ClassVar[type[ObjectForm[Any]]]
    submit: ClassVar[str]
    list_page: ClassVar[str]

    @abstractmethod
    def blank(self) -> ObjectForm[Any]:
        """The form to begin with."""

    @abstractmethod
    def create(self, values: dict[str, Any]) -> str | HttpResponse:
        """Call the service; returns where to go, or the page itself."""

    def more(self, form: Any, error: DomainError | None) -> dict[str, Any]:
        """What else the template needs."""
        return {}

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.show(self.blank())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = self.form.posted(request, is_new=True)
        values = form.created()
        if values is None:
            return self.show(form, status=400)
        try:
            target = self.create(values)
        except DomainError as exc:
            return self.show(form.refuse(exc, request), status=exc.http_status, error=exc)
        return HttpResponseRedirect(target) if isinstance(target, str) else target

    def show(self, form: Any, *, status: int = 200, error: DomainError | None = None) -> HttpResponse:
        values = {"form": form, "submit": self.submit, "cancel_url": reverse(self.list_page)}
        return self.render(values | self.more(form, error), status=status)


class EditPage(ABC, ConsolePage, Generic[Thing]):
    """Changes an object. Steps by POST: `review` shows the difference, `edit` goes back to the form, `save` writes.

    Attributes:
        page: the object's page.
        form: its form.
        review_template: is, or extends, `console/review.html`; empty to save without it.
        unchanged_tab: the tab to go to when nothing was changed.
    """

    template_name = "console/form.html"
    page: ClassVar[type[ObjectPage[Any]]]
    form: ClassVar[type[ObjectForm[Any]]]
    review_template: ClassVar[str] = "console/review.html"
    unchanged_tab: ClassVar[str] = ""

    @abstractmethod
    def save(self, thing: Thing, changes: dict[str, Any], precondition: Precondition) -> None:
        """Call the service, and say what has become of it."""

    def before(self, thing: Thing, changes: dict[str, Any]) -> dict[str, Any]:
        """What the fields to be changed are now, by the names that `changes` has."""
        return {name: getattr(thing, name) for name in changes}

    def consequences(self, thing: Thing, changes: dict[str, Any]) -> dict[str, Any]:
        """What else the review needs."""
        return {}

    def more(self, thing: Thing) -> dict[str, Any]:
        """What else the form's template needs."""
        return {}

    def find(self, **path: Any) -> Any:
        return self.page().find(**path)

    def form_of(self, thing: Thing) -> Any:
        return self.form.of(thing)

    def get(self, request: HttpRequest, **path: Any) -> HttpResponse:
        thing = self.find(**path)
        return self.show(thing, self.form_of(thing), str(thing.generation))

    def post(self, request: HttpRequest, **path: Any) -> HttpResponse:
        thing = self.find(**path)
        form = self.form.posted(request)
        seen = request.POST.get("generation", "")
        step = request.POST.get("step", "")
        if step == "edit":
            return self.show(thing, form, seen)
        precondition = same_generation(request)
        precondition(thing.generation)
        changes = form.changes(thing)
        if changes is None:
            return self.show(thing, form, seen, status=400)
        if not changes:
            messages.info(request, "Nothing differs from what is there, so nothing was saved.")
            return HttpResponseRedirect(self.page.url(*path.values(), tab=self.unchanged_tab))
        if self.review_template and step != "save":
            return self.review(thing, form, changes, seen)
        try:
            self.save(thing, changes, precondition)
        except DomainError as exc:
            return self.show(thing, form.refuse(exc, request), seen, status=exc.http_status)
        return HttpResponseRedirect(self.page.url(*path.values()))

    def show(self, thing: Thing, form: Any, seen: str, *, status: int = 200) -> HttpResponse:
        values = {
            "title": f"Edit {thing}",
            "form": form,
            "submit": "Review changes" if self.review_template else "Save",
            "generation": seen,
            "cancel_url": self.page.url(*self.kwargs.values()),
        }
        return self.render(values | self.more(thing), status=status)

    def review(self, thing: Thing, form: Any, changes: dict[str, Any], seen: str) -> HttpResponse:
        values = {
            "title": f"Save {thing}?",
            "object": thing,
            "raw": form.raw,
            "generation": seen,
            "rows": differences(self.before(thing, changes), changes),
            "count": len(changes),
            "back_url": self.page.url(*self.kwargs.values()),
        }
        return self.render(values | self.consequences(thing, changes), template=self.review_template)
