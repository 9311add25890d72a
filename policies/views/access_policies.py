"""Access policies: the list, one policy with the tenants it reaches, and the actions."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from opencrane.console.access import READ, may
from opencrane.console.listing import Filter, FilterBar, capped_count, listing, page_of
from opencrane.console.pages import ConsoleAction, ConsolePage, request_id, sentence
from opencrane.console.values import differences, to_yaml
from opencrane.console.writes import same_generation, settle
from opencrane.errors import DomainError, InvalidError
from operations import audit_reading
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkPage, bulk_bar, register_bulk
from policies import reading, selectors
from policies.errors import PolicyNotFoundError
from policies.models import AccessPolicy
from policies.services import access_policies, policy_sync
from policies.services.bulk import ACCESS_POLICIES
from policies.services.kind import ACCESS_POLICY
from policies.views.forms import PolicyForm, rule_text
from policies.views.tabs import TabSearch
from tenants import selectors as tenants

SYNC_LABELS = [
    ("synced", "In sync"),
    ("waiting", "Waiting"),
    ("failing", "Failing"),
    ("drifted", "Drifted"),
    ("deleting", "Deleting"),
]
TABS = {"overview": "Overview", "tenants": "Tenants it reaches", "spec": "Spec", "sync": "Sync", "audit": "Audit"}
AUDIT_ROWS = 25
REFERRERS_SHOWN = 10
_HEAD = {"apiVersion": ACCESS_POLICY.resource.api_version, "kind": ACCESS_POLICY.resource.kind}


def policy_url(name: str, tab: str = "") -> str:
    url = reverse("admin:policy", args=[name])
    return f"{url}?tab={tab}" if tab else url


def filter_bar(request: HttpRequest) -> FilterBar:
    """Search and filters of the list, from the URL."""
    return FilterBar(request, [Filter("sync", "Sync", "choice", SYNC_LABELS)], "Search name or description")


class PolicyList(ConsolePage):
    resource = "policies"
    title = "Access policies"
    template_name = "policies/policies.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = filter_bar(request)
        found = reading.policies_listed(bar.values())
        page = listing(request, reading.POLICIES_NEWEST, found)
        reach = reading.reach_counts(page.rows)
        rows = [
            {
                "policy": row,
                "state": reading.shown_state(row, is_drifted=row.is_drifted),
                "reach": reach[row.pk],
                "whom": whom(row),
            }
            for row in page.rows
        ]
        is_filtered = bool(bar.active)
        count = capped_count(found)
        return self.render(
            bulk_bar(ACCESS_POLICIES, "admin:policies_bulk", bar, count)
            | {
                "bar": bar,
                "listing": page,
                "rows": rows,
                "count": count,
                "is_filtered": is_filtered,
                "is_empty": not rows and not is_filtered and not request.GET.get("cursor"),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )


class PoliciesBulkPage(BulkPage):
    resource = "policies"
    bulk = ACCESS_POLICIES
    list_url = "admin:policies"

    def filters(self, request: HttpRequest) -> FilterBar:
        return filter_bar(request)

    def names(self, filters: dict[str, str], limit: int) -> list[str]:
        return reading.policy_names(filters, limit)


class PolicyPage(ConsolePage):
    resource = "policies"
    template_name = "policies/policy.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        if request.GET.get("part") == "header":
            return self._header(name)
        policy = selectors.policy_named(name)
        tabs = {key: label for key, label in TABS.items() if self._may_see(key)}
        tab = request.GET.get("tab", "")
        tab = tab if tab in tabs else "overview"
        values = header_values(policy) | getattr(self, f"_{tab}")(policy)
        referrers = selectors.tenants_naming(policy.name, REFERRERS_SHOWN + 1)
        return self.render(
            values
            | {
                "title": policy.name,
                "tab": tab,
                "tabs": tabs,
                "tab_template": f"policies/policy_{tab}.html",
                "referrers": referrers[:REFERRERS_SHOWN],
                "has_more_referrers": len(referrers) > REFERRERS_SHOWN,
            }
        )

    def _may_see(self, tab: str) -> bool:
        needed = {"audit": "audit", "tenants": "tenants"}.get(tab)
        return needed is None or may(self.request.user, needed, READ)

    def _header(self, name: str) -> HttpResponse:
        """The part that changes by itself; polled while a write is in flight."""
        try:
            policy = selectors.policy_named(name)
        except PolicyNotFoundError:
            messages.success(self.request, f"Access policy {name} is gone from the cluster and from here.")
            return HttpResponse(status=200, headers={"HX-Redirect": reverse("admin:policies")})
        return self.fragment("policies/_policy_header.html", header_values(policy))

    def _overview(self, policy: AccessPolicy) -> dict[str, Any]:
        return {
            "whom": whom(policy),
            "reach": reading.reach_counts([policy])[policy.pk],
            "domains": policy.domains or {},
            "rules": [rule_text(rule) for rule in policy.egress_rules or []],
            "servers": policy.mcp_servers or {},
        }

    def _tenants(self, policy: AccessPolicy) -> dict[str, Any]:
        bar = TabSearch(self.request, [], "Search name, display name or e-mail", keep_tab="tenants")
        found = reading.tenants_reached(policy, bar.search)
        page = listing(self.request, reading.TENANTS_BY_NAME, found)
        return {"bar": bar, "listing": page, "count": capped_count(found), "whom": whom(policy)}

    def _spec(self, policy: AccessPolicy) -> dict[str, Any]:
        spec = ACCESS_POLICY.spec(policy)
        return {
            "fields": [(field, spec.get(field)) for field in ACCESS_POLICY.fields],
            "yaml": to_yaml({**_HEAD, "metadata": {"name": policy.name}, "spec": spec}),
        }

    def _sync(self, policy: AccessPolicy) -> dict[str, Any]:
        return {
            "revisions": tenants.unconfirmed_writes(policy.pk),
            "outcomes": tenants.recent_outcomes(policy.pk),
        }

    def _audit(self, policy: AccessPolicy) -> dict[str, Any]:
        wanted = AuditFilter(resource=f"AccessPolicy/{policy.name}")
        found = audit_reading.read_page(wanted, self.request, rows=AUDIT_ROWS)
        return {"entries": found.entries, "listing": page_of(self.request, found.entries, found.next_cursor)}


def header_values(policy: AccessPolicy) -> dict[str, Any]:
    """Chips, actions and copies of a policy's page."""
    return {
        "policy": policy,
        "state": reading.shown_state(policy, is_drifted=reading.is_drifted(policy)),
        "is_settling": policy.in_flight,
        "namespace": selectors.namespace() or "default",
    }


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
        return HttpResponseRedirect(policy_url(name))

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
            return HttpResponseRedirect(policy_url(name, "spec"))
        if request.POST.get("step") != "save":
            return self._review(policy, form, changes, seen)
        try:
            write = access_policies.update_policy(
                name=name, changes=changes, precondition=precondition, actor=self.actor
            )
            settle(request, write, f"The cluster has the changed spec of {name}.")
        except DomainError as exc:
            return self._form(policy, noted(form, exc, request), seen, status=exc.http_status)
        return HttpResponseRedirect(policy_url(name))

    def _form(self, policy: AccessPolicy, form: PolicyForm, seen: str, status: int = 200) -> HttpResponse:
        return self.render(
            {
                "title": f"Edit {policy.name}",
                "policy": policy,
                "form": form,
                "sections": form.sections(),
                "generation": seen,
                "cancel_url": policy_url(policy.name),
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


class PolicyAction(ConsoleAction):
    """Try now, apply again, delete."""

    resource = "policies"

    def act(self, *, name: str, action: str) -> str:
        match action:
            case "try-now":
                count = policy_sync.try_now(name=name)
                nothing = f"{name} is in sync; there is nothing to try."
                messages.info(self.request, "A worker tries it now." if count else nothing)
            case "apply":
                write = policy_sync.resync_policy(name=name, actor=self.actor)
                settle(self.request, write, f"The cluster has {name} as it is here.")
            case "delete":
                return self._delete(name)
            case _:
                raise InvalidError("There is no such action.")
        return self.back(name=name, action=action)

    def _delete(self, name: str) -> str:
        if self.request.POST.get("confirm", "").strip() != name:
            raise InvalidError(f"Nothing was deleted: the name typed was not {name}.")
        reason = self.request.POST.get("reason", "").strip()[:500]
        write = access_policies.delete_policy(
            name=name, reason=reason, precondition=same_generation(self.request), actor=self.actor
        )
        is_gone = settle(self.request, write, f"Access policy {name} is deleted.")
        return reverse("admin:policies") if is_gone else policy_url(name)

    def back(self, *, name: str, action: str) -> str:
        return self.next_or(policy_url(name))


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
    site.add_page("policies/", PolicyList.as_view(), "policies")
    register_bulk(site, "policies-bulk/", PoliciesBulkPage, "policies_bulk")
    site.add_page("new-policy/", NewPolicy.as_view(), "policy_new")
    site.add_page("policies/<str:name>/", PolicyPage.as_view(), "policy")
    site.add_page("policies/<str:name>/edit/", EditPolicy.as_view(), "policy_edit")
    site.add_page("policies/<str:name>/do/<str:action>/", PolicyAction.as_view(), "policy_do")
    site.add_object_page("AccessPolicy", "admin:policy")
    site.add_navigation("Access", "Access policies", "policy", "admin:policies", resource="policies", position=32)
