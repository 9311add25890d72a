"""What the console shows of policies, groups and grants beyond what the API gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.db import connection
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from cluster.models import DriftFinding
from opencrane.api.keyset import Keyset
from opencrane.console.listing import Count, as_count
from policies import selectors
from policies.models import AccessPolicy, Grant, Group, GroupMember
from tenants.models import Tenant

POLICIES_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="policies in the console")
GROUPS_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="groups in the console")
TENANTS_BY_NAME = Keyset([("name", "asc")], name="tenants of a policy in the console")

# -- policies ---------------------------------------------------------------------------------------------------------

_FINDING = DriftFinding.objects.filter(kind="AccessPolicy", name=OuterRef("name"))
_IN_SYNC = Q(deleting=False, observed_generation=F("generation"))
_BEHIND = Q(deleting=False, observed_generation__lt=F("generation"))
_SYNC: dict[str, Q] = {
    "synced": _IN_SYNC & Q(is_drifted=False),
    "drifted": _IN_SYNC & Q(is_drifted=True),
    "waiting": _BEHIND & Q(sync_failing_since=None),
    "failing": _BEHIND & Q(sync_failing_since__isnull=False),
    "deleting": Q(deleting=True),
}


def policies_listed(filters: dict[str, str]) -> QuerySet[AccessPolicy]:
    """Policies that fit `q` and `sync` (what the chip says), each with `is_drifted`; unordered."""
    found = selectors.policies_matching(filters).annotate(is_drifted=Exists(_FINDING))
    return found.filter(_SYNC[filters["sync"]]) if "sync" in filters else found


def reach_counts(policies: Sequence[AccessPolicy]) -> dict[UUID, Count]:
    """How many tenants each of the policies is for, counted no further than one beyond COUNT_CAP; one query."""
    if not policies:
        return {}
    parts, params = [], []
    for policy in policies:
        where, values = selectors.reach_condition(policy.name, [policy.tenant_selector])
        parts.append(
            f"(SELECT %s::uuid, count(*) FROM (SELECT 1 FROM tenants_tenant t WHERE {where}"  # noqa: S608 - constants
            f" LIMIT {selectors.COUNT_CAP + 1:d}) AS counted)"
        )
        params += [policy.pk, *values]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), params)
        return {pk: as_count(count, selectors.COUNT_CAP) for pk, count in cursor.fetchall()}


def tenants_reached(policy: AccessPolicy, text: str) -> QuerySet[Tenant]:
    """The tenants that a policy is for and whose name, display name or address holds `text`; unordered."""
    found = selectors.tenants_of(policy)
    if text:
        found = found.filter(Q(name__icontains=text) | Q(display_name__icontains=text) | Q(email__icontains=text))
    return found.only("name", "display_name", "email", "team", "phase", "policy_ref", "status_message")


# -- groups -----------------------------------------------------------------------------------------------------------


def groups_listed(filters: dict[str, str]) -> QuerySet[Group]:
    """Groups that fit `q`, `scope` and `member` (a tenant's name or an address); unordered."""
    found = Group.objects.order_by()
    if text := filters.get("q"):
        found = found.filter(Q(name__icontains=text) | Q(description__icontains=text))
    if scope := filters.get("scope"):
        found = found.filter(scope=scope)
    if member := filters.get("member"):
        mine = GroupMember.objects.filter(Q(tenant__name=member) | Q(email=member.lower()), group=OuterRef("pk"))
        found = found.filter(Exists(mine))
    return found


def group_sizes(groups: Sequence[Group]) -> dict[UUID, tuple[int, int]]:
    """For each of the groups how many members it has, and how many grants name it; one query."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT g.id, (SELECT count(*) FROM policies_groupmember m WHERE m.group_id = g.id),
                (SELECT count(*) FROM policies_grant r WHERE r.group_id = g.id)
            FROM policies_group g WHERE g.id = ANY(%s)""",
            [[group.pk for group in groups]],
        )
        return {pk: (members, grants) for pk, members, grants in cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group with its lists, as the API gives them."""

    group: Group
    members: list[str]
    grants: list[dict[str, Any]]


def group_view(group_id: UUID) -> GroupView:
    """One group, its members by name and the grants in its list; two queries.

    Raises:
        GroupNotFoundError
    """
    body, _ = selectors.group_json(group_id)
    found = orjson.loads(body)
    return GroupView(Group.objects.get(pk=group_id), found["members"], found["grants"])


def grants_naming(group: Group, limit: int) -> list[Grant]:
    """Grants elsewhere (MCP servers, skills, other groups' lists) that are for this group."""
    found = Grant.objects.filter(group=group).exclude(listed_in=group).select_related("listed_in")
    return list(found.order_by("payload_type", "payload_id", "-priority")[:limit])


def group_named(name: str) -> Group | None:
    """The group of that name."""
    return Group.objects.filter(name=name).first()
