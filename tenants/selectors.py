"""Reading tenants."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Lower, Now

from cluster.models import DriftFinding
from cluster.rows import fetch_one
from opencrane.api.keyset import Keyset, Page
from opencrane.api.pasted import json_page, like
from tenants.errors import ClusterTenantNotFoundError, TenantNotFoundError
from tenants.models import ClusterTenant, Deprovisioning, Phase, RetainedData, Tenant

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="tenants")
ORG_DATASETS = ["default"]

_SYNC = """CASE WHEN t.deleting THEN 'deleting' WHEN t.observed_generation = t.generation THEN 'synced'
 WHEN t.sync_failing_since IS NOT NULL THEN 'failing' ELSE 'waiting' END"""
# One tenant of a list: what the row has in store, and what changes by itself. PostgreSQL pastes the whole list, because
# serialising is what a list of 10,000 would cost.
_ITEM = f"""t.document || to_json(t.phase)::text || ',"sync":"' || ({_SYNC}) || '"}}'"""


def tenant_named(name: str) -> Tenant:
    """The tenant, also one that is being deleted.

    Raises:
        TenantNotFoundError
    """
    tenant = fetch_one(Tenant, "name = %s", name)
    if tenant is None:
        raise TenantNotFoundError(f"There is no tenant named {name}.")
    return tenant


def tenants_with_email(email: str, limit: int) -> list[Tenant]:
    """Tenants whose address this is, ignoring case, without those that are being deleted; at most `limit`."""
    lowered = Tenant.objects.alias(lowered=Lower("email")).filter(lowered=Lower(Value(email)), deleting=False)
    return list(lowered.order_by("name")[:limit])


def tenants_matching(filters: dict[str, str]) -> QuerySet[Tenant]:
    """Tenants that fit every filter given: `q`, `team`, `phase`, `sync`, `policyRef`, `clusterTenantRef`, `email`.

    `sync` is what the console's chip says: `synced` leaves out what has drifted, as `drifted` does what is in flight.
    """
    where, params = _where(filters, CHIP_CONDITIONS)
    return Tenant.objects.extra(where=[re.sub(r"\bt\.", "tenants_tenant.", where)], params=params)  # noqa: S610


def tenant_page(filters: dict[str, str], page: Page) -> tuple[bytes, str]:
    """One page of the list, newest first, as JSON text in one query; and the cursor of the next page, or empty."""
    where, params = _where(filters)
    beyond, keys = NEWEST.where(page, "t.")
    chosen = f"FROM tenants_tenant t WHERE {where} AND {beyond} ORDER BY {NEWEST.order_by('t.')}"
    with connection.cursor() as cursor:
        if page.limit is None:
            items = f"SELECT {_ITEM} {chosen}"
            cursor.execute(f"SELECT coalesce(string_agg(item, ','), '') FROM ({items}) AS t(item)", [*params, *keys])  # noqa: S608
            return f"[{cursor.fetchone()[0]}]".encode(), ""
        cursor.execute(f"SELECT {_ITEM}, t.created_at, t.id {chosen} LIMIT %s", [*params, *keys, page.limit + 1])
        rows = cursor.fetchall()
    return json_page(NEWEST, rows, page)


def _where(filters: dict[str, str], sync_conditions: Mapping[str, str] | None = None) -> tuple[str, list[Any]]:
    """An SQL condition on `tenants_tenant t` and its parameters."""
    parts: list[str] = ["TRUE"]
    params: list[Any] = []
    if text := filters.get("q"):
        parts.append("(t.name ILIKE %s OR t.display_name ILIKE %s OR t.email ILIKE %s)")
        params += [like(text)] * 3
    columns = {
        "team": "t.team",
        "phase": "t.phase",
        "policyRef": "t.policy_ref",
        "clusterTenantRef": "t.cluster_tenant_ref",
    }
    for key, column in columns.items():
        if key in filters:
            parts.append(f"{column} = %s")
            params.append(filters[key])
    if "email" in filters:
        parts.append("lower(t.email) = lower(%s)")
        params.append(filters["email"])
    if "sync" in filters:
        parts.append((sync_conditions or SYNC_CONDITIONS)[filters["sync"]])
    return " AND ".join(parts), params


SYNC_CONDITIONS = {
    "synced": "(NOT t.deleting AND t.observed_generation = t.generation)",
    "waiting": "(NOT t.deleting AND t.observed_generation < t.generation AND t.sync_failing_since IS NULL)",
    "failing": "(t.observed_generation < t.generation AND t.sync_failing_since IS NOT NULL)",
    "deleting": "t.deleting",
    "drifted": "EXISTS (SELECT 1 FROM cluster_driftfinding f WHERE f.kind = 'Tenant' AND f.name = t.name)",
}
# The same in the console, where a tenant counts for one of them only.
CHIP_CONDITIONS = SYNC_CONDITIONS | {
    "synced": f"({SYNC_CONDITIONS['synced']} AND NOT {SYNC_CONDITIONS['drifted']})",
    "failing": f"(NOT t.deleting AND {SYNC_CONDITIONS['failing']})",
    "drifted": f"({SYNC_CONDITIONS['synced']} AND {SYNC_CONDITIONS['drifted']})",
}


def cluster_tenant_exists(name: str) -> bool:
    """Whether a cluster tenant of that name can be referred to; one that is being deleted counts as missing.

    The row is kept from being marked for deletion until the caller's transaction ends.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM tenants_clustertenant WHERE name = %s AND NOT deleting FOR KEY SHARE", [name])
        return cursor.fetchone() is not None


