"""Access policies to what the cluster's network enforces. Pure.

A NetworkPolicy knows addresses and ports. Domains need Cilium, which knows them by the answers of its DNS proxy; it can
allow domains and cannot deny them (`egressDeny` takes no `toFQDNs`), so a denied domain is one that is not allowed.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
https://docs.cilium.io/en/stable/security/policy/language/#dns-based
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.resources import KubeObject

DNS_PORTS = ({"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"})
WEB_PORTS = (443, 80)
SHOWN = 5


@dataclass(frozen=True)
class Egress:
    """What one policy lets out.

    Attributes:
        policy: its name.
        is_restricted: only what is listed may leave; a list that allows anything restricts, as `defaultDeny` does.
        rules: `{cidr, ports, protocol}`.
        allow, deny: domains.
        has_cilium: whether domains can be told apart on this cluster.
    """

    policy: str
    is_restricted: bool
    rules: tuple[dict[str, Any], ...]
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    has_cilium: bool


class SelectionError(Exception):
    """No policy can be chosen; the sentence is for people. `reason` is a CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def picks(policy: KubeObject, tenant: KubeObject) -> bool:
    """Whether a policy's selector picks a tenant. Without a selector it is only for those that name it."""
    selector = (policy.get("spec") or {}).get("tenantSelector")
    if selector is None:
        return False
    team = selector.get("matchTeam")
    if team and team != tenant["spec"].get("team"):
        return False
    labels = tenant["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def effective_policy(
    tenant: KubeObject, policies: Mapping[str, KubeObject], default: str
) -> tuple[KubeObject | None, str]:
    """The one policy that holds for a tenant, and why it: policyRef, selector, default or none.

    Args:
        policies: every policy of the namespace by name.
        default: the name of the policy for tenants that no other one is for; empty for none.

    Raises:
        SelectionError: the policy that is named is missing, or several selectors pick the tenant.
    """
    named = tenant["spec"].get("policyRef")
    if named:
        if named not in policies:
            raise SelectionError("PolicyMissing", f"There is no access policy named {named}.")
        return policies[named], "policyRef"
    picked = sorted(name for name, policy in policies.items() if picks(policy, tenant))
    if len(picked) > 1:
        shown = ", ".join(picked[:SHOWN]) + (f" and {len(picked) - SHOWN} more" if len(picked) > SHOWN else "")
        raise SelectionError("SeveralPolicies", f"Several access policies pick this tenant: {shown}.")
    if picked:
        return policies[picked[0]], "selector"
    if not default:
        return None, "none"
    if default not in policies:
        raise SelectionError("PolicyMissing", f"There is no access policy named {default}, the default of all tenants.")
    return policies[default], "default"


def egress_of(policy: KubeObject, *, has_cilium: bool) -> Egress:
    """What a policy lets out, as written; domains in lower case."""
    spec = policy.get("spec") or {}
    domains = spec.get("domains") or {}
    allow = tuple(sorted({name.lower() for name in domains.get("allow") or ()}))
    deny = tuple(sorted({name.lower() for name in domains.get("deny") or ()}))
    rules = tuple(spec.get("egressRules") or ())
    return Egress(
        policy=policy["metadata"]["name"],
        is_restricted=bool(domains.get("defaultDeny") or allow or rules),
        rules=rules,
        allow=allow,
        deny=deny,
        has_cilium=has_cilium,
    )


def covers(pattern: str, domain: str) -> bool:
    """Whether `pattern` stands for `domain`; `*.` stands for every subdomain, at any depth."""
    if pattern == domain:
        return True
    return pattern.startswith("*.") and domain.removeprefix("*.").endswith(pattern[1:])


def allowed_domains(egress: Egress) -> list[str]:
    """What may be reached by name: allowed and not denied."""
    return [name for name in egress.allow if not any(covers(denied, name) for denied in egress.deny)]


def shortfalls(egress: Egress) -> list[str]:
    """What of the policy's domain rules this cluster cannot enforce, in sentences; empty when all of it holds."""
    found: list[str] = []
    if not egress.has_cilium:
        if egress.allow:
            found.append(
                f"{_count(egress.allow)} cannot be let through by name: this cluster has no CiliumNetworkPolicy."
                " They are closed, unless an egress rule allows their addresses."
            )
        if egress.deny and not egress.is_restricted:
            found.append(
                f"{_count(egress.deny)} cannot be denied by name: this cluster has no CiliumNetworkPolicy."
                " They are open, as everything else is."
            )
        return found
    if not egress.is_restricted:
        if egress.deny:
            found.append(
                f"{_count(egress.deny)} cannot be denied while everything else is allowed: Cilium can only allow"
                " domains. They are open; set defaultDeny and allow what is needed."
            )
        return found
    for denied in egress.deny:
        inside = [name for name in allowed_domains(egress) if covers(name, denied)]
        if inside:
            found.append(f"{denied} cannot be denied within {inside[0]}: Cilium can only allow domains. It is open.")
    return found


def _count(domains: tuple[str, ...]) -> str:
    return domains[0] if len(domains) == 1 else f"{len(domains)} domains ({', '.join(domains[:3])}, …)"[:300]


def network_spec(
    selector: Mapping[str, str],
    egress: Egress | None,
    port: int,
    platform_namespaces: Iterable[str],
    *,
    is_closed: bool = False,
) -> dict[str, Any]:
    """The NetworkPolicy of a tenant: nothing comes in but to the gateway; what goes out is as the policy says.

    Where egress is restricted, DNS and the platform's own namespaces stay reachable.

    Args:
        is_closed: whether the namespace lets nothing out by itself, as those of cluster tenants: there a tenant without
            a policy is restricted, and one whose policy restricts nothing has to be let out.
    """
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": dict(selector)},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": port, "protocol": "TCP"}]}],
    }
    is_open = egress is not None and not egress.is_restricted
    if not is_closed and (egress is None or is_open):
        return spec
    spec["policyTypes"] = ["Ingress", "Egress"]
    if is_open:
        spec["egress"] = [{}]
        return spec
    rules = egress.rules if egress is not None else ()
    spec["egress"] = [{"ports": list(DNS_PORTS)}, *_platform(platform_namespaces), *map(_cidr_rule, rules)]
    return spec


def _platform(namespaces: Iterable[str]) -> list[dict[str, Any]]:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in namespaces]
    return [{"to": peers}] if peers else []


def _cidr_rule(rule: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"to": [{"ipBlock": {"cidr": rule["cidr"]}}]}
    protocol = rule.get("protocol") or "TCP"
    # Without ports the rule is for all of the protocol's.
    out["ports"] = [{"port": port, "protocol": protocol} for port in rule.get("ports") or ()] or [
        {"protocol": protocol}
    ]
    return out


def cilium_spec(selector: Mapping[str, str], egress: Egress) -> dict[str, Any] | None:
    """The CiliumNetworkPolicy that lets allowed domains through; None where there is nothing for it to do.

    It adds to what the NetworkPolicy allows. The DNS rule is what makes Cilium learn addresses by name.
    """
    domains = allowed_domains(egress)
    if not egress.has_cilium or not domains:
        return None
    names = [{"matchPattern": name} if "*" in name else {"matchName": name} for name in domains]
    dns = {
        "toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}}],
        "toPorts": [
            {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}},
        ],
    }
    web = {
        "toFQDNs": names,
        "toPorts": [{"ports": [{"port": str(port), "protocol": "TCP"} for port in WEB_PORTS]}],
    }
    return {"endpointSelector": {"matchLabels": dict(selector)}, "egress": [dns, web]}
