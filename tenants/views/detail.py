"""One tenant: header, tabs that load only what they show, and the actions."""

from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from opencrane.console.objects import AddedTab, ObjectActions
from opencrane.console.values import pretty_json
from opencrane.console.writes import same_generation, settle
from operations import selectors as operations
from operations.audit_pages import AuditFilter
from operations.views.objects import SyncedPage
from tenants import selectors
from tenants.contract import effective_contract
from tenants.contract_reasons import contract_reasons
from tenants.models import Phase, Tenant
from tenants.presentation import tenant_detail
from tenants.running import condition_of, tree_of, why_not_running
from tenants.services import lifecycle, release
from tenants.services.kind import TENANT
from workloads.naming import FINALIZER

POLICY_SOURCES = {
    "policyRef": "which the tenant names",
    "selector": "whose selector picks it",
    "default": "the default of all tenants",
}


class TenantPage(SyncedPage[Tenant]):
    resource = "tenants"
    template_name = "tenants/detail.html"
    noun = "tenant"
    url_name = "tenant"
    list_page = "admin:tenants"
    kind = TENANT
    header_template = "tenants/_header.html"
    tab_templates = "tenants/tab_"
    tabs = {
        "overview": "Overview",
        "workloads": "Workloads",
        "spec": "Spec",
        "contract": "Effective contract",
        "sync": "Sync",
        "audit": "Audit",
    }

    added: ClassVar[dict[str, AddedTab]] = {}

    def find(self, name: str) -> Tenant:
        return selectors.tenant_named(name)

    def header(self, tenant: Tenant) -> dict[str, Any]:
        why = why_not_running(tenant, timezone.now())
        return {
            "title": tenant.name,
            "generation": tenant.generation,
            "tenant": tenant,
            "state": self.state_of(tenant),
            # What no operator has reported on stays as it is.
            "is_settling": tenant.in_flight or (tenant.phase == Phase.PENDING and bool(tenant.status_phase)),
            "why": why,
            "definition_problems": operations.definition_problems(TENANT.resource.name) if why else [],
            "is_held": tenant.deleting and FINALIZER in tenant.sync_error,
            "namespace": settings.NAMESPACE,
        }

    def part(self, name: str, tenant: Tenant) -> HttpResponse | None:
        if name == "workloads":
            return self.fragment("tenants/tab_workloads.html", {"tenant": tenant, **self.workloads_tab(tenant)})
        return super().part(name, tenant)

    def overview_tab(self, tenant: Tenant) -> dict[str, Any]:
        return {"detail": tenant_detail(tenant), "datasets": selectors.datasets_of(tenant.pk)}

    def workloads_tab(self, tenant: Tenant) -> dict[str, Any]:
        status = tenant.status
        policy = status.get("effectivePolicy") or {}
        events = [{**event, "at": parse_datetime(event.get("lastSeen") or "")} for event in status.get("events") or ()]
        return {
            "tree": tree_of(tenant),
            "events": sorted(events, key=lambda event: event.get("lastSeen") or "", reverse=True),
            "policy": policy,
            "policy_source": POLICY_SOURCES.get(policy.get("source", ""), ""),
            "enforced": condition_of(tenant, "PolicyEnforced"),
            "reported_at": parse_datetime(status.get("lastReconciled") or ""),
            "is_moving": tenant.in_flight or (tenant.phase == Phase.PENDING and bool(tenant.status_phase)),
        }

    def contract_tab(self, tenant: Tenant) -> dict[str, Any]:
        contract = effective_contract(tenant)
        return {"contract": contract, "reasons": contract_reasons(tenant), "json": pretty_json(contract)}

    def audited(self, tenant: Tenant) -> AuditFilter:
        return AuditFilter(tenant_id=tenant.pk)


class TenantActions(ObjectActions):
    resource = "tenants"
    page = TenantPage

    def do_suspend(self, name: str) -> None:
        write = lifecycle.suspend_tenant(
            name=name, reason=self.reason, precondition=same_generation(self.request), actor=self.actor
        )
        settle(self.request, write, f"Tenant {name} is suspended.")

    def do_resume(self, name: str) -> None:
        write = lifecycle.resume_tenant(
            name=name, reason=self.reason, precondition=same_generation(self.request), actor=self.actor
        )
        settle(self.request, write, f"Tenant {name} is resumed.")

    def do_try_now(self, name: str) -> None:
        count = lifecycle.try_now(names=[name])
        nothing = f"{name} is in sync; there is nothing to try."
        messages.info(self.request, "A worker tries it now." if count else nothing)

    def do_apply(self, name: str) -> None:
        write = lifecycle.resync_tenant(name=name, actor=self.actor)
        settle(self.request, write, f"The cluster has {name} as it is here.")

    def do_release(self, name: str) -> None:
        release.release_tenant(name=name, reason=self.reason, actor=self.actor)
        messages.info(self.request, f"A worker lets go of {name}.")

    def do_delete(self, name: str) -> str | None:
        self.require_typed(name)
        write = lifecycle.delete_tenant(
            name=name,
            reason=self.reason,
            purge=self.request.POST.get("purge") == "yes",
            precondition=same_generation(self.request),
            actor=self.actor,
        )
        is_gone = settle(self.request, write, f"Tenant {name} is deleted.")
        return reverse("admin:tenants") if is_gone else None


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("tenants/<str:name>/", TenantPage.as_view(), "tenant")
    site.add_page("tenants/<str:name>/do/<str:action>/", TenantActions.as_view(), "tenant_do")
    site.add_object_page("Tenant", "admin:tenant")
