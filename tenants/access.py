"""Why a tenant may, or may not, use something: every grant that was considered, in order, and what came after."""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils import timezone

from mcpservers.models import McpServer
from mcpservers.selectors import server_by_id_or_name
from opencrane.errors import InvalidError
from policies.compiler import Considered, considered, principal_of
from policies.models import Grant
from policies.selectors import memberships_of
from policies.services.grants import resolve_grants
from skills.models import SkillBundle
from skills.selectors import bundle_named
from tenants.contract import cuts_of, reasons_against, skill_reasons_against
from tenants.models import Tenant

# Stands for a grant that is not saved. Above every saved one of equal rank, since it would be the newest.
PREVIEW_ID = UUID(int=0)
_NOTHING: dict[str, str] = {
    Grant.PayloadType.MCP_SERVER.value: "There is no such MCP server.",
    Grant.PayloadType.SKILL.value: "There is no such bundle.",
}


@dataclass(frozen=True)
class Preview:
    """A change to look at before it is made: a grant more, as columns of Grant, and saved ones less."""

    grant: Grant | None = None
    without: Collection[UUID] = ()


def explain_access(
    *, tenant: Tenant, payload_type: str, payload: str, preview: Preview | None = None
) -> dict[str, Any]:
    """Whether a tenant may use a payload, and why.

    Args:
        payload: an MCP server's id or name; the name of a dataset; a bundle's id, `name@version`, or its name alone for
            the newest published version.
        preview: what the answer would be with this change.

    Returns:
        `decision` (allow or deny), `reason` (a sentence), `winner` (the deciding grant or None), `considered` (all that
        meet the tenant, the deciding one first, each with a `verdict`), `cuts` (what decides after the grants).
    """
    found = _found(payload_type, payload)
    payload_id = str(found.pk) if found else payload
    grants = considered(principal_of(tenant), payload_type, payload_id)
    if preview is not None:
        grants = [grant for grant in grants if grant.grant_id not in preview.without]
        unsaved = _met(tenant, preview.grant, payload_id) if preview.grant else None
        if unsaved is not None:
            grants = sorted([*grants, unsaved], key=lambda grant: grant.rank)
    winner = grants[0] if grants else None
    cuts = _cuts(tenant, payload_type, found)
    allowed = winner is not None and winner.access == Grant.Access.ALLOW and not cuts
    return {
        "tenant": tenant.name,
        "type": payload_type,
        "payload": {"id": payload_id, "name": _name_of(found) if found else payload},
        "decision": Grant.Access.ALLOW.value if allowed else Grant.Access.DENY.value,
        "reason": _reason(winner, cuts),
        "winner": _shown(winner, winner) if winner else None,
        "considered": [_shown(grant, winner) for grant in grants],
        "cuts": cuts,
        "preview": preview is not None,
    }


def unsaved_grant(values: dict[str, Any], *, payload_type: str, payload: str) -> Grant:
    """The grant that a caller wants to look at, as it would be saved. Call in a transaction.

    Raises:
        InvalidError, ReferenceNotFoundError: as when it is saved; fields start with `grant.0`.
    """
    found = _found(payload_type, payload)
    if found is None and payload_type in _NOTHING:
        raise InvalidError(fields={"payload": [_NOTHING[payload_type]]})
    [grant] = resolve_grants(
        [values],
        payload_type=payload_type,
        path="grant",
        payload_id=str(found.pk) if found else payload,
        scope="org",
    )
    return grant


def _met(tenant: Tenant, grant: Grant, payload_id: str) -> Considered | None:
    """The unsaved grant as it would be considered for the tenant; None when it is not for it."""
    member = ""
    match grant.subject_type:
        case Grant.SubjectType.TENANT:
            meets = grant.tenant_id == tenant.pk
        case Grant.SubjectType.USER:
            meets = grant.user == tenant.email.lower()
        case _:
            member = memberships_of(tenant).get(grant.group_id, "") if grant.group_id else ""
            meets = bool(member)
    if not meets:
        return None
    return Considered(
        grant_id=PREVIEW_ID,
        payload_id=payload_id,
        access=grant.access,
        scope=grant.scope,
        priority=grant.priority,
        note=grant.note,
        created_at=timezone.now() + datetime.timedelta(seconds=1),
        via=grant.subject_type,
        group_id=grant.group_id,
        group_name=grant.group.name if grant.group else "",
        member=member,
    )


def _found(payload_type: str, payload: str) -> McpServer | SkillBundle | None:
    """The row that a payload names; None where there is none, and for data sets, which are names and no rows."""
    match payload_type:
        case Grant.PayloadType.MCP_SERVER:
            return server_by_id_or_name(payload)
        case Grant.PayloadType.SKILL:
            return bundle_named(payload)
    return None


def _name_of(found: McpServer | SkillBundle) -> str:
    return f"{found.name}@{found.version}" if isinstance(found, SkillBundle) else found.name


def _cuts(tenant: Tenant, payload_type: str, found: McpServer | SkillBundle | None) -> list[str]:
    """What takes a payload away whatever the grants say, a sentence each."""
    match found:
        case McpServer():
            cuts = [] if found.status == McpServer.Status.ACTIVE else [f"The server is {found.status}, not active."]
            return cuts + reasons_against(found.name, cuts_of(tenant))
        case SkillBundle():
            return skill_reasons_against(found, tenant.skill_allowlist)
    return [_NOTHING[payload_type]] if payload_type in _NOTHING else []


def _reason(winner: Considered | None, cuts: Sequence[str]) -> str:
    if winner is None:
        return " ".join(["No grant gives it.", *cuts])
    if winner.access == Grant.Access.DENY:
        return " ".join([f"Denied by {_named(winner)}.", *cuts])
    return " ".join(cuts) if cuts else f"Allowed by {_named(winner)}."


def _named(grant: Considered) -> str:
    whom = {"tenant": "the tenant", "user": "its e-mail address"}.get(grant.via, f"group {grant.group_name}")
    unsaved = "the previewed" if grant.grant_id == PREVIEW_ID else "a"
    return f"{unsaved} grant for {whom} of priority {grant.priority}"


def _shown(grant: Considered, winner: Considered | None) -> dict[str, Any]:
    subject = {"tenant": "tenant", "user": "user"}.get(grant.via, "group")
    return {
        "grantId": None if grant.grant_id == PREVIEW_ID else grant.grant_id,
        "access": grant.access,
        "scope": grant.scope,
        "priority": grant.priority,
        "note": grant.note or None,
        "createdAt": None if grant.grant_id == PREVIEW_ID else grant.created_at,
        "subjectType": subject,
        "groupId": grant.group_id,
        "groupName": grant.group_name or None,
        "member": grant.member or None,
        "verdict": "decides" if grant is winner else "outranked",
        "why": _why(grant, winner),
    }


def _why(grant: Considered, winner: Considered | None) -> str:
    """Which step of the rule put a grant where it is."""
    if winner is None or grant is winner:
        return "It ranks first."
    if grant.priority != winner.priority:
        return f"Priority {grant.priority} is below {winner.priority}."
    if grant.access != winner.access:
        return "Of equal priority, and a deny goes before an allow."
    if grant.created_at != winner.created_at:
        return "Of equal priority and access, and the newer goes first."
    return "Equal in everything; the lower id goes first."
