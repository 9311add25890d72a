"""Reading policies and groups."""

from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connection
from django.db.models import Q, QuerySet

from cluster.client import cluster_client
from cluster.errors import KubeError
from opencrane.api.keyset import Keyset, Page
from opencrane.api.pasted import json_page, like
from opencrane.rows import one
from policies.errors import GroupNotFoundError, PolicyNotFoundError
from policies.models import AccessPolicy, Group, GroupMember
from tenants.models import Tenant

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="policies")
TENANTS_BY_NAME = Keyset([("name", "asc")], name="tenants of a policy")
COUNT_CAP = 1000

_TIME = """to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_SYNC = """CASE WHEN p.deleting THEN 'deleting' WHEN p.observed_generation = p.generation THEN 'synced'
 WHEN p.sync_failing_since IS NOT NULL THEN 'failing' ELSE 'waiting' END"""
_POLICY = f"""json_build_object('name', p.name, 'namespace', %s::text, 'description', nullif(p.description, ''),
 'tenantSelector', p.tenant_selector, 'domains', coalesce(p.domains->'allow', '[]'), 'egressRules',
 coalesce(p.egress_rules, '[]'), 'mcpServers', coalesce(p.mcp_servers, '{{}}'), 'sync', {_SYNC},
 'createdAt', {_TIME.format(column="p.created_at")})"""


def policy_exists(name: str) -> bool:
    """Whether a policy of that name can be referred to; one that is being deleted counts as missing.

    The policy is kept from being marked for deletion until the caller's transaction ends.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM policies_accesspolicy WHERE name = %s AND NOT deleting FOR KEY SHARE", [name])
        return cursor.fetchone() is not None


def policy_named(name: str) -> AccessPolicy:
    """The policy, also one that is being deleted.

    Raises:
        PolicyNotFoundError
    """
    return one(AccessPolicy.objects, PolicyNotFoundError(f"There is no access policy named {name}."), name=name)


def policies_matching(filters: dict[str, str]) -> QuerySet[AccessPolicy]:
    """Policies that fit every filter given: `q` looks into names and descriptions; unordered."""
    found = AccessPolicy.objects.order_by()
    if text := filters.get("q"):
        found = found.filter(Q(name__icontains=text) | Q(description__icontains=text))
    return found


def namespace() -> str:
    """Where policies live in the cluster; empty where there is no cluster to ask."""
    if settings.NAMESPACE:
        return str(settings.NAMESPACE)
    try:
        return cluster_client().namespace
    except KubeError:
        return ""


def policy_page(filters: dict[str, str], page: Page) -> tuple[bytes, str]:
    """One page of the list, newest first, as JSON text in one query; and the cursor of the next page, or empty."""
    beyond, keys = NEWEST.where(page, "p.")
    where, params = "TRUE", []
    if text := filters.get("q"):
        where, params = "(p.name ILIKE %s OR p.description ILIKE %s)", [like(text)] * 2
    limit = "" if page.limit is None else f"LIMIT {page.limit + 1:d}"
    sql = f"SELECT {_POLICY}::text, p.created_at, p.id FROM policies_accesspolicy p WHERE {where} AND {beyond}"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} ORDER BY {NEWEST.order_by('p.')} {limit}", [namespace(), *params, *keys])
        rows = cursor.fetchall()
    return json_page(NEWEST, rows, page)


# -- which tenants a policy reaches -----------------------------------------------------------------------------------


def selector_condition(selector: dict[str, Any] | None) -> tuple[str, list[Any]]:
    """An SQL condition on `tenants_tenant t` and its parameters.

    As in Kubernetes an absent selector picks nothing and an empty one everything; every part that is there has to fit.
    """
    if selector is None:
        return "FALSE", []
    parts: list[str] = ["TRUE"]
    params: list[Any] = []
    if team := selector.get("matchTeam"):
        parts.append("t.team = %s")
        params.append(team)
    if labels := selector.get("matchLabels"):
        parts.append("t.resource_labels @> %s::jsonb")
        params.append(orjson.dumps(labels).decode())
    return " AND ".join(parts), params


def reach_condition(name: str, selectors: list[dict[str, Any] | None]) -> tuple[str, list[Any]]:
    """An SQL condition for the tenants that name the policy, or name none and are picked by one of `selectors`."""
    parts, params = ["t.policy_ref = %s"], [name]
    for selector in selectors:
        if selector is not None:
            condition, values = selector_condition(selector)
            parts.append(f"(t.policy_ref = '' AND {condition})")
            params += values
    return f"({' OR '.join(parts)}) AND NOT t.deleting", params


def tenants_of(policy: AccessPolicy) -> QuerySet[Tenant]:
    """The tenants that a policy is for: those that name it, and those that name none and that its selector picks."""
    where, params = reach_condition(policy.name, [policy.tenant_selector])
    return Tenant.objects.extra(where=[where.replace("t.", "tenants_tenant.")], params=params).order_by()  # noqa: S610


def tenant_count(policy: AccessPolicy) -> int:
    """How many tenants a policy is for, counted no further than one beyond COUNT_CAP."""
    return tenants_of(policy).values("pk")[: COUNT_CAP + 1].count()


def tenants_naming(name: str, limit: int) -> list[str]:
    """Tenants whose `policyRef` names a policy, in order; also those that are being deleted, which may be refused."""
    return list(Tenant.objects.filter(policy_ref=name).order_by("name").values_list("name", flat=True)[:limit])


