"""The effective contract: what one tenant may see and call right now, compiled from everything that says so.

An MCP server is there when its deciding grant allows it, it is active, and neither the tenant's `mcpPolicy` nor any of
its policies takes it out: each `deny` removes, each `allow` that is not empty keeps only what it names. Its policies
are the one that the tenant names, else all whose selector picks it, so that adding a policy never lifts another one.

A skill bundle is there when its deciding grant allows it, it is published, its scan has passed, and the tenant's
`skillAllowlist`, if it has one, names it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson
from django.conf import settings

from awareness.selectors import resolve_for
from mcpservers.selectors import active_servers
from policies.compiler import Decision, compiled_types, principal_of
from policies.models import Grant
from policies.selectors import policies_for
from skills.models import SkillBundle
from skills.selectors import entitled_bundles
from tenants.models import Tenant
from tenants.selectors import datasets_of

Cut = tuple[str, dict[str, Any]]
_STATUS = {"draft": "a draft", "review": "in review"}
_TYPES = (Grant.PayloadType.AWARENESS, Grant.PayloadType.MCP_SERVER, Grant.PayloadType.SKILL)


def effective_contract(tenant: Tenant) -> dict[str, Any]:
    """What one tenant may see and call right now.

    `contractId` is the SHA-256 of the canonical JSON of everything else, so equal contracts have equal ids. Six
    queries at most, whatever there is. Never holds a credential.
    """
    resolution = resolve_for(tenant)
    decided = compiled_types(principal_of(tenant), _TYPES)
    awareness, servers = decided[Grant.PayloadType.AWARENESS], decided[Grant.PayloadType.MCP_SERVER]
    cuts = cuts_of(tenant)
    allowed = active_servers(_allowed(servers))
    contract: dict[str, Any] = {
        "contractVersion": resolution.version,
        "tenant": {"name": tenant.name, "team": tenant.team or None, "policyRef": tenant.policy_ref or None},
        "awareness": {
            "version": resolution.version,
            "promoted": resolution.promoted,
            "shadow": resolution.shadow,
            "wave": resolution.wave,
            "citationFormat": "inline",
            "memberships": datasets_of(tenant.pk),
            "grants": [_granted(decision) for decision in awareness],
        },
        "mcp": {
            "gateway": settings.MCP_GATEWAY_URL or None,
            "servers": [server for server in allowed if not reasons_against(server["name"], cuts)],
            "policy": _merged(cuts),
        },
        "skills": {
            "registry": settings.SKILL_OCI_REGISTRY_URL or None,
            "entitled": entitled_bundles(_allowed(decided[Grant.PayloadType.SKILL]), tenant.skill_allowlist),
        },
    }
    canonical = orjson.dumps(contract, option=orjson.OPT_SORT_KEYS)
    return {"contractId": hashlib.sha256(canonical).hexdigest(), **contract}


def cuts_of(tenant: Tenant) -> list[Cut]:
    """What cuts a tenant's MCP servers after the grants have decided: whose word it is, and its `allow` and `deny`."""
    cuts: list[Cut] = [("the tenant's mcpPolicy", tenant.mcp_policy or {})]
    return cuts + [(f"access policy {name}", servers) for name, servers in policies_for(tenant)]


def reasons_against(name: str, cuts: Sequence[Cut]) -> list[str]:
    """Why a server of this name is cut, one sentence for each; empty when it is not."""
    found = []
    for whose, lists in cuts:
        allow, deny = lists.get("allow") or [], lists.get("deny") or []
        if name in deny:
            found.append(f"Denied by {whose}.")
        elif allow and name not in allow:
            found.append(f"Not among what {whose} allows.")
    return found


def skill_reasons_against(bundle: SkillBundle, allowlist: Sequence[str] | None) -> list[str]:
    """Why a granted bundle is not in the contract, one sentence for each; empty when it is."""
    found = []
    if bundle.status != SkillBundle.Status.PUBLISHED:
        found.append(f"The bundle is {_STATUS.get(bundle.status, bundle.status)}, not published.")
    if not bundle.is_cleared:
        found.append("Its scan has not passed.")
    if allowlist is not None and bundle.name not in allowlist:
        found.append("Not among what the tenant's skillAllowlist names.")
    return found


def _allowed(decisions: Sequence[Decision]) -> list[str]:
    return [decision.payload_id for decision in decisions if decision.access == Grant.Access.ALLOW]


def _granted(decision: Decision) -> dict[str, str]:
    return {"payloadId": decision.payload_id, "access": decision.access, "scope": decision.scope}


def _merged(cuts: Sequence[Cut]) -> dict[str, list[str]]:
    """All cuts as one. Where no name is in every `allow`, each of them is denied, since an empty one allows all."""
    allows = [set(lists["allow"]) for _, lists in cuts if lists.get("allow")]
    denies = {name for _, lists in cuts for name in lists.get("deny") or []}
    common = set.intersection(*allows) if allows else set()
    if allows and not common:
        denies |= set().union(*allows)
    return {"allow": sorted(common), "deny": sorted(denies)}
