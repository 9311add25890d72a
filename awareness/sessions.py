"""Which of the things a session asks for its principal is granted."""

from collections.abc import Iterable, Mapping
from typing import Any

from awareness.models import SessionScope
from cluster.rows import fetch_one
from policies.compiler import Decision, Principal, compiled, principal_of
from tenants.models import Tenant

ALLOW = "allow"
AWARENESS = "awareness"
Selector = dict[str, str]


def principal_named(name: str) -> tuple[Principal, Tenant | None] | None:
    """Who is meant: a tenant by its name, else a person by e-mail address; None when it is neither.

    A tenant that is being deleted counts as missing. A person has the grants for the address, not those of a tenant.
    """
    tenant = fetch_one(Tenant, "name = %s AND NOT deleting", name)
    if tenant is not None:
        return principal_of(tenant), tenant
    if "@" in name:
        return Principal(tenant_id=None, tenant_name="", email=name.lower()), None
    return None


def granted_scopes(principal: Principal) -> dict[str, str]:
    """Each awareness payload that the principal is allowed, with the scope of the grant that decides; one query."""
    return allowed(compiled(principal, AWARENESS))


def allowed(decisions: Iterable[Decision]) -> dict[str, str]:
    """Payload and scope of each decision that allows."""
    return {decision.payload_id: decision.scope for decision in decisions if decision.access == ALLOW}


def intersect(wanted: Iterable[Mapping[str, str]], granted: Mapping[str, str]) -> tuple[list[Selector], list[Selector]]:
    """What of `wanted` is granted, each with the grant's scope, and what is not, as it was asked for.

    Both without duplicates, in the order asked for. Pure.
    """
    taken: dict[str, Selector] = {}
    rejected: dict[tuple[str, str], Selector] = {}
    for selector in wanted:
        payload_id, scope = selector["payloadId"], selector["scope"]
        if payload_id in granted:
            taken[payload_id] = {"scope": granted[payload_id], "payloadId": payload_id}
        else:
            rejected[scope, payload_id] = {"scope": scope, "payloadId": payload_id}
    return list(taken.values()), list(rejected.values())


def principal_of_session(row: SessionScope, tenant: Tenant | None) -> Principal:
    """Whom a stored scope belongs to, as it is now."""
    return principal_of(tenant) if tenant is not None else Principal(None, "", row.principal)


def session_json(row: SessionScope, scopes: list[Selector]) -> dict[str, Any]:
    """A session's scope as the API shows it."""
    return {
        "sessionKey": row.session_key,
        "principal": row.principal,
        "scopes": scopes,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    }