_PICKING = """
SELECT p.name, p.mcp_servers FROM policies_accesspolicy p
WHERE NOT p.deleting AND CASE WHEN %(ref)s <> '' THEN p.name = %(ref)s ELSE
    p.tenant_selector IS NOT NULL AND p.tenant_selector <> 'null'
    AND coalesce(p.tenant_selector->>'matchTeam', '') IN ('', %(team)s)
    AND %(labels)s::jsonb @> coalesce(nullif(p.tenant_selector->'matchLabels', 'null'), '{}')
END
ORDER BY p.name
"""


def policies_for(tenant: Tenant) -> list[tuple[str, dict[str, Any]]]:
    """The policies that are for a tenant: the one it names, else all whose selector picks it; sorted by name.

    Returns:
        Each one's name and its `mcpServers`.
    """
    labels = orjson.dumps(tenant.resource_labels or {}).decode()
    with connection.cursor() as cursor:
        cursor.execute(_PICKING, {"ref": tenant.policy_ref, "team": tenant.team, "labels": labels})
        return [(name, orjson.loads(servers) if servers else {}) for name, servers in cursor.fetchall()]


def memberships_of(tenant: Tenant) -> dict[UUID, str]:
    """The groups a tenant is in, each with how: by its name or by its e-mail address."""
    found = GroupMember.objects.filter(Q(tenant=tenant) | Q(email=tenant.email.lower()))
    rows = found.order_by("-email").values_list("group_id", "email")
    return {group_id: tenant.email if email else tenant.name for group_id, email in rows}


# -- groups -----------------------------------------------------------------------------------------------------------

NEWEST_GROUPS = Keyset([("created_at", "desc"), ("id", "desc")], name="groups")

# A grant as JSON text: what is stored of it, and the name that its subject has now.
GRANT_JSON = """(r.document || to_json(coalesce((SELECT name FROM policies_group WHERE id = r.group_id),
 (SELECT name FROM tenants_tenant WHERE id = r.tenant_id), r."user"))::text || '}')"""
_GRANTS = f"""('[' || coalesce((SELECT string_agg({GRANT_JSON}, ',' ORDER BY r.payload_id COLLATE "C", r.priority DESC,
 (r.access = 'deny') DESC, r.created_at DESC, r.id) FROM policies_grant r WHERE r.listed_in_id = g.id), '') || ']')"""  # noqa: S608
_MEMBERS = """coalesce((SELECT json_agg(named.name ORDER BY named.name) FROM (
 SELECT coalesce(t.name, m.email) COLLATE "C" AS name FROM policies_groupmember m
 LEFT JOIN tenants_tenant t ON t.id = m.tenant_id WHERE m.group_id = g.id) named), '[]')"""
_GROUP = f"""(left(json_build_object('id', g.id, 'name', g.name, 'scope', g.scope,
 'description', nullif(g.description, ''), 'memberCount', (SELECT count(*) FROM policies_groupmember m
 WHERE m.group_id = g.id), 'members', {_MEMBERS},
 'createdAt', {_TIME.format(column="g.created_at")}, 'updatedAt', {_TIME.format(column="g.updated_at")})::text, -1)
 || ',"grants":' || grants.list || ',"awarenessGrants":' || grants.list || '}}')"""  # noqa: S608 - constants
_FROM_GROUPS = f"FROM policies_group g CROSS JOIN LATERAL (SELECT {_GRANTS} AS list) grants"


def group_page(filters: dict[str, str], page: Page) -> tuple[bytes, str]:
    """One page of groups with members and grants, newest first, as JSON text in one query; and the next cursor."""
    beyond, keys = NEWEST_GROUPS.where(page, "g.")
    parts, params = [beyond], [*keys]
    if text := filters.get("q"):
        parts.append("(g.name ILIKE %s OR g.description ILIKE %s)")
        params += [like(text)] * 2
    if scope := filters.get("scope"):
        parts.append("g.scope = %s")
        params.append(scope)
    if member := filters.get("member"):
        parts.append(
            "EXISTS (SELECT FROM policies_groupmember m LEFT JOIN tenants_tenant t ON t.id = m.tenant_id"
            " WHERE m.group_id = g.id AND (t.name = %s OR m.email = lower(%s)))"
        )
        params += [member] * 2
    limit = "" if page.limit is None else f"LIMIT {page.limit + 1:d}"
    sql = f"SELECT {_GROUP}, g.created_at, g.id {_FROM_GROUPS} WHERE {' AND '.join(parts)}"
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} ORDER BY {NEWEST_GROUPS.order_by('g.')} {limit}", params)
        rows = cursor.fetchall()
    return json_page(NEWEST_GROUPS, rows, page)


def group_json(group_id: UUID | None) -> tuple[bytes, int]:
    """One group as JSON text, and its generation.

    Raises:
        GroupNotFoundError
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_GROUP}, g.generation {_FROM_GROUPS} WHERE g.id = %s", [group_id])
        row = cursor.fetchone()
    if row is None:
        raise GroupNotFoundError
    return row[0].encode(), row[1]


def group_id_named(name: str) -> UUID:
    """The id of the group of that name.

    Raises:
        GroupNotFoundError
    """
    return one(Group.objects, GroupNotFoundError, name=name).pk


def group_for_update(group_id: UUID | None) -> Group:
    """The group, its row locked until the transaction ends.

    Raises:
        GroupNotFoundError
    """
    return one(Group.objects.select_for_update(), GroupNotFoundError, pk=group_id)
