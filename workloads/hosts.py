"""Host names that Ingresses of others claim, so that a tenant is not put where somebody else already is.

Of each Ingress that is not ours only this is kept. The caller holds a lock.
"""

from dataclasses import dataclass

from cluster.resources import KubeObject

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """The hosts of which an Ingress claims everything, and its class (empty: the cluster's default)."""

    hosts: frozenset[str]
    ingress_class: str


def claim_of(ingress: KubeObject) -> Claim:
    """What an Ingress claims.

    One that has only paths below `/` of a host goes with another that has the rest, as the solvers of ACME challenges
    do; so does one for `*.domain`, since the exact name goes first.
    https://kubernetes.io/docs/concepts/services-networking/ingress/#hostname-wildcards
    """
    spec = ingress.get("spec") or {}
    hosts = set()
    for rule in spec.get("rules") or ():
        paths = (rule.get("http") or {}).get("paths") or ()
        if rule.get("host") and any(str(path.get("path") or "/") == "/" for path in paths):
            hosts.add(str(rule["host"]).lower())
    return Claim(frozenset(hosts), str(spec.get("ingressClassName") or ""))


class Hosts:
    """Who claims which host."""

    def __init__(self) -> None:
        self._claims: dict[Key, Claim] = {}
        self._by_host: dict[str, set[Key]] = {}

    def put(self, key: Key, claim: Claim | None) -> frozenset[str]:
        """Note what an Ingress claims now, None when it is gone or ours; returns the hosts that are concerned."""
        before = self._claims.pop(key, None)
        if before == claim and before is not None:
            self._claims[key] = before
            return frozenset()
        concerned: frozenset[str] = frozenset()
        if before is not None:
            concerned |= before.hosts
            for host in before.hosts:
                self._by_host[host].discard(key)
                if not self._by_host[host]:
                    del self._by_host[host]
        if claim is not None and claim.hosts:
            concerned |= claim.hosts
            self._claims[key] = claim
            for host in claim.hosts:
                self._by_host.setdefault(host, set()).add(key)
        return concerned

    def claimant(self, host: str, ingress_class: str, own: Key) -> str:
        """The Ingress (`namespace/name`) that claims a host beside `own`, empty when none does.

        Ingresses of two named classes do not meet: another controller serves each.
        """
        for key in sorted(self._by_host.get(host, ())):
            other = self._claims[key].ingress_class
            if key != own and (not other or not ingress_class or other == ingress_class):
                return "/".join(key)
        return ""
