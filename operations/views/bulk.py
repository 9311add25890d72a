"""Lists whose objects can be acted on in bulk, and the page between a selection and the job that acts on it."""

from typing import Any, ClassVar
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse

from opencrane.console.listing import Listing
from opencrane.console.lists import ListPage
from opencrane.console.pages import ConsolePage, sentence, tell_refusal
from opencrane.errors import DomainError, InvalidError
from operations.services.bulk import MAX_OBJECTS, BulkKind, start_bulk
from operations.views.jobs import KIND_LABELS, KIND_LISTS


class BulkList(ListPage):
    """A list with a bar for what can be done to many of its objects.

    Attributes:
        bulk: the objects, and what can be done to them.
        url_name: of the list itself; the page that asks first is called the same with `_bulk`.
    """

    bulk: ClassVar[BulkKind]
    url_name: ClassVar[str]

    def page(self, found: QuerySet[Any, Any]) -> Listing[Any]:
        return super().page(found.annotate(bulk_name=self.bulk.name))

    def more(self) -> dict[str, Any]:
        return {
            "bulk": self.bulk,
            "bulk_url": reverse(f"admin:{self.url_name}_bulk"),
            "bulk_limit": MAX_OBJECTS,
            "bulk_is_cut": self.count.is_capped or self.count.value > MAX_OBJECTS,
            "bulk_query": urlencode(self.bar.values()),
        }


class BulkPage(ConsolePage):
    """First asks, with the names of all that will be touched; then starts the job.

    Attributes:
        listed: the list that the selection comes from.
    """

    template_name = "console/bulk.html"
    http_method_names = ["post"]
    listed: ClassVar[type[BulkList]]

    @property
    def bulk(self) -> BulkKind:
        return self.listed.bulk

    def post(self, request: HttpRequest) -> HttpResponse:
        action = request.POST.get("action", "")
        if action not in self.bulk.actions:
            return self.refused(InvalidError("There is no such action."))
        if request.POST.get("step") == "start":
            return self._start(action)
        names, is_cut = self._chosen()
        if not names:
            return self.refused(
                InvalidError(f"No {self.bulk.noun.partition(',')[0]} was chosen.", detail="Go back and choose one.")
            )
        return self._preview(action, names, is_cut)

    def _chosen(self) -> tuple[list[str], bool]:
        """Names as they are now, and whether there are more than one job may take."""
        if self.request.POST.get("all") != "1":
            named = self.request.POST.getlist("name")[:MAX_OBJECTS]
            return list(self.bulk.named(named).order_by("bulk_name").values_list("bulk_name", flat=True)), False
        page = self.listed()
        bar = page.filter_bar(_with_query(self.request, QueryDict(self.request.POST.get("query", ""))))
        found = page.found(bar.values()).annotate(bulk_name=self.bulk.name).order_by("bulk_name")
        names = list(found.values_list("bulk_name", flat=True)[: MAX_OBJECTS + 1])
        return names[:MAX_OBJECTS], len(names) > MAX_OBJECTS

    def _preview(self, action: str, names: list[str], is_cut: bool, problem: str = "") -> HttpResponse:
        plan = self.bulk.actions[action]
        whom = self.bulk.names(len(names))
        return self.render(
            {
                "title": f"{plan.label}: {whom}",
                "action": action,
                "plan": plan,
                "names": names,
                "whom": whom,
                "is_cut": is_cut,
                "limit": MAX_OBJECTS,
                "list_url": reverse(f"admin:{self.listed.url_name}"),
                "phrase": _phrase(plan.label, names) if plan.is_grave else "",
                "problem": problem,
            },
            status=400 if problem else 200,
        )

    def _start(self, action: str) -> HttpResponse:
        names = self.request.POST.getlist("names")
        reason = self.request.POST.get("reason", "").strip()
        plan = self.bulk.actions[action]
        phrase = _phrase(plan.label, names)
        if plan.is_grave and self.request.POST.get("phrase", "").strip() != phrase:
            return self._preview(action, names, False, f"Type “{phrase}” to confirm.")
        try:
            job = start_bulk(self.bulk, action=action, names=names, reason=reason, actor=self.actor)
        except DomainError as exc:
            tell_refusal(self.request, exc)
            return self._preview(action, names[:MAX_OBJECTS], False, sentence(exc))
        return HttpResponseRedirect(reverse("admin:job", args=[job.pk]))


def add_bulk_list(site: Any, path: str, page: type[BulkList]) -> None:
    """Add a list and its bulk page to the console, its jobs to the filters of the list of jobs, and the way back."""
    site.add_page(f"{path}/", page.as_view(), page.url_name)
    asking: type[BulkPage] = type(f"{page.__name__}Bulk", (BulkPage,), {"listed": page, "resource": page.resource})
    site.add_page(f"{path}-bulk/", asking.as_view(), f"{page.url_name}_bulk")
    KIND_LABELS[page.bulk.job] = f"Bulk action on {page.bulk.plural}"
    KIND_LISTS[page.bulk.job] = (page.bulk.plural, f"admin:{page.url_name}")


def _phrase(label: str, names: list[str]) -> str:
    return f"{label.lower()} {len(names)}"


def _with_query(request: HttpRequest, query: QueryDict) -> HttpRequest:
    """The request as the list had it: a selection of all that matches carries the list's filters along."""
    listed = HttpRequest()
    listed.path, listed.META = request.path, request.META
    setattr(listed, "GET", query)  # noqa: B010  (declared as immutable, which this one is as well)
    return listed