# -- cluster tenants --------------------------------------------------------------------------------------------------

CLUSTER_TENANTS_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="cluster tenants")
# Messages of the write itself get a moment to arrive first.
FAST_PATH = timedelta(seconds=5)


def cluster_tenant_named(name: str) -> ClusterTenant:
    """The cluster tenant, also one that is being deleted.

    Raises:
        ClusterTenantNotFoundError
    """
    row = fetch_one(ClusterTenant, "name = %s", name)
    if row is None:
        raise ClusterTenantNotFoundError(f"There is no cluster tenant named {name}.")
    return row


def cluster_tenants_matching(filters: dict[str, str]) -> QuerySet[ClusterTenant]:
    """Cluster tenants that fit `q` (name, display name, domain), `tier` and `phase`; unordered."""
    found = ClusterTenant.objects.order_by()
    if text := filters.get("q"):
        found = found.filter(Q(name__icontains=text) | Q(display_name__icontains=text) | Q(base_domain__icontains=text))
    if tier := filters.get("tier"):
        found = found.filter(isolation_tier=tier)
    if phase := filters.get("phase"):
        found = found.filter(status_phase__in=["", "pending"] if phase == "pending" else [phase])
    return found


def tenants_in(name: str, limit: int) -> list[str]:
    """Tenants whose `clusterTenantRef` names a cluster tenant, in order; also those that are being deleted."""
    return list(Tenant.objects.filter(cluster_tenant_ref=name).order_by("name").values_list("name", flat=True)[:limit])


def places_due(limit: int = 200) -> list[UUID]:
    """Cluster tenants, confirmed by the cluster, whose place is behind the row or due to be looked at."""
    behind = Q(provision_attempts=0, provisioned_generation__lt=F("observed_generation"))
    due = Q(provision_not_before__lt=Now() - FAST_PATH)
    found = ClusterTenant.objects.filter(behind | due, deleting=False, observed_generation=F("generation"))
    return list(found.order_by("provision_not_before").values_list("pk", flat=True)[:limit])


def places_to_clear(limit: int = 200) -> list[UUID]:
    """What cluster tenants that are gone have left, where it is time to try."""
    found = Deprovisioning.objects.filter(not_before__lt=Now() - FAST_PATH)
    return list(found.order_by("not_before").values_list("pk", flat=True)[:limit])


