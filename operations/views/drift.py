"""Drift: where cluster and rows disagree, what repair would do about it, and doing it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from cluster.kinds import all_kinds, kind_named
from cluster.models import DriftEvaluation, DriftFinding
from opencrane.api.keyset import Keyset
from opencrane.console.listing import Filter, FilterBar, as_count, listing
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.console.values import compact
from opencrane.errors import InvalidError, NotFoundError
from operations import driftchecks, repairs, selectors
from operations.views.jobs import progress_values

BY_NAME = Keyset([("name", "asc")], name="drift findings in the console")
FINDINGS_SHOWN = 30
PLAN_SHOWN = 200
VALUE_CUT = 400
FIRST_KIND = "Tenant"
ISSUES = {
    "field-mismatch": ("Fields differ", "Repair takes the cluster's values over into the row."),
    "missing-projection": ("No row", "The cluster has a resource that OpenCrane does not know; repair makes its row."),
    "missing-source": ("No resource", "The row has no resource: repair leaves it; apply the row again, or delete it."),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether repair can be offered, or why it can not."""

    evaluation: DriftEvaluation | None
    reason: str = ""

    @property
    def is_stale(self) -> bool:
        """Twice the interval without a check: the scheduler seems to stand still."""
        if self.evaluation is None:
            return False
        return self.evaluation.evaluated_at < timezone.now() - 2 * timedelta(seconds=interval_seconds())


def interval_seconds() -> float:
    """How often drift is checked."""
    return float(settings.DRIFT_INTERVAL_SECONDS)


def verdict(evaluation: DriftEvaluation | None) -> Verdict:
    """What the last check allows."""
    if evaluation is None:
        return Verdict(None, "Nothing has been compared yet. Check first.")
    if evaluation.failed_at is not None:
        return Verdict(evaluation, "The last check failed, so nobody knows what is missing. Check again first.")
    if evaluation.source_count == 0 and evaluation.projection_count > 0:
        return Verdict(
            evaluation,
            f"The cluster lists no resource at all, while {evaluation.projection_count:,} rows exist: more likely the"
            " wrong cluster or namespace than so many deletions.",
        )
    return Verdict(evaluation)


class DriftPage(ConsolePage):
    resource = "tenants"
    title = "Drift"
    template_name = "operations/drift.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, kind: str = "") -> HttpResponse:
        counts = selectors.drift_counts()
        kinds = sorted((each.name for each in all_kinds()), key=lambda name: (name != FIRST_KIND, name))
        # Without a choice, where there is something to see.
        kind = kind or max(kinds, key=lambda name: counts.get(name, 0))
        if kind not in kinds:
            raise NotFoundError("There is no such kind.")
        bar = FilterBar(
            request,
            [Filter("issue", "Issue", "choice", [(issue, words[0]) for issue, words in ISSUES.items()])],
            search_label="Search names",
        )
        found = selectors.drift_findings(kind, issue=bar.filters[0].value, text=bar.search)
        page = listing(request, BY_NAME, found, rows=FINDINGS_SHOWN)
        check = selectors.job_under_way(f"{driftchecks.CHECK}:{kind}")
        repair = selectors.job_under_way(f"{repairs.REPAIR}:{kind}")
        return self.render(
            {
                "kind": kind,
                "kinds": [(name, counts.get(name, 0)) for name in kinds],
                "bar": bar,
                "listing": page,
                "findings": [finding_values(each) for each in page.rows],
                "count": as_count(counts.get(kind, 0)),
                "verdict": verdict(selectors.drift_evaluation(kind)),
                "check": progress_values(check) if check else None,
                "repair": repair,
                "interval": interval_seconds(),
            }
        )


def finding_values(finding: DriftFinding) -> dict[str, Any]:
    """One mismatch for the template: both sides of each field, and who holds it in the cluster."""
    word, advice = ISSUES.get(finding.issue, (finding.issue, ""))
    fields = [
        {
            "field": each["field"],
            "cluster": compact(each.get("cluster"))[:VALUE_CUT],
            "row": compact(each.get("row"))[:VALUE_CUT],
            "managers": finding.managers.get(each["field"], []),
        }
        for each in finding.differences
    ]
    return {
        "finding": finding,
        "word": word,
        "advice": advice,
        "fields": fields,
        "url": "" if finding.issue == "missing-projection" else _site().object_url(finding.kind, finding.name),
        "can_repair": finding.issue != "missing-source",
    }


class CheckNow(ConsoleAction):
    resource = "tenants"

    def act(self, *, kind: str) -> str:
        driftchecks.start_check(_known(kind), actor=self.actor)
        return self.back(kind=kind)

    def back(self, *, kind: str) -> str:
        return reverse("admin:drift_kind", args=[kind])


class RepairPage(ConsolePage):
    """POST: first a dry run against the cluster as it is now, then, confirmed, the job."""

    resource = "tenants"
    template_name = "operations/repair.html"
    http_method_names = ["post"]

    def post(self, request: HttpRequest, kind: str) -> HttpResponse:
        kind = _known(kind)
        names = None if request.POST.get("scope") == "all" else request.POST.getlist("name") or None
        if request.POST.get("step") == "start":
            names = request.POST.get("names", "").split() or None
            if request.POST.get("scope") != "all" and names is None:
                raise InvalidError("Nothing was chosen.")
            job = repairs.start_repair(kind, names=names, actor=self.actor)
            return HttpResponseRedirect(reverse("admin:job", args=[job.pk]))
        if request.POST.get("scope") != "all" and names is None:
            raise InvalidError("Nothing was chosen.", detail="Go back and choose at least one mismatch.")
        plan = repairs.repair_plan(kind, names=names)
        entries = [
            entry
            | {
                "rows": [
                    {
                        "field": d["field"],
                        "before": compact(d["row"])[:VALUE_CUT],
                        "after": compact(d["cluster"])[:VALUE_CUT],
                    }
                    for d in entry.get("differences", [])
                ]
            }
            for entry in plan["entries"][:PLAN_SHOWN]
        ]
        count = plan["repairedCount"]
        return self.render(
            {
                "title": "What repair would do",
                "kind": kind,
                "entries": entries,
                "total": len(plan["entries"]),
                "shown": PLAN_SHOWN,
                "repaired": as_count(count),
                "count": count,
                "skipped": plan["skippedCount"],
                "scope": "chosen" if names else "all",
                "names": " ".join(names or []),
            }
        )


def _known(kind: str) -> str:
    try:
        return kind_named(kind).name
    except KeyError as exc:
        raise NotFoundError("There is no such kind.") from exc


def _site() -> Any:
    return admin.site


def register() -> None:
    """Called by `operations.admin`."""
    site = _site()
    site.add_page("drift/", DriftPage.as_view(), "drift")
    site.add_page("drift/<str:kind>/", DriftPage.as_view(), "drift_kind")
    site.add_page("drift/<str:kind>/check/", CheckNow.as_view(), "drift_check")
    site.add_page("drift/<str:kind>/repair/", RepairPage.as_view(), "drift_repair")
    site.add_navigation("Fleet", "Drift", "difference", "admin:drift", resource="tenants", position=30)
