"""Access policies: the list, one policy with the tenants it reaches, and the actions."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from opencrane.console.listing import Filter, capped_count, listing
from opencrane.console.objects import ObjectActions
from opencrane.console.pages import ConsolePage, request_id, sentence
from opencrane.console.values import differences
from opencrane.console.writes import same_generation, settle
from opencrane.errors import DomainError
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkList, add_bulk_list
from operations.views.objects import SyncedPage
from policies import reading, selectors
from policies.models import AccessPolicy
from policies.services import access_policies, policy_sync
from policies.services.bulk import ACCESS_POLICIES
from policies.services.kind import ACCESS_POLICY
from policies.views.forms import PolicyForm, rule_text
from policies.views.tabs import TabSearch

SYNC_LABELS = [
    ("synced", "In sync"),
    ("waiting", "Waiting"),
    ("failing", "Failing"),
    ("drifted", "Drifted"),
    ("deleting", "Deleting"),
]
REFERRERS_SHOWN = 10


class PolicyList(BulkList):
    resource = "policies"
    title = "Access policies"
    template_name = "policies/policies.html"
    noun = "access policy,access policies"
    search = "Search name or description"
    keyset = reading.POLICIES_NEWEST
    new_page = "admin:policy_new"
    bulk = ACCESS_POLICIES
    url_name = "policies"

    def filters(self) -> list[Filter]:
        return [Filter("sync", "Sync", "choice", SYNC_LABELS)]

    def found(self, filters: dict[str, str]) -> QuerySet[AccessPolicy]:
        return reading.policies_listed(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        reach = reading.reach_counts(objects)
        return [
            {
                "state": policy.shown_state(is_drifted=policy.is_drifted),
                "reach": reach[policy.pk],
                "whom": whom(policy),
            }
            for policy in objects
        ]


class PolicyPage(SyncedPage[AccessPolicy]):
    resource = "policies"
    template_name = "policies/policy.html"
    noun = "access policy"
    url_name = "policy"
    list_page = "admin:policies"
    kind = ACCESS_POLICY
    header_template = "policies/_policy_header.html"
    tab_templates = "policies/policy_"
    tabs = {"overview": "Overview", "tenants": "Tenants it reaches", "spec": "Spec", "sync": "Sync", "audit": "Audit"}
    needs = {"audit": "audit", "tenants": "tenants"}

    def find(self, name: str) -> AccessPolicy:
        return selectors.policy_named(name)

    def header(self, policy: AccessPolicy) -> dict[str, Any]:
        referrers = selectors.tenants_naming(policy.name, REFERRERS_SHOWN + 1)
        return {
            "title": policy.name,
            "generation": policy.generation,
            "policy": policy,
            "state": self.state_of(policy),
            "is_settling": policy.in_flight,
            "namespace": selectors.namespace() or "default",
            "referrers": referrers[:REFERRERS_SHOWN],
            "has_more_referrers": len(referrers) > REFERRERS_SHOWN,
        }

    def overview_tab(self, policy: AccessPolicy) -> dict[str, Any]:
        return {
            "whom": whom(policy),
            "reach": reading.reach_counts([policy])[policy.pk],
            "domains": policy.domains or {},
            "rules": [rule_text(rule) for rule in policy.egress_rules or []],
            "servers": policy.mcp_servers or {},
        }

    def tenants_tab(self, policy: AccessPolicy) -> dict[str, Any]:
        bar = TabSearch(self.request, [], "Search name, display name or e-mail", keep_tab="tenants")
        found = reading.tenants_reached(policy, bar.search)
        page = listing(self.request, reading.TENANTS_BY_NAME, found)
        return {"bar": bar, "listing": page, "count": capped_count(found), "whom": whom(policy)}

    def audited(self, policy: AccessPolicy) -> AuditFilter:
        return AuditFilter(resource=f"AccessPolicy/{policy.name}")


def whom(policy: AccessPolicy) -> str:
    """Whom the selector picks, in words."""
    selector = policy.tenant_selector
    if selector is None:
        return "only tenants that name it"
    parts = [f"team {selector['matchTeam']}"] if selector.get("matchTeam") else []
    parts += [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    return " and ".join(parts) or "everybody"


class NewPolicy(ConsolePage):
    """Steps by POST: `switch` between fields and YAML, else create."""

    resource = "policies"
    title = "New access policy"
    template_name = "policies/policy_form.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form(PolicyForm.of({}, is_new=True))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = PolicyForm.posted(request.POST, is_new=True)
        if request.POST.get("step") == "switch":
            form = form.switched()
            return self._form(form, status=400 if form.errors else 200)
        values = form.checked()
        if values is None:
            return self._form(form, status=400)
        name = values.pop("name")
        try:
            write = access_policies.create_policy(name=name, values=values, actor=self.actor)
            settle(request, write, f"Access policy {name} is in the cluster.")
        except DomainError as exc:
            return self._form(noted(form, exc, request), status=exc.http_status)
        return HttpResponseRedirect(PolicyPage.url(name))

    def _form(self, form: PolicyForm, status: int = 200) -> HttpResponse:
        values = {"form": form, "sections": form.sections(), "cancel_url": reverse("admin:policies")}
        return self.render(values, status=status)


class EditPolicy(ConsolePage):
    """Steps by POST: `review` shows the difference, `switch` and `edit` go back to the form, `save` writes."""

    resource = "policies"
    template_name = "policies/policy_form.html"

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        policy = selectors.policy_named(name)
        form = PolicyForm.of(ACCESS_POLICY.spec(policy), name=name, is_new=False)
        if request.GET.get("mode") == "yaml":
            form = form.switched()
        return self._form(policy, form, str(policy.generation))

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        policy = selectors.policy_named(name)
        form = PolicyForm.posted(request.POST, is_new=False)
        seen = request.POST.get("generation", "")
        match request.POST.get("step"):
            case "edit":
                return self._form(policy, form, seen)
            case "switch":
                form = form.switched()
                return self._form(policy, form, seen, status=400 if form.errors else 200)
        precondition = same_generation(request)
        precondition(policy.generation)
        changes = form.changes(policy)
        if changes is None:
            return self._form(policy, form, seen, status=400)
        if not changes:
            messages.info(request, "Nothing differs from what is there, so nothing was saved.")
            return HttpResponseRedirect(PolicyPage.url(name, tab="spec"))
        if request.POST.get("step") != "save":
            return self._review(policy, form, changes, seen)
        try:
            write = access_policies.update_policy(
                name=name, changes=changes, precondition=precondition, actor=self.actor
            )
            settle(request, write, f"The cluster has the changed spec of {name}.")
        except DomainError as exc:
            return self._form(policy, noted(form, exc, request), seen, status=exc.http_status)
        return HttpResponseRedirect(PolicyPage.url(name))

    def _form(self, policy: AccessPolicy, form: PolicyForm, seen: str, status: int = 200) -> HttpResponse:
        return self.render(
            {
                "title": f"Edit {policy.name}",
                "policy": policy,
                "form": form,
                "sections": form.sections(),
                "generation": seen,
                "cancel_url": PolicyPage.url(policy.name),
            },
            status=status,
        )

    def _review(self, policy: AccessPolicy, form: PolicyForm, changes: dict[str, Any], seen: str) -> HttpResponse:
        present = ACCESS_POLICY.spec(policy)
        after = AccessPolicy(name=policy.name)
        ACCESS_POLICY.assign(after, present | changes)
        counts = reading.reach_counts([policy])
        now, then = counts[policy.pk], reading.reach_counts([after])[after.pk]
        return self.render(
            {
                "title": f"Save {policy.name}?",
                "policy": policy,
                "raw": form.raw,
                "mode": "yaml" if form.as_yaml else "",
                "generation": seen,
                "rows": differences({field: present.get(field) for field in changes}, changes),
                "count": len(changes),
                "reach_now": now,
                "reach_then": then,
            },
            template="policies/policy_review.html",
        )


class PolicyActions(ObjectActions):
    resource = "policies"
    page = PolicyPage

    def do_try_now(self, name: str) -> None:
        count = policy_sync.try_now(name=name)
        nothing = f"{name} is in sync; there is nothing to try."
        messages.info(self.request, "A worker tries it now." if count else nothing)

    def do_apply(self, name: str) -> None:
        write = policy_sync.resync_policy(name=name, actor=self.actor)
        settle(self.request, write, f"The cluster has {name} as it is here.")

    def do_delete(self, name: str) -> str | None:
        self.require_typed(name)
        write = access_policies.delete_policy(
            name=name, reason=self.reason, precondition=same_generation(self.request), actor=self.actor
        )
        is_gone = settle(self.request, write, f"Access policy {name} is deleted.")
        return reverse("admin:policies") if is_gone else None


def noted(form: PolicyForm, error: DomainError, request: HttpRequest) -> PolicyForm:
    """The form with a service's refusal at the field it is about, or above all fields."""
    if error.code.endswith("_EXISTS"):
        form.errors.setdefault("name", []).append(sentence(error))
    elif error.fields:
        form.note(error.fields)
    else:
        form.errors.setdefault("body", []).append(f"{sentence(error)} (request {request_id(request)})")
    return form


def register() -> None:
    """Called by `policies.admin`."""
    site: Any = admin.site
    add_bulk_list(site, "policies", PolicyList)
    site.add_page("new-policy/", NewPolicy.as_view(), "policy_new")
    site.add_page("policies/<str:name>/", PolicyPage.as_view(), "policy")
    site.add_page("policies/<str:name>/edit/", EditPolicy.as_view(), "policy_edit")
    site.add_page("policies/<str:name>/do/<str:action>/", PolicyActions.as_view(), "policy_do")
    site.add_object_page("AccessPolicy", "admin:policy")
    site.add_navigation("Access", "Access policies", "policy", "admin:policies", resource="policies", position=32)
