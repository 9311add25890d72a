"""The base of console pages: asks the role table, renders on the skin's layout, and turns refusals into pages."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import structlog
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View

from opencrane.actor import Actor
from opencrane.api.identity import actor_of
from opencrane.console.access import READ, WRITE, may
from opencrane.errors import DomainError, ForbiddenError, InvalidError

log = structlog.get_logger(__name__)

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class ConsolePage(View):
    """One page. Subclasses read by selectors, write by services, and `render` a template.

    Attributes:
        resource: the row of the role table in accounts/permissions.py. GET needs `read`, POST needs `write`.
        title: what the header says; `render` may be given another.
        template_name: extends `console/base.html`.
    """

    resource: ClassVar[str] = ""
    title: ClassVar[str] = ""
    template_name: ClassVar[str] = ""
    http_method_names = ["get", "head", "post"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        access = READ if request.method in _SAFE else WRITE
        if not may(request.user, self.resource, access):
            return self.refused(ForbiddenError("Your role does not allow this."))
        try:
            return super().dispatch(request, *args, **kwargs)
        except DomainError as exc:
            return self.refused(exc)

    @property
    def actor(self) -> Actor:
        """Who is signed in, for services."""
        return actor_of(self.request)

    @property
    def may_write(self) -> bool:
        return may(self.request.user, self.resource, WRITE)

    def context(self, values: dict[str, Any]) -> dict[str, Any]:
        """What every page's template has: the skin's own variables, and whether this person may act."""
        self.request.current_app = admin.site.name
        return {**admin.site.each_context(self.request), "title": self.title, "may_write": self.may_write, **values}

    def render(self, values: dict[str, Any], *, template: str = "", status: int = 200) -> HttpResponse:
        return TemplateResponse(self.request, template or self.template_name, self.context(values), status=status)

    def fragment(self, template: str, values: dict[str, Any], *, is_over: bool = False) -> HttpResponse:
        """A part of a page, for polling; without the skin's variables.

        Args:
            is_over: what the part follows has ended, so that the whole page has more to say.
        """
        response = TemplateResponse(self.request, template, {"may_write": self.may_write, **values})
        if is_over:
            response["HX-Refresh"] = "true"
        return response

    def refused(self, error: DomainError) -> HttpResponse:
        """A page that says what happened and how to find it in the log."""
        values = {"title": "That did not work", "error": error, "request_id": request_id(self.request)}
        return self.render(values, template="console/error.html", status=error.http_status)


class ConsoleAction(ABC, ConsolePage):
    """A POST that calls one service and goes back to a page; a refusal is shown there."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return HttpResponseRedirect(self.act(**kwargs) or self.back(**kwargs))
        except DomainError as exc:
            tell_refusal(request, exc)
            return HttpResponseRedirect(self.back(**kwargs))

    @abstractmethod
    def act(self, *args: Any, **kwargs: Any) -> str | None:
        """Do it; returns where to go, if not back."""

    @abstractmethod
    def back(self, *args: Any, **kwargs: Any) -> str:
        """Where to go afterwards, and when it was refused."""

    @property
    def reason(self) -> str:
        """Why, for the audit trail; empty when nobody said."""
        return self.request.POST.get("reason", "").strip()[:500]

    def require_typed(self, name: str, done: str = "deleted") -> None:
        """What cannot be undone asks for the name to be typed.

        Raises:
            InvalidError: another one was.
        """
        if self.request.POST.get("confirm", "").strip() != name:
            raise InvalidError(f"Nothing was {done}: the name typed was not {name}.")

    def next_or(self, default: str) -> str:
        """The `next` that the form named, if it is a page of ours."""
        wanted = self.request.POST.get("next", "")
        return wanted if wanted and is_local(self.request, wanted) else default


class ActionSet(ConsoleAction):
    """Several actions, each a method `do_<action>` that takes the rest of the path."""

    def act(self, *, action: str, **path: Any) -> str | None:
        do = getattr(self, f"do_{action.replace('-', '_')}", None)
        if do is None:
            raise InvalidError("There is no such action.")
        target: str | None = do(**path)
        return target


def is_local(request: HttpRequest, url: str) -> bool:
    return url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())


def request_id(request: HttpRequest) -> str:
    return getattr(request, "request_id", "")


def sentence(error: DomainError) -> str:
    """A refusal as one line: what, the fields, what next."""
    fields = "; ".join(f"{name}: {' '.join(reasons)}" for name, reasons in error.fields.items())
    return " ".join(filter(None, [error.message, fields, error.detail]))


def complaint(request: HttpRequest, error: DomainError) -> str:
    """A refusal as one line, with the request id to find it by."""
    return f"{sentence(error)} (request {request_id(request)})"


def tell_refusal(request: HttpRequest, error: DomainError) -> None:
    """Show a refusal on the next page."""
    log.info("refused in the console", code=error.code, error=error.message)
    messages.error(request, complaint(request, error))
