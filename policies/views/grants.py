"""The tab of an object's grants, which are edited in place; MCP servers and skill bundles have one."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from rest_framework import serializers

from opencrane.api.serializers import flatten_errors
from opencrane.console.editing import Precondition
from opencrane.console.listing import distinct_values
from opencrane.console.pages import complaint
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError
from operations.views.objects import AuditedPage
from policies.api.grants import SCOPES
from policies.views.grant_rows import GrantRows


class Scoped(Protocol):
    """What grants are about has a scope, which theirs begin with."""

    @property
    def scope(self) -> Any: ...


Granted = TypeVar("Granted", bound=Scoped)


def suggestions() -> dict[str, Any]:
    """Names of groups that inputs suggest."""
    return {"known_groups": distinct_values("policies_group", "name")}


class GrantedPage(AuditedPage[Granted]):
    """An object page with the tab `grants`.

    Attributes:
        scopes: what a grant's scope may be.
    """

    scopes: ClassVar[Sequence[str]] = tuple(SCOPES)

    @abstractmethod
    def grants_of(self, thing: Granted) -> list[dict[str, Any]]:
        """The grants, as the API gives them."""

    def grants_tab(self, thing: Granted) -> dict[str, Any]:
        grants = self.grants_of(thing)
        rows = GrantRows.of(grants, scope=thing.scope, scopes=self.scopes)
        return {"grants": grants, "rows": rows, **suggestions()}


class EditGrants(GrantedPage[Granted]):
    """Mixed into such a page: a POST that replaces the list of grants, and shows the tab again when it is refused.

    Attributes:
        serializer: of the API's update, which has a field `grants`.
    """

    http_method_names = ["post"]
    serializer: ClassVar[type[Any]]

    @abstractmethod
    def save(self, thing: Granted, changes: dict[str, Any], precondition: Precondition) -> None:
        """Call the service."""

    def post(self, request: HttpRequest, **path: Any) -> HttpResponse:
        thing = self.find(**path)
        rows = GrantRows.posted(request.POST, scope=thing.scope, scopes=self.scopes)
        serializer = self.serializer(data={"grants": rows.data()})
        status = 400
        try:
            serializer.is_valid(raise_exception=True)
            self.save(thing, dict(serializer.validated_data), same_generation(request))
        except serializers.ValidationError as exc:
            rest = rows.note(flatten_errors(exc.detail))
        except DomainError as exc:
            rest, status = rows.note(exc.fields), exc.http_status
            if not exc.fields:
                rest = {"body": [complaint(request, exc)]}
        else:
            messages.success(request, f"The grants of {thing} are saved.")
            return HttpResponseRedirect(self.url(*path.values(), tab="grants"))
        problems = [reason for reasons in rest.values() for reason in reasons]
        seen = request.POST.get("generation", "")
        values = {"rows": rows, "problems": problems, **suggestions()}
        return self.show(thing, "grants", values, status=status, seen=seen)
