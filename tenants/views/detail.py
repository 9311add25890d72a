"""One tenant: header, tabs that load only what they show, and the actions."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from opencrane.console.access import READ, may
from opencrane.console.listing import page_of
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.console.values import pretty_json, to_yaml
from opencrane.console.writes import same_generation, settle
from opencrane.errors import InvalidError
from operations import audit_reading
from operations import selectors as operations
from operations.audit_pages import AuditFilter
from tenants import selectors
from tenants.contract import effective_contract
from tenants.contract_reasons import contract_reasons
from tenants.errors import TenantNotFoundError
from tenants.models import Phase, Tenant
from tenants.presentation import tenant_detail
from tenants.running import condition_of, tree_of, why_not_running
from tenants.services import lifecycle, release
from tenants.services.kind import TENANT
from tenants.views.editing import tenant_url
from workloads.naming import FINALIZER

TABS = {
    "overview": "Overview",
    "workloads": "Workloads",
    "spec": "Spec",
    "contract": "Effective contract",
    "sync": "Sync",
    "audit": "Audit",
}
AUDIT_ROWS = 25
POLICY_SOURCES = {
    "policyRef": "which the tenant names",
    "selector": "whose selector picks it",
    "default": "the default of all tenants",
}
_HEAD = {"apiVersion": TENANT.resource.api_version, "kind": TENANT.resource.kind}


class TenantPage(ConsolePage):
    resource = "tenants"
    template_name = "tenants/detail.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        if request.GET.get("part") == "header":
            return self._header(name)
        tenant = selectors.tenant_named(name)
        if request.GET.get("part") == "workloads":
            return self.fragment("tenants/tab_workloads.html", {"tenant": tenant, **self._workloads(tenant)})
        tabs = {key: label for key, label in TABS.items() if key != "audit" or may(request.user, "audit", READ)}
        tab = request.GET.get("tab", "")
        tab = tab if tab in tabs else "overview"
        values = header_values(tenant) | getattr(self, f"_{tab}")(tenant)
        return self.render(
            values | {"title": tenant.name, "tab": tab, "tabs": tabs, "tab_template": f"tenants/tab_{tab}.html"}
        )

    def _header(self, name: str) -> HttpResponse:
        """The part that changes by itself; polled while a write is in flight."""
        try:
            tenant = selectors.tenant_named(name)
        except TenantNotFoundError:
            messages.success(self.request, f"Tenant {name} is gone from the cluster and from here.")
            return HttpResponse(status=200, headers={"HX-Redirect": reverse("admin:tenants")})
        return self.fragment("tenants/_header.html", header_values(tenant))

    # -- tabs: each reads what it shows -------------------------------------------------------------------------------

    def _overview(self, tenant: Tenant) -> dict[str, Any]:
        return {"detail": tenant_detail(tenant), "datasets": selectors.datasets_of(tenant.pk)}

    def _workloads(self, tenant: Tenant) -> dict[str, Any]:
        status = tenant.status
        policy = status.get("effectivePolicy") or {}
        events = [{**event, "at": parse_datetime(event.get("lastSeen") or "")} for event in status.get("events") or ()]
        return {
            "tree": tree_of(tenant),
            "events": sorted(events, key=lambda event: event.get("lastSeen") or "", reverse=True),
            "policy": policy,
            "policy_source": POLICY_SOURCES.get(policy.get("source", ""), ""),
            "enforced": condition_of(tenant, "PolicyEnforced"),
            "shared": condition_of(tenant, "HostExclusive"),
            "reported_at": parse_datetime(status.get("lastReconciled") or ""),
            "is_moving": tenant.in_flight or (tenant.phase == Phase.PENDING and bool(tenant.status_phase)),
        }

    def _spec(self, tenant: Tenant) -> dict[str, Any]:
        spec = TENANT.spec(tenant)
        return {
            "fields": [(field, spec.get(field)) for field in TENANT.fields],
            "yaml": to_yaml({**_HEAD, "metadata": {"name": tenant.name}, "spec": spec}),
        }

    def _contract(self, tenant: Tenant) -> dict[str, Any]:
        contract = effective_contract(tenant)
        return {"contract": contract, "reasons": contract_reasons(tenant), "json": pretty_json(contract)}

    def _sync(self, tenant: Tenant) -> dict[str, Any]:
        return {
            "revisions": selectors.unconfirmed_writes(tenant.pk),
            "outcomes": selectors.recent_outcomes(tenant.pk),
        }

    def _audit(self, tenant: Tenant) -> dict[str, Any]:
        found = audit_reading.read_page(AuditFilter(tenant_id=tenant.pk), self.request, rows=AUDIT_ROWS)
        return {"entries": found.entries, "listing": page_of(self.request, found.entries, found.next_cursor)}


def header_values(tenant: Tenant) -> dict[str, Any]:
    """Chips, actions and copies of a tenant's page."""
    state = selectors.shown_state(tenant, is_drifted=selectors.is_drifted(tenant))
    why = why_not_running(tenant, timezone.now())
    return {
        "tenant": tenant,
        "state": state,
        # What no operator has reported on stays as it is.
        "is_settling": tenant.in_flight or (tenant.phase == Phase.PENDING and bool(tenant.status_phase)),
        "why": why,
        "definition_problems": operations.definition_problems(TENANT.resource.name) if why else [],
        "is_held": tenant.deleting and FINALIZER in tenant.sync_error,
        "namespace": settings.NAMESPACE,
    }


class TenantAction(ConsoleAction):
    """Suspend, resume, try now, apply again, delete, let go."""

    resource = "tenants"

    def act(self, *, name: str, action: str) -> str:
        request, actor = self.request, self.actor
        reason = request.POST.get("reason", "").strip()[:500]
        match action:
            case "suspend":
                write = lifecycle.suspend_tenant(
                    name=name, reason=reason, precondition=same_generation(request), actor=actor
                )
                settle(request, write, f"Tenant {name} is suspended.")
            case "resume":
                write = lifecycle.resume_tenant(
                    name=name, reason=reason, precondition=same_generation(request), actor=actor
                )
                settle(request, write, f"Tenant {name} is resumed.")
            case "try-now":
                count = lifecycle.try_now(names=[name])
                messages.info(
                    request, "A worker tries it now." if count else f"{name} is in sync; there is nothing to try."
                )
            case "apply":
                settle(
                    request, lifecycle.resync_tenant(name=name, actor=actor), f"The cluster has {name} as it is here."
                )
            case "delete":
                return self._delete(name, reason)
            case "release":
                release.release_tenant(name=name, reason=reason, actor=actor)
                messages.info(request, f"A worker lets go of {name}.")
            case _:
                raise InvalidError("There is no such action.")
        return self.back(name=name, action=action)

    def _delete(self, name: str, reason: str) -> str:
        if self.request.POST.get("confirm", "").strip() != name:
            raise InvalidError(f"Nothing was deleted: the name typed was not {name}.")
        write = lifecycle.delete_tenant(
            name=name,
            reason=reason,
            purge=self.request.POST.get("purge") == "yes",
            precondition=same_generation(self.request),
            actor=self.actor,
        )
        is_gone = settle(self.request, write, f"Tenant {name} is deleted.")
        return reverse("admin:tenants") if is_gone else tenant_url(name)

    def back(self, *, name: str, action: str) -> str:
        return self.next_or(tenant_url(name))


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("tenants/<str:name>/", TenantPage.as_view(), "tenant")
    site.add_page("tenants/<str:name>/do/<str:action>/", TenantAction.as_view(), "tenant_do")
    site.add_object_page("Tenant", "admin:tenant")
