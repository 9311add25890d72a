"""Access policies: the list, one policy with the tenants it reaches, and the actions."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from opencrane.console.editing import EditPage, NewPage, Precondition
from opencrane.console.listing import Filter, capped_count, listing
from opencrane.console.objects import ObjectActions
from opencrane.console.writes import same_generation, settle
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkList, add_bulk_list
from operations.views.objects import SyncedPage
from policies import reading, selectors
from policies.models import AccessPolicy
from policies.services import access_policies, policy_sync
from policies.services.bulk import ACCESS_POLICIES
from policies.services.kind import ACCESS_POLICY
from policies.views.forms import PolicyForm, raw_of, rule_text
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


class NewPolicy(NewPage):
    resource = "policies"
    title = "New access policy"
    template_name = "policies/policy_form.html"
    form = PolicyForm
    submit = "Create access policy"
    list_page = "admin:policies"

    def blank(self) -> PolicyForm:
        return PolicyForm(raw_of({}), is_new=True)

    def create(self, values: dict[str, Any]) -> str:
        name = values.pop("name")
        write = access_policies.create_policy(name=name, values=values, actor=self.actor)
        settle(self.request, write, f"Access policy {name} is in the cluster.")
        return PolicyPage.url(name)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Also the step `switch` between fields and YAML."""
        if request.POST.get("step") != "switch":
            return super().post(request)
        form = PolicyForm.posted(request, is_new=True).switched()
        return self.show(form, status=400 if form.errors else 200)


class EditPolicy(EditPage[AccessPolicy]):
    resource = "policies"
    template_name = "policies/policy_form.html"
    page = PolicyPage
    form = PolicyForm
    review_template = "policies/policy_review.html"
    unchanged_tab = "spec"

    def form_of(self, policy: AccessPolicy) -> PolicyForm:
        form = PolicyForm.of(policy)
        return form.switched() if self.request.GET.get("mode") == "yaml" else form

    def post(self, request: HttpRequest, **path: Any) -> HttpResponse:
        """Also the step `switch` between fields and YAML."""
        if request.POST.get("step") != "switch":
            return super().post(request, **path)
        form = PolicyForm.posted(request).switched()
        seen = request.POST.get("generation", "")
        return self.show(self.find(**path), form, seen, status=400 if form.errors else 200)

    def save(self, policy: AccessPolicy, changes: dict[str, Any], precondition: Precondition) -> None:
        write = access_policies.update_policy(
            name=policy.name, changes=changes, precondition=precondition, actor=self.actor
        )
        settle(self.request, write, f"The cluster has the changed spec of {policy.name}.")

    def before(self, policy: AccessPolicy, changes: dict[str, Any]) -> dict[str, Any]:
        present = ACCESS_POLICY.spec(policy)
        return {field: present.get(field) for field in changes}

    def consequences(self, policy: AccessPolicy, changes: dict[str, Any]) -> dict[str, Any]:
        after = AccessPolicy(name=policy.name)
        ACCESS_POLICY.assign(after, ACCESS_POLICY.spec(policy) | changes)
        reach = reading.reach_counts([policy, after])
        return {"reach_now": reach[policy.pk], "reach_then": reach[after.pk]}


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
