"""Custom resources for tests, as the API server gives them."""

from typing import Any

from cluster.resources import KubeObject
from workloads.manifests import Defaults, Placement

DEFAULTS = Defaults(
    image="registry.example.com/openclaw",
    version="2026.1",
    port=18789,
    storage="5Gi",
    storage_class="",
    ingress_domain="crane.example.com",
    ingress_class="",
    ingress_tls_secret="",
    control_plane_url="https://control.example.com",
    litellm_endpoint="",
    platform_namespaces=("opencrane-system",),
    node_pool_label="opencrane.io/node-pool",
)
HOME = Placement("agents", "crane.example.com")
UID = "6f1d3c1e-0000-4000-8000-000000000001"


def tenant(name: str = "anna", *, metadata: dict[str, Any] | None = None, **spec: Any) -> KubeObject:
    return {
        "apiVersion": "opencrane.io/v1alpha1",
        "kind": "Tenant",
        "metadata": {
            "name": name,
            "namespace": "agents",
            "uid": UID,
            "resourceVersion": "7",
            "generation": 1,
            **(metadata or {}),
        },
        "spec": {"displayName": "Anna", "email": "anna@example.com", **spec},
    }


def policy(name: str, **spec: Any) -> KubeObject:
    return {"metadata": {"name": name, "generation": 1}, "spec": spec}


def customer(name: str, *, phase: str = "ready", message: str = "", **spec: Any) -> KubeObject:
    return {
        "metadata": {"name": name},
        "spec": {"displayName": name, "isolationTier": "shared", **spec},
        "status": {"phase": phase, "message": message, "boundNamespace": f"opencrane-{name}"},
    }
