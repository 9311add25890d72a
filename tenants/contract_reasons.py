"""The reason behind each entry of an effective contract, and behind what is not in it though a grant is about it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from policies.compiler import Decision, compiled_types, principal_of
from policies.models import Grant
from skills.rules import version_key
from skills.selectors import bundles_by_id
from tenants.contract import cuts_of, reasons_against, skill_reasons_against
from tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one thing is, or is not, in a tenant's contract.

    Attributes:
        name: of the data set, MCP server or skill.
        is_in: whether the tenant may use it.
        scope: of the grant that decides.
        why: a sentence.
        detail: a server's endpoint; a bundle's version.
        payload_id: what the grant is about.
    """

    name: str
    is_in: bool
    scope: str
    why: str
    detail: str = ""
    payload_id: str = ""


def contract_reasons(tenant: Tenant) -> dict[str, list[Reason]]:
    """`awareness`, `servers` and `skills`: all that some grant gives or denies the tenant, by name; four queries."""
    types = (Grant.PayloadType.AWARENESS.value, Grant.PayloadType.MCP_SERVER.value, Grant.PayloadType.SKILL.value)
    decided = compiled_types(principal_of(tenant), types)
    known = _known([decision.grant_id for found in decided.values() for decision in found])
    cuts = cuts_of(tenant)
    datasets, servers = [], []
    for decision in decided[types[0]]:
        reason = Reason(decision.payload_id, _allows(decision), decision.scope, _sentence(decision, known))
        datasets.append(reason)
    for decision in decided[types[1]]:
        _, name, status, endpoint = known.get(decision.grant_id, ("", None, "", ""))
        if name is None:
            continue
        why = [_sentence(decision, known)]
        against = [] if status == "active" else [f"The server is {status}, not active."]
        against += reasons_against(name, cuts)
        is_in = _allows(decision) and not against
        servers.append(Reason(name, is_in, decision.scope, " ".join(why + against), endpoint))
    return {
        "awareness": datasets,
        "servers": sorted(servers, key=lambda reason: reason.name),
        "skills": _skills(tenant, decided[types[2]], known),
    }


def _skills(tenant: Tenant, decisions: list[Decision], known: dict[UUID, tuple[Any, ...]]) -> list[Reason]:
    bundles = bundles_by_id([decision.payload_id for decision in decisions])
    found = []
    for decision in decisions:
        bundle = bundles.get(decision.payload_id)
        if bundle is not None:
            against = skill_reasons_against(bundle, tenant.skill_allowlist)
            why = " ".join([_sentence(decision, known), *against])
            is_in = _allows(decision) and not against
            found.append(Reason(bundle.name, is_in, decision.scope, why, bundle.version, decision.payload_id))
    return sorted(found, key=lambda reason: (reason.name, version_key(reason.detail)))


def _allows(decision: Decision) -> bool:
    return decision.access == Grant.Access.ALLOW


def _sentence(decision: Decision, known: dict[UUID, tuple[Any, ...]]) -> str:
    word = "Allowed" if _allows(decision) else "Denied"
    whom = known.get(decision.grant_id, ("",))[0]
    return f"{word} by a grant for {whom} of priority {decision.priority}."


def _known(grant_ids: list[UUID]) -> dict[UUID, tuple[Any, ...]]:
    """For each grant: whom it is for, and the name, status and endpoint of the server it is about, if it is."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT r.id, CASE r.subject_type WHEN 'tenant' THEN 'the tenant' WHEN 'user' THEN 'its e-mail address'
                ELSE 'group ' || g.name END, s.name, s.status, s.endpoint
            FROM policies_grant r LEFT JOIN policies_group g ON g.id = r.group_id
            LEFT JOIN mcpservers_mcpserver s ON r.payload_type = 'mcp-server' AND s.id::text = r.payload_id
            WHERE r.id = ANY(%s)""",
            [grant_ids],
        )
        return {pk: tuple(rest) for pk, *rest in cursor.fetchall()}
