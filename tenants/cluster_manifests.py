"""Cluster tenants: row to spec and back, and the objects that make their place in the cluster. Pure."""

import datetime
from collections.abc import Mapping
from typing import Any

from cluster.kinds import Spec
from cluster.resources import FIELD_MANAGER, MANAGED_BY, ROW_ID, KubeObject
from tenants.models import ClusterTenant, Deprovisioning

# Spec field to model attribute, for every field that is dual-written.
ATTRIBUTES: Mapping[str, str] = {
    "displayName": "display_name",
    "baseDomain": "base_domain",
    "isolationTier": "isolation_tier",
    "compute": "compute",
    "resources": "resources",
}
_TEXT = frozenset({"displayName", "baseDomain", "isolationTier"})

# Installations that share a cluster leave each other's cluster tenants alone: those are not namespaced.
INSTALLATION = "opencrane.io/installation"
CLUSTER_TENANT = "opencrane.io/cluster-tenant"
NODE_POOL = "opencrane.io/node-pool"
# On a namespace that was kept when its cluster tenant went.
RELEASED = "opencrane.io/released"
OBJECT_NAME = "opencrane"
# Quota field to what a ResourceQuota calls it. Requests and limits alike: neither promises nor bursts go beyond.
_HARD = {
    "cpu": ("requests.cpu", "limits.cpu"),
    "memory": ("requests.memory", "limits.memory"),
    "storage": ("requests.storage",),
    "pods": ("pods",),
    "gpu": ("requests.nvidia.com/gpu",),
}
_SECURITY = {
    "pod-security.kubernetes.io/enforce": "baseline",
    "pod-security.kubernetes.io/audit": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}


def cluster_tenant_spec(row: ClusterTenant) -> Spec:
    """The spec of a cluster tenant's custom resource; a field that is not set is absent."""
    spec: Spec = {}
    for name, attribute in ATTRIBUTES.items():
        value = getattr(row, attribute)
        if value is None or (name in _TEXT and value == "") or (name in {"compute", "resources"} and value == {}):
            continue
        spec[name] = value
    return spec


def assign_spec(row: ClusterTenant, values: Mapping[str, Any]) -> None:
    """Set the attributes behind spec fields; None clears."""
    for name, value in values.items():
        if name == "isolationTier":
            row.isolation_tier = value or ClusterTenant.IsolationTier.SHARED
        else:
            setattr(row, ATTRIBUTES[name], ("" if name in _TEXT else {}) if value is None else value)


def namespace_of(name: str) -> str:
    """The namespace that the built-in provisioner makes for a cluster tenant."""
    return f"opencrane-{name}"


def labels_of(row: ClusterTenant) -> dict[str, str]:
    return {MANAGED_BY: FIELD_MANAGER, CLUSTER_TENANT: row.name}


def namespace_manifest(row: ClusterTenant) -> KubeObject:
    """The namespace: baseline pod security, and its cluster tenant's name, id and node pool.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    pool = row.compute.get("nodePool") if row.compute.get("mode") == "dedicated" else None
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": namespace_of(row.name),
            "labels": labels_of(row) | _SECURITY | ({NODE_POOL: pool} if pool else {}),
            "annotations": {ROW_ID: str(row.pk)},
        },
    }


def released_manifest(left: Deprovisioning, now: datetime.datetime) -> KubeObject:
    """The namespace that a cluster tenant leaves behind: whose it was, and since when it is free."""
    metadata = {
        "name": left.namespace,
        "labels": {MANAGED_BY: FIELD_MANAGER} | _SECURITY,
        "annotations": {ROW_ID: str(left.pk), RELEASED: now.strftime("%Y-%m-%dT%H:%M:%SZ")},
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def quota_manifest(row: ClusterTenant) -> KubeObject:
    """The ResourceQuota; without limits where the quota has none."""
    hard = {
        name: str(amount)
        for field, amount in (row.resources.get("quota") or {}).items()
        if amount is not None
        for name in _HARD[field]
    }
    return _namespaced(row, "v1", "ResourceQuota", {"hard": hard})


def limits_manifest(row: ClusterTenant) -> KubeObject:
    """What a container gets that asks for nothing: a quota would else refuse it."""
    defaults = {"cpu": "1", "memory": "1Gi"}
    limit = {"type": "Container", "default": defaults, "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}
    return _namespaced(row, "v1", "LimitRange", {"limits": [limit]})


def network_manifest(row: ClusterTenant) -> KubeObject:
    """Nothing may come in or go out but what another policy allows."""
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return _namespaced(row, "networking.k8s.io/v1", "NetworkPolicy", spec)


def status_manifest(row: ClusterTenant, status: Mapping[str, Any]) -> KubeObject:
    """The custom resource's status, for an apply to its status subresource; only while it is the object we made."""
    return {
        "apiVersion": "opencrane.io/v1alpha1",
        "kind": "ClusterTenant",
        "metadata": {"name": row.name, "uid": row.cluster_uid},
        "status": {key: value for key, value in status.items() if value not in {None, ""}},
    }


def _namespaced(row: ClusterTenant, api_version: str, kind: str, spec: Mapping[str, Any]) -> KubeObject:
    metadata = {"name": OBJECT_NAME, "namespace": namespace_of(row.name), "labels": labels_of(row)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": dict(spec)}
