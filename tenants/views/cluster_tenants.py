"""Cluster tenants: the list with quota bars, one of them with its place and capacity, forms, and the actions."""

from collections.abc import Collection
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.urls import reverse

from cluster.models import DriftFinding
from opencrane.api.keyset import Keyset
from opencrane.console.editing import EditPage, NewPage, Precondition
from opencrane.console.forms import FormField, ObjectForm, Section
from opencrane.console.listing import Filter
from opencrane.console.objects import ObjectActions
from opencrane.console.writes import same_generation, settle
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
FIELDS = (
    FormField(
        "name",
        "Name",
        help=f"A DNS label of at most {rules.NAME_MAX} characters. Cannot be changed later.",
        is_required=True,
        is_fixed=True,
    ),
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

    def more(self) -> dict[str, Any]:
        return super().more() | {"leaving": list(Deprovisioning.objects.all()[:20])}


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


class ClusterTenantForm(ObjectForm[ClusterTenant]):
    sections = (Section("", FIELDS),)
    creates, updates = CreateClusterTenantSerializer, UpdateClusterTenantSerializer
    is_spec = True

    @classmethod
    def of(cls, row: ClusterTenant) -> "ClusterTenantForm":
        shown = cluster_tenant_detail(row)
        raw = {name: shown[name] for name in ("displayName", "baseDomain", "isolationTier")}
        raw |= {f"compute.{key}": value for key, value in shown["compute"].items()}
        return cls(raw | {f"resources.quota.{key}": str(value) for key, value in shown["resources"]["quota"].items()})

    def body(self, touched: Collection[str] | None = None) -> dict[str, Any]:
        """A quota without numbers is an empty one."""
        found = super().body(touched)
        if touched is None or "resources" in found:
            found["resources"] = {"quota": (found.get("resources") or {}).get("quota") or {}}
        return found


class NewClusterTenant(NewPage):
    resource = "cluster-tenants"
    title = "New cluster tenant"
    form = ClusterTenantForm
    submit = "Create cluster tenant"
    list_page = "admin:cluster_tenants"

    def blank(self) -> ClusterTenantForm:
        return ClusterTenantForm({"isolationTier": "shared", "compute.mode": "shared"}, is_new=True)

    def create(self, values: dict[str, Any]) -> str:
        name = values.pop("name")
        write = cluster_tenants.create_cluster_tenant(name=name, values=values, actor=self.actor)
        settle(self.request, write, f"Cluster tenant {name} is saved; its place is being made.")
        return ClusterTenantPage.url(name)


class EditClusterTenant(EditPage[ClusterTenant]):
    resource = "cluster-tenants"
    page = ClusterTenantPage
    form = ClusterTenantForm

    def save(self, row: ClusterTenant, changes: dict[str, Any], precondition: Precondition) -> None:
        write = cluster_tenants.update_cluster_tenant(
            name=row.name, changes=changes, precondition=precondition, actor=self.actor
        )
        settle(self.request, write, f"Cluster tenant {row.name} is saved; its place follows.")

    def before(self, row: ClusterTenant, changes: dict[str, Any]) -> dict[str, Any]:
        present = cluster_tenant_detail(row)
        return {name: present[name] for name in changes}


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
