"""Cluster tenants: the list with quota bars, one of them with its place and capacity, forms, and the actions."""

from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from cluster.models import DriftFinding
from opencrane.api.keyset import Keyset
from opencrane.api.serializers import camelize
from opencrane.console.forms import ApiForm, FormField
from opencrane.console.listing import Filter
from opencrane.console.objects import ObjectActions
from opencrane.console.pages import ConsolePage
from opencrane.console.values import differences
from opencrane.console.writes import same_generation, settle
from opencrane.errors import DomainError
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkList, add_bulk_list
from operations.views.objects import SyncedPage
from tenants import cluster_rules as rules
from tenants import selectors
from tenants.api.cluster_tenants import PHASES, CreateClusterTenantSerializer, UpdateClusterTenantSerializer
from tenants.capacity import Capacity, Measure, capacities
from tenants.cluster_manifests import namespace_of
from tenants.cluster_presentation import cluster_tenant_detail, phase_of
from tenants.models import ClusterTenant, Deprovisioning
from tenants.services import cluster_tenants
from tenants.services.cluster_bulk import CLUSTER_TENANTS
from tenants.services.cluster_kind import CLUSTER_TENANT

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="cluster tenants in the console")
PHASE_CHIPS = {
    "pending": ("info", "pending", "Pending"),
    "provisioning": ("info", "progress_activity", "Provisioning"),
    "ready": ("ok", "check_circle", "Ready"),
    "failed": ("bad", "error", "Failed"),
}
LABELS = {"cpu": "CPU", "memory": "Memory", "pods": "Pods"}
TIERS = {
    "shared": "Shared nodes",
    "dedicatedNodes": "Nodes of its own",
    "dedicatedCluster": "A cluster of its own",
}
NAME = FormField(
    "name", "Name", help=f"A DNS label of at most {rules.NAME_MAX} characters. Cannot be changed later.",
    is_required=True,
)  # fmt: skip
FIELDS = (
    FormField("displayName", "Display name", is_required=True),
    FormField("baseDomain", "Base domain", help="Lower case, such as acme.example.com. Blank: none."),
    FormField("isolationTier", "Isolation", "select", options=tuple(TIERS.items())),
    FormField(
        "compute.mode", "Nodes", "select", options=(("shared", "Those of everybody"), ("dedicated", "Those of a pool"))
    ),
    FormField("compute.nodePool", "Node pool", help="Nodes labelled opencrane.io/node-pool; needed for a pool."),
    FormField("resources.quota.cpu", "CPU quota", help="A quantity, such as 16. Blank: no limit."),
    FormField("resources.quota.memory", "Memory quota", help="A quantity, such as 64Gi. Blank: no limit."),
    FormField("resources.quota.storage", "Storage quota", help="A quantity, such as 1Ti. Blank: no limit."),
    FormField("resources.quota.pods", "Pods", "number", "Blank: no limit."),
    FormField("resources.quota.gpu", "GPUs", "number", "Blank: no limit."),
)


def amount(measure: str, value: Decimal | None) -> str:
    """A number as people read it: cores, GiB or a count."""
    if value is None:
        return "no limit"
    if measure == "memory":
        return f"{value / 1024**3:.1f} GiB".replace(".0 ", " ")
    return f"{value.normalize():f}"


def bar_of(measure: Measure) -> dict[str, Any]:
    text = f"{amount(measure.name, measure.requested)} asked for, quota {amount(measure.name, measure.quota)}"
    return {"label": LABELS[measure.name], "percent": measure.percent, "text": text}


def bars_of(capacity: Capacity) -> list[dict[str, Any]]:
    """A bar for each measure."""
    return [bar_of(measure) for measure in capacity.measures]


