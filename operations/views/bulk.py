"""The page between a selection in a list and the job that acts on it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse

from opencrane.console.listing import Count, FilterBar
from opencrane.console.pages import ConsolePage, sentence, tell_refusal
from opencrane.errors import DomainError, InvalidError
from operations.services.bulk import MAX_OBJECTS, BulkKind, start_bulk
from operations.views.jobs import KIND_LABELS, KIND_LISTS


def bulk_bar(kind: BulkKind, url: str, bar: FilterBar, count: Count) -> dict[str, Any]:
    """What `console/_bulk_bar.html` needs in the context of a list.

    Args:
        url: name of the kind's bulk page.
    """
    return {
        "bulk": kind,
        "bulk_url": reverse(url),
        "bulk_limit": MAX_OBJECTS,
        "bulk_is_cut": count.is_capped or count.value > MAX_OBJECTS,
        "bulk_query": urlencode(bar.values()),
    }


class BulkPage(ABC, ConsolePage):
    """First asks, with the names of all that will be touched; then starts the job.

    Attributes:
        bulk: the objects it is about.
        list_url: name of the page with their list.
    """

    template_name = "console/bulk.html"
    http_method_names = ["post"]
    bulk: ClassVar[BulkKind]
    list_url: ClassVar[str]

    @abstractmethod
    def filters(self, request: HttpRequest) -> FilterBar:
        """The filters of that list, from its URL."""

    @abstractmethod
    def names(self, filters: dict[str, str], limit: int) -> list[str]:
        """Names of the objects that fit, in order; no more than `limit`."""

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
        bar = self.filters(_with_query(self.request, QueryDict(self.request.POST.get("query", ""))))
        names = self.names(bar.values(), MAX_OBJECTS + 1)
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
                "list_url": reverse(self.list_url),
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


def register_bulk(site: Any, path: str, page: type[BulkPage], name: str) -> None:
    """Add a bulk page to the console, its jobs to the filters of the list of jobs, and the way back from a job."""
    site.add_page(path, page.as_view(), name)
    KIND_LABELS[page.bulk.job] = f"Bulk action on {page.bulk.plural}"
    KIND_LISTS[page.bulk.job] = (page.bulk.plural, page.list_url)


def _phrase(label: str, names: list[str]) -> str:
    return f"{label.lower()} {len(names)}"


def _with_query(request: HttpRequest, query: QueryDict) -> HttpRequest:
    """The request as the list had it: a selection of all that matches carries the list's filters along."""
    listed = HttpRequest()
    listed.path, listed.META = request.path, request.META
    setattr(listed, "GET", query)  # noqa: B010  (declared as immutable, which this one is as well)
    return listed
