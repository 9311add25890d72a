"""The grant compiler: which payloads a principal may use, and why.

A principal is met by the grants for its tenant, for its e-mail address, and for every group that holds either. For each
payload one grant decides: the highest priority; on a tie a deny before an allow; then the newer; then the lower id. No
grant means not allowed. Whatever the number of groups, it is one indexed query for each payload type.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection


@dataclass(frozen=True)
class Principal:
    """Whom grants can meet.

    Attributes:
        tenant_id: the tenant's row; None for somebody who has no tenant.
        tenant_name: for people; grants hold the row.
        email: in any spelling.
    """

    tenant_id: UUID | None
    tenant_name: str
    email: str


class Decision(NamedTuple):
    """The grant that decides about one payload. A tuple, since a contract makes hundreds of them."""

    payload_id: str
    access: str
    scope: str
    grant_id: UUID
    priority: int


@dataclass(frozen=True)
class Considered:
    """A grant that meets a principal, and by which way.

    Attributes:
        via: `tenant`, `user` or `group`: what the grant is for.
        group_id, group_name: the group, if it is for one.
        member: how the principal is in that group: the tenant's name or the e-mail address.
    """

    grant_id: UUID
    payload_id: str
    access: str
    scope: str
    priority: int
    note: str
    created_at: datetime.datetime
    via: str
    group_id: UUID | None = None
    group_name: str = ""
    member: str = ""

    @property
    def rank(self) -> tuple[Any, ...]:
        """What the grants of one payload are ordered by; the least one decides."""
        return (-self.priority, self.access != "deny", -self.created_at.timestamp(), self.grant_id)


def principal_of(tenant: Any) -> Principal:
    """The principal that a tenant's row stands for."""
    return Principal(tenant_id=tenant.pk, tenant_name=tenant.name, email=tenant.email)


# Three index scans; the groups are found once.
_MET = """
WITH mine AS MATERIALIZED (
    SELECT group_id, TRUE AS by_tenant FROM policies_groupmember WHERE tenant_id = %(tenant)s
    UNION ALL
    SELECT group_id, FALSE FROM policies_groupmember WHERE email = %(email)s AND email <> ''
), met AS (
    SELECT {columns} FROM policies_grant g WHERE g.tenant_id = %(tenant)s AND g.payload_type = ANY(%(types)s)
    UNION ALL
    SELECT {columns} FROM policies_grant g
    WHERE g."user" = %(email)s AND g."user" <> '' AND g.payload_type = ANY(%(types)s)
    UNION ALL
    SELECT {columns} FROM policies_grant g
    WHERE g.group_id = ANY(ARRAY(SELECT group_id FROM mine)) AND g.payload_type = ANY(%(types)s)
)
"""
# `weight` is priority and deny in one number, because sorting is what this costs.
_COMPILED = (
    _MET.format(
        columns="g.payload_type, g.payload_id, g.access, g.scope, g.id, g.priority, g.created_at,"
        " g.priority::bigint * 2 + (g.access = 'deny')::int AS weight"
    )
    + """
SELECT DISTINCT ON (payload_type, payload_id) payload_type, payload_id, access, scope, id, priority
FROM met ORDER BY payload_type, payload_id, weight DESC, created_at DESC, id
"""
)
_CONSIDERED = (
    _MET.format(columns="g.*")  # noqa: S608 - constants
    + """
SELECT met.id, met.payload_id, met.access, met.scope, met.priority, met.note, met.created_at, met.subject_type,
    met.group_id, g.name, (SELECT bool_or(by_tenant) FROM mine WHERE mine.group_id = met.group_id)
FROM met LEFT JOIN policies_group g ON g.id = met.group_id
WHERE met.payload_id = %(payload)s
"""
)


def compiled(principal: Principal, payload_type: str) -> list[Decision]:
    """For each payload that any grant gives or denies the principal, the grant that decides; sorted by payload."""
    return compiled_types(principal, [payload_type])[payload_type]


def compiled_types(principal: Principal, payload_types: Sequence[str]) -> dict[str, list[Decision]]:
    """`compiled` for several payload types in one query."""
    found: dict[str, list[Decision]] = {payload_type: [] for payload_type in payload_types}
    with connection.cursor() as cursor:
        cursor.execute(_COMPILED, _parameters(principal, payload_types))
        for payload_type, *values in cursor.fetchall():
            found[payload_type].append(Decision._make(values))
    return found


def considered(principal: Principal, payload_type: str, payload_id: str) -> list[Considered]:
    """Every grant about one payload that meets the principal, the deciding one first."""
    with connection.cursor() as cursor:
        cursor.execute(_CONSIDERED, _parameters(principal, [payload_type]) | {"payload": payload_id})
        rows = cursor.fetchall()
    found = []
    for *values, group_name, by_tenant in rows:
        grant = Considered(*values)
        if group_name is not None:
            member = principal.tenant_name if by_tenant else principal.email
            grant = replace(grant, group_name=group_name, member=member)
        found.append(grant)
    return sorted(found, key=lambda grant: grant.rank)


def _parameters(principal: Principal, payload_types: Sequence[str]) -> dict[str, Any]:
    return {
        "tenant": principal.tenant_id,
        "email": principal.email.strip().lower(),
        "types": [str(payload_type) for payload_type in payload_types],
    }