def asked_for(names: Sequence[str]) -> dict[str, list[tuple[str, str, int]]]:
    """What tenants that are not suspended ask for, by cluster tenant: CPU, memory (or empty) and how many ask so."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT cluster_tenant_ref, coalesce(resources->>'cpu', ''), coalesce(resources->>'memory', ''), count(*)"
            " FROM tenants_tenant WHERE cluster_tenant_ref = ANY(%s) AND cluster_tenant_ref <> '' AND NOT suspended"
            " GROUP BY 1, 2, 3",
            [list(names)],
        )
        found: dict[str, list[tuple[str, str, int]]] = {}
        for name, cpu, memory, count in cursor.fetchall():
            found.setdefault(name, []).append((cpu, memory, count))
        return found


# -- datasets ---------------------------------------------------------------------------------------------------------


def datasets_of(tenant_id: UUID) -> dict[str, list[str]]:
    """The four sorted lists of datasets that a tenant may read."""
    lists: dict[str, list[str]] = {"org": list(ORG_DATASETS), "team": [], "project": [], "personal": []}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT scope, dataset FROM tenants_datasetmembership WHERE tenant_id = %s ORDER BY scope, dataset",
            [tenant_id],
        )
        for scope, dataset in cursor.fetchall():
            lists[scope].append(dataset)
    return lists


# -- console ----------------------------------------------------------------------------------------------------------

BY_NAME = Keyset([("name", "asc")], name="tenants by name")
NEWEST_FIRST = Keyset([("created_at", "desc"), ("id", "desc")], name="tenants in the console")
_LIST_COLUMNS = (
    "id", "name", "display_name", "email", "team", "phase", "status_message", "created_at", "deleting", "generation",
    "observed_generation", "sync_failing_since",
)  # fmt: skip


def tenants_listed(filters: dict[str, str]) -> QuerySet[Tenant]:
    """What a list shows of the tenants that fit, each with `is_drifted`; unordered."""
    found = DriftFinding.objects.filter(kind="Tenant", name=OuterRef("name"))
    return tenants_matching(filters).only(*_LIST_COLUMNS).annotate(is_drifted=Exists(found))


def fleet_counts(cap: int) -> dict[str, int]:
    """Tenants by phase and by sync state, each counted no further than one beyond `cap`, in one query.

    Keys are `total`, the phases and the keys of CHIP_CONDITIONS.
    """
    conditions = {"total": "TRUE"} | {phase: f"t.phase = '{phase}'" for phase in Phase.values} | CHIP_CONDITIONS
    parts = [
        f"(SELECT count(*) FROM (SELECT 1 FROM tenants_tenant t WHERE {condition} LIMIT {cap + 1:d}) AS counted)"  # noqa: S608
        for condition in conditions.values()
    ]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(parts)}")
        return dict(zip(conditions, cursor.fetchone(), strict=True))


def failing_tenants(limit: int) -> list[Tenant]:
    """Tenants whose sync fails, those that have failed longest first."""
    lagging = Tenant.objects.filter(observed_generation__lt=F("generation"), sync_failing_since__isnull=False)
    columns = ("name", "sync_error", "sync_failing_since", "sync_attempts", "sync_not_before", "deleting")
    return list(lagging.only(*columns).order_by("sync_failing_since")[:limit])


RETAINED_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="retained data")


def retained_data(tenant: str = "") -> QuerySet[RetainedData]:
    """What deleted tenants, or those of one name, have left in the cluster."""
    found = RetainedData.objects.all()
    return found.filter(tenant=tenant) if tenant else found


def tenants_in_phase(phase: str, count: int) -> list[Tenant]:
    """The newest tenants of one phase."""
    return list(Tenant.objects.filter(phase=phase).order_by("-created_at", "-id")[:count])