class ClusterTenantList(BulkList):
    resource = "cluster-tenants"
    title = "Cluster tenants"
    template_name = "tenants/cluster_tenants.html"
    noun = "cluster tenant"
    search = "Search name, display name or domain"
    keyset = NEWEST
    new_page = "admin:cluster_tenant_new"
    bulk = CLUSTER_TENANTS
    url_name = "cluster_tenants"

    def filters(self) -> list[Filter]:
        return [
            Filter("phase", "Phase", "choice", [(each, PHASE_CHIPS[each][2]) for each in PHASES]),
            Filter("tier", "Isolation", "choice", list(TIERS.items())),
        ]

    def found(self, filters: dict[str, str]) -> QuerySet[ClusterTenant]:
        return selectors.cluster_tenants_matching(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        known = capacities(objects)
        names = [row.name for row in objects]
        drifted = set(DriftFinding.objects.filter(kind="ClusterTenant", name__in=names).values_list("name", flat=True))
        return [
            {
                "phase": PHASE_CHIPS[phase_of(row)],
                "sync": row.shown_state(is_drifted=row.name in drifted),
                "tier": TIERS[row.isolation_tier],
                "bars": bars_of(known[row.name]),
                "tenants": known[row.name].tenants,
            }
            for row in objects
        ]

    def extra(self) -> dict[str, Any]:
        return super().extra() | {"leaving": list(Deprovisioning.objects.all()[:20])}


class ClusterTenantPage(SyncedPage[ClusterTenant]):
    resource = "cluster-tenants"
    template_name = "tenants/cluster_tenant.html"
    noun = "cluster tenant"
    url_name = "cluster_tenant"
    list_page = "admin:cluster_tenants"
    kind = CLUSTER_TENANT
    header_template = "tenants/_cluster_tenant_header.html"
    tab_templates = "tenants/cluster_tenant_"
    tabs = {"overview": "Overview", "spec": "Spec", "audit": "Audit"}

    def find(self, name: str) -> ClusterTenant:
        return selectors.cluster_tenant_named(name)

    def header(self, row: ClusterTenant) -> dict[str, Any]:
        return {
            "title": row.display_name or row.name,
            "generation": row.generation,
            "row": row,
            "phase": PHASE_CHIPS[phase_of(row)],
            "sync": self.state_of(row),
            "is_moving": row.in_flight or phase_of(row) in {"pending", "provisioning"},
            "namespace": row.bound_namespace or namespace_of(row.name),
            "referrers": selectors.tenants_in(row.name, cluster_tenants.SHOWN_REFERRERS),
            "yaml": self.yaml(row),
        }

    def overview_tab(self, row: ClusterTenant) -> dict[str, Any]:
        capacity = capacities([row])[row.name]
        quota = row.resources.get("quota") or {}
        return {"tier": TIERS[row.isolation_tier], "capacity": capacity, "bars": bars_of(capacity), "quota": quota}

    def audited(self, row: ClusterTenant) -> AuditFilter:
        return AuditFilter(resource=f"ClusterTenant/{row.name}")


class NewClusterTenant(ConsolePage):
    resource = "cluster-tenants"
    title = "New cluster tenant"
    template_name = "console/form.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form(ApiForm((NAME, *FIELDS), {"isolationTier": "shared", "compute.mode": "shared"}))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = ApiForm.posted((NAME, *FIELDS), request)
        values = form.checked(CreateClusterTenantSerializer, body_of(form))
        if values is None:
            return self._form(form, 400)
        spec = {camelize(key): value for key, value in values.items()}
        name = spec.pop("name")
        try:
            write = cluster_tenants.create_cluster_tenant(name=name, values=spec, actor=self.actor)
            settle(request, write, f"Cluster tenant {name} is saved; its place is being made.")
        except DomainError as exc:
            return self._form(form.refuse(exc, request), exc.http_status)
        return HttpResponseRedirect(ClusterTenantPage.url(name))

    def _form(self, form: ApiForm, status: int = 200) -> HttpResponse:
        values = {"form": form, "submit": "Create cluster tenant", "cancel_url": reverse("admin:cluster_tenants")}
        return self.render(values, status=status)


class EditClusterTenant(ConsolePage):
    """Steps by POST: `review` shows the difference, `edit` goes back to the form, `save` writes."""

    resource = "cluster-tenants"
    template_name = "console/form.html"

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        row = selectors.cluster_tenant_named(name)
        return self._form(row, ApiForm(FIELDS, filled(row)), str(row.generation))

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        row = selectors.cluster_tenant_named(name)
        form, seen = ApiForm.posted(FIELDS, request), request.POST.get("generation", "")
        if request.POST.get("step") == "edit":
            return self._form(row, form, seen)
        precondition = same_generation(request)
        precondition(row.generation)
        values = form.checked(UpdateClusterTenantSerializer, body_of(form))
        if values is None:
            return self._form(row, form, seen, 400)
        changes = {camelize(key): value for key, value in values.items()}
        if request.POST.get("step") != "save":
            before = {key: value for key, value in cluster_tenant_detail(row).items() if key in changes}
            after = {key: "" if value is None else value for key, value in changes.items()}
            changed = {key for key in after if after[key] != before[key]}
            if not changed:
                messages.info(request, "Nothing differs from what is there, so nothing was saved.")
                return HttpResponseRedirect(ClusterTenantPage.url(name))
            rows = differences({key: before[key] for key in changed}, {key: after[key] for key in changed})
            review = {"title": f"Save {name}?", "name": name, "raw": form.raw, "generation": seen, "rows": rows}
            return self.render(review | {"back_url": ClusterTenantPage.url(name)}, template="console/review.html")
        try:
            write = cluster_tenants.update_cluster_tenant(
                name=name, changes=changes, precondition=precondition, actor=self.actor
            )
            settle(request, write, f"Cluster tenant {name} is saved; its place follows.")
        except DomainError as exc:
            return self._form(row, form.refuse(exc, request), seen, exc.http_status)
        return HttpResponseRedirect(ClusterTenantPage.url(name))

    def _form(self, row: ClusterTenant, form: ApiForm, generation: str, status: int = 200) -> HttpResponse:
        values = {"title": f"Edit {row.name}", "form": form, "submit": "Review changes", "generation": generation}
        return self.render(values | {"cancel_url": ClusterTenantPage.url(row.name)}, status=status)


def body_of(form: ApiForm) -> dict[str, Any]:
    """The form as a body: a blank domain is cleared, and a quota without numbers is an empty one."""
    body = form.body(blank=frozenset({"baseDomain"}))
    return body | {"resources": {"quota": (body.get("resources") or {}).get("quota") or {}}}


def filled(row: ClusterTenant) -> dict[str, Any]:
    """The form's inputs as the row fills them in."""
    shown = cluster_tenant_detail(row)
    raw = {name: shown[name] for name in ("displayName", "baseDomain", "isolationTier")}
    raw |= {f"compute.{key}": value for key, value in shown["compute"].items()}
    return raw | {f"resources.quota.{key}": str(value) for key, value in shown["resources"]["quota"].items()}


class ClusterTenantActions(ObjectActions):
    resource = "cluster-tenants"
    page = ClusterTenantPage

    def do_sync(self, name: str) -> None:
        write = cluster_tenants.resync_cluster_tenant(name=name, actor=self.actor)
        settle(self.request, write, "Applied again; its place is looked at.")

    def do_delete(self, name: str) -> str | None:
        self.require_typed(name)
        write = cluster_tenants.delete_cluster_tenant(
            name=name,
            purge=self.request.POST.get("purge") == "on",
            reason=self.reason,
            precondition=same_generation(self.request),
            actor=self.actor,
        )
        is_gone = settle(self.request, write, f"Cluster tenant {name} is deleted; what it had is being cleared away.")
        return reverse("admin:cluster_tenants") if is_gone else None


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    add_bulk_list(site, "cluster-tenants", ClusterTenantList)
    site.add_page("new-cluster-tenant/", NewClusterTenant.as_view(), "cluster_tenant_new")
    site.add_page("cluster-tenants/<str:name>/", ClusterTenantPage.as_view(), "cluster_tenant")
    site.add_page("cluster-tenants/<str:name>/edit/", EditClusterTenant.as_view(), "cluster_tenant_edit")
    site.add_page("cluster-tenants/<str:name>/do/<str:action>/", ClusterTenantActions.as_view(), "cluster_tenant_do")
    site.add_object_page("ClusterTenant", "admin:cluster_tenant")
    site.add_navigation(
        "Fleet", "Cluster tenants", "domain", "admin:cluster_tenants", resource="cluster-tenants", position=25
    )
