"""Platform DNS: how a provider, a zone and an e-mail address become a cert-manager issuer, and back. Pure.

https://cert-manager.io/docs/configuration/acme/dns01/
"""

from collections.abc import Mapping
from typing import Any

from cluster.resources import FIELD_MANAGER, MANAGED_BY, KubeObject, Resource
from opencrane.masking import mask

DEFAULT_ISSUER = "opencrane-issuer"
DEFAULT_SERVER = "https://acme-v02.api.letsencrypt.org/directory"
CLUSTER_ISSUER, ISSUER = "ClusterIssuer", "Issuer"
RESOURCES = {
    CLUSTER_ISSUER: Resource("cert-manager.io", "v1", "clusterissuers", CLUSTER_ISSUER, namespaced=False),
    ISSUER: Resource("cert-manager.io", "v1", "issuers", ISSUER, namespaced=True),
}
# Providers whose token OpenCrane keeps in a Secret: what cert-manager calls the reference, and the Secret's key.
TOKEN_PROVIDERS = {
    "cloudflare": ("apiTokenSecretRef", "api-token"),
    "digitalocean": ("tokenSecretRef", "access-token"),
}
PROVIDER_PATTERN = r"^[A-Za-z][A-Za-z0-9-]{0,62}$"


def secret_name(provider: str) -> str:
    """The Secret with a provider's token."""
    return f"opencrane-dns01-{provider}"


def solver_config(provider: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What stands under the provider's name in the issuer: a reference to our Secret, or what was given."""
    if provider not in TOKEN_PROVIDERS:
        return dict(given or {})
    reference, key = TOKEN_PROVIDERS[provider]
    return {reference: {"name": secret_name(provider), "key": key}}


def issuer_manifest(
    *, kind: str, name: str, provider: str, zone: str, email: str, server: str, solver: Mapping[str, Any] | None
) -> KubeObject:
    """The issuer to apply."""
    return {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind,
        "metadata": {"name": name, "labels": {MANAGED_BY: FIELD_MANAGER}},
        "spec": {
            "acme": {
                "email": email,
                "server": server,
                "privateKeySecretRef": {"name": f"{name}-account-key"},
                "solvers": [
                    {"selector": {"dnsZones": [zone]}, "dns01": {provider: solver_config(provider, solver)}},
                ],
            }
        },
    }


def is_ours(issuer: KubeObject) -> bool:
    """Whether OpenCrane made the issuer."""
    return (issuer["metadata"].get("labels") or {}).get(MANAGED_BY) == FIELD_MANAGER


def issuer_as_json(issuer: KubeObject) -> dict[str, Any]:
    """What an issuer says: provider, zone, e-mail address, server and conditions; null where it has none.

    Issuers that somebody else made may have any form.
    """
    acme = _object(_object(issuer.get("spec")).get("acme"))
    solvers = [each for each in _list(acme.get("solvers")) if _object(_object(each).get("dns01"))]
    solver = _object(solvers[0]) if solvers else {}
    dns01 = _object(solver.get("dns01"))
    provider = next((name for name, value in dns01.items() if isinstance(value, dict)), None)
    zones = _list(_object(solver.get("selector")).get("dnsZones"))
    config = dns01.get(provider) if provider else None
    return {
        "provider": provider,
        "zone": zones[0] if zones else None,
        "email": acme.get("email"),
        "server": acme.get("server"),
        "secretName": secret_name(provider) if provider in TOKEN_PROVIDERS else None,
        "solverConfig": mask(config) if config is not None and provider not in TOKEN_PROVIDERS else None,
        "conditions": [
            {
                "type": str(each.get("type", "")),
                "status": str(each.get("status", "")),
                "reason": each.get("reason"),
                "message": each.get("message"),
                "lastTransitionTime": each.get("lastTransitionTime"),
            }
            for each in map(_object, _list(_object(issuer.get("status")).get("conditions")))
        ],
    }


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
