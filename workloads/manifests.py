"""A tenant's custom resource to the objects that make it run. Pure: dictionaries in, dictionaries out."""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from cluster.resources import (
    CILIUM_POLICIES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    NETWORK_POLICIES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    TENANTS,
    VOLUME_CLAIMS,
    KubeObject,
    Resource,
)
from workloads import naming
from workloads.network import Egress, cilium_spec, network_spec

CONFIG_FILE = "openclaw.json"
CONFIG_FOLDER = "/etc/openclaw"
DATA_FOLDER = "/data"
KEY_FOLDER = "/var/run/secrets/opencrane.io/key"
TOKEN_FOLDER = "/var/run/secrets/opencrane.io/tokens"  # noqa: S105 - a folder
AUDIENCES = ("obot-gateway", "skill-registry", "control-plane")
TOKEN_SECONDS = 600
LITELLM_KEY = "api-key"
USER = 10001
KEY_BYTES = 32
HOST_MAX = 253
# Settings of OpenClaw that hold for every tenant; `configOverrides` may change each of them.
BASE_CONFIG: dict[str, Any] = {
    "gateway": {"mode": "local", "bind": "lan"},
    "agents": {"defaults": {"workspace": f"{DATA_FOLDER}/workspace"}},
}
_HOST = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*\Z")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*\Z")


@dataclass(frozen=True)
class Defaults:
    """What the settings say about every tenant."""

    image: str
    version: str
    port: int
    storage: str
    storage_class: str
    ingress_domain: str
    ingress_class: str
    ingress_tls_secret: str
    control_plane_url: str
    litellm_endpoint: str
    platform_namespaces: tuple[str, ...]
    node_pool_label: str


@dataclass(frozen=True)
class Placement:
    """Where a tenant's workloads run: given by its cluster tenant, else the namespace of its custom resource."""

    namespace: str
    domain: str
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()


class UnfitError(Exception):
    """The tenant's spec cannot become objects; the sentence is for people. `reason` is a CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def placement(tenant: KubeObject, cluster_tenant: KubeObject | None, defaults: Defaults) -> Placement:
    """Where the workloads of a tenant go.

    Args:
        cluster_tenant: the one that `clusterTenantRef` names, None when there is none of that name.

    Raises:
        UnfitError: it is missing, being deleted or not ready.
    """
    name = tenant["spec"].get("clusterTenantRef")
    if not name:
        return Placement(tenant["metadata"]["namespace"], defaults.ingress_domain)
    if cluster_tenant is None:
        raise UnfitError("ClusterTenantMissing", f"There is no cluster tenant named {name}.")
    status, spec = cluster_tenant.get("status") or {}, cluster_tenant.get("spec") or {}
    if cluster_tenant["metadata"].get("deletionTimestamp"):
        raise UnfitError("ClusterTenantMissing", f"The cluster tenant {name} is being deleted.")
    if spec.get("isolationTier") == "dedicatedCluster":
        raise UnfitError("OtherCluster", f"The cluster tenant {name} has a cluster of its own, which this one is not.")
    if status.get("phase") != "ready":
        why = status.get("message") or f"its phase is {status.get('phase') or 'pending'}"
        raise UnfitError("ClusterTenantNotReady", f"The cluster tenant {name} is not ready: {why}")
    compute = spec.get("compute") or {}
    pool = compute.get("nodePool") if compute.get("mode") == "dedicated" else None
    tolerations: tuple[dict[str, Any], ...] = ()
    if pool:
        tolerations = ({"key": defaults.node_pool_label, "operator": "Equal", "value": pool, "effect": "NoSchedule"},)
    return Placement(
        namespace=status.get("boundNamespace") or f"opencrane-{name}",
        domain=spec.get("baseDomain") or defaults.ingress_domain,
        node_selector={defaults.node_pool_label: pool} if pool else {},
        tolerations=tolerations,
    )


def host_of(tenant: KubeObject, where: Placement) -> str:
    """The host name of a tenant's gateway; empty where no domain is set.

    Raises:
        UnfitError: it is no host name, or too long for DNS.
    """
    if not where.domain:
        return ""
    host = f"{tenant['metadata']['name']}.{where.domain}".lower()
    if len(host) > HOST_MAX:
        raise UnfitError("HostTooLong", f"The host {host} has {len(host)} characters; DNS allows {HOST_MAX}.")
    if not _HOST.match(host):
        raise UnfitError("HostInvalid", f"{host} is no host name; look at the base domain {where.domain}.")
    return host


def image_of(spec: dict[str, Any], defaults: Defaults) -> str:
    """The image to run. A version goes with the image unless that has a tag or digest of its own.

    Raises:
        UnfitError: it is no image reference.
    """
    image = str(spec.get("openclawImage") or defaults.image)
    named = "@" in image or ":" in image.rpartition("/")[2]
    if not named:
        image = f"{image}:{spec.get('openclawVersion') or defaults.version}"
    if not _IMAGE.match(image):
        raise UnfitError("ImageInvalid", f"{image} is no container image.")
    return image


@dataclass(frozen=True)
class Wanted:
    """The objects of one tenant: by resource type, the manifest and a hash of it.

    `manifests` is in the order of applying. The key Secret has no data here: it is made once, from random bytes.
    """

    manifests: dict[Resource, KubeObject]
    hashes: dict[Resource, bytes]
    host: str


EVERYTHING = frozenset(naming.CHILDREN)


def wanted_objects(
    tenant: KubeObject,
    where: Placement,
    egress: Egress | None,
    defaults: Defaults,
    *,
    only: frozenset[Resource] = EVERYTHING,
) -> Wanted:
    """Everything that the tenant needs.

    Args:
        egress: what its policy lets out; None when no policy applies.
        only: the types to make.

    Raises:
        UnfitError: the spec cannot become objects.
    """
    host = host_of(tenant, where)
    bodies: dict[Resource, Callable[[], dict[str, Any] | None]] = {
        SERVICE_ACCOUNTS: lambda: {"automountServiceAccountToken": False},
        SECRETS: lambda: {"type": "Opaque", "immutable": True},
        CONFIG_MAPS: lambda: {"data": {CONFIG_FILE: config_text(tenant, defaults, egress)}},
        VOLUME_CLAIMS: lambda: {"spec": _claim(defaults)},
        NETWORK_POLICIES: lambda: {
            "spec": network_spec(
                _selector(tenant),
                egress,
                defaults.port,
                defaults.platform_namespaces,
                is_closed=where.namespace != tenant["metadata"]["namespace"],
            )
        },
        CILIUM_POLICIES: lambda: _cilium(tenant, egress),
        DEPLOYMENTS: lambda: {"spec": _deployment(tenant, where, config_text(tenant, defaults, egress), defaults)},
        SERVICES: lambda: {"spec": _service(tenant)},
        INGRESSES: lambda: {"spec": _ingress(tenant, host, defaults)} if host else None,
    }
    manifests: dict[Resource, KubeObject] = {}
    for resource, make in bodies.items():
        body = make() if resource in only else None
        if body is not None:
            manifests[resource] = _object(tenant, resource, where.namespace, body)
    return Wanted(manifests, {resource: manifest_hash(body) for resource, body in manifests.items()}, host)


_READABLE = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS


def manifest_hash(manifest: KubeObject) -> bytes:
    """Changes with the manifest."""
    return hashlib.blake2b(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


def key_data() -> dict[str, str]:
    """The data of a new encryption key's Secret."""
    return {"key": base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}


def name_of(tenant: KubeObject, resource: Resource) -> str:
    """What the tenant's object of a type is called."""
    name = tenant["metadata"]["name"]
    if resource is SECRETS:
        return naming.key_name(name, naming.data_uid(tenant))
    if resource is VOLUME_CLAIMS:
        return naming.claim_name(name, naming.data_uid(tenant))
    return naming.object_name(name)


def _object(tenant: KubeObject, resource: Resource, namespace: str, body: dict[str, Any]) -> KubeObject:
    metadata: dict[str, Any] = {
        "name": name_of(tenant, resource),
        "namespace": namespace,
        "labels": naming.labels(tenant),
    }
    # What holds data outlives the tenant, and an owner reference cannot cross namespaces.
    if resource not in naming.DATA and namespace == tenant["metadata"]["namespace"]:
        metadata["ownerReferences"] = [_owner(tenant)]
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **body}


def _owner(tenant: KubeObject) -> dict[str, Any]:
    metadata = tenant["metadata"]
    return {
        "apiVersion": TENANTS.api_version,
        "kind": TENANTS.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _selector(tenant: KubeObject) -> dict[str, str]:
    return naming.selector(tenant["metadata"]["name"], tenant["metadata"]["namespace"])


# -- configuration ----------------------------------------------------------------------------------------------------


def config_of(tenant: KubeObject, defaults: Defaults, egress: Egress | None) -> dict[str, Any]:
    """OpenClaw's configuration: the base, the tenant's overrides, and under `opencrane` the runtime contract.

    What the control plane says under `opencrane` wins over overrides.
    """
    spec, metadata = tenant["spec"], tenant["metadata"]
    merged = merge(BASE_CONFIG, spec.get("configOverrides") or {})
    contract: dict[str, Any] = {
        "tenant": metadata["name"],
        "displayName": spec.get("displayName"),
        "team": spec.get("team"),
        "awarenessWave": spec.get("awarenessWave"),
        "policy": egress.policy if egress else None,
        "mcpPolicy": spec.get("mcpPolicy"),
        "skillAllowlist": spec.get("skillAllowlist"),
        "tokens": {audience: f"{TOKEN_FOLDER}/{audience}" for audience in AUDIENCES},
        "keyFile": f"{KEY_FOLDER}/key",
    }
    if defaults.control_plane_url:
        base = defaults.control_plane_url
        contract["contractUrl"] = f"{base}/api/internal/contract/{metadata['name']}"
        contract["participationUrl"] = f"{base}/api/internal/awareness/participation"
    merged["opencrane"] = {key: value for key, value in contract.items() if value is not None}
    return merged


def config_text(tenant: KubeObject, defaults: Defaults, egress: Egress | None) -> str:
    """The configuration as the file that the pod reads."""
    return orjson.dumps(config_of(tenant, defaults, egress), option=_READABLE).decode()


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, objects by key at every depth; anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        merged[key] = merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


# -- bodies -----------------------------------------------------------------------------------------------------------


def _claim(defaults: Defaults) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": defaults.storage}},
    }
    if defaults.storage_class:
        spec["storageClassName"] = defaults.storage_class
    return spec


def _deployment(tenant: KubeObject, where: Placement, config: str, defaults: Defaults) -> dict[str, Any]:
    spec = tenant["spec"]
    # A pod reads its configuration when it starts: another one means another pod.
    config_hash = hashlib.blake2b(config.encode(), digest_size=16).hexdigest()
    pod: dict[str, Any] = {
        "serviceAccountName": naming.object_name(tenant["metadata"]["name"]),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(tenant, defaults)],
        "volumes": _volumes(tenant),
    }
    if where.node_selector:
        pod["nodeSelector"] = where.node_selector
    if where.tolerations:
        pod["tolerations"] = list(where.tolerations)
    return {
        "replicas": 0 if spec.get("suspended") else 1,
        # The volume is for one pod at a time.
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": _selector(tenant)},
        "template": {
            "metadata": {"labels": naming.labels(tenant), "annotations": {naming.CONFIG_HASH: config_hash}},
            "spec": pod,
        },
    }


def _container(tenant: KubeObject, defaults: Defaults) -> dict[str, Any]:
    spec, name = tenant["spec"], tenant["metadata"]["name"]
    env: list[dict[str, Any]] = [
        {"name": "OPENCLAW_CONFIG_PATH", "value": f"{CONFIG_FOLDER}/{CONFIG_FILE}"},
        {"name": "OPENCLAW_STATE_DIR", "value": DATA_FOLDER},
        {"name": "HOME", "value": DATA_FOLDER},
        {"name": "OPENCRANE_TENANT", "value": name},
        {
            "name": "LITELLM_API_KEY",
            "valueFrom": {
                "secretKeyRef": {"name": naming.litellm_secret_name(name), "key": LITELLM_KEY, "optional": True}
            },
        },
    ]
    if defaults.litellm_endpoint:
        env.append({"name": "LITELLM_BASE_URL", "value": defaults.litellm_endpoint})
    container: dict[str, Any] = {
        "name": "openclaw",
        "image": image_of(spec, defaults),
        "ports": [{"name": "gateway", "containerPort": defaults.port, "protocol": "TCP"}],
        "env": env,
        "volumeMounts": [
            {"name": "data", "mountPath": DATA_FOLDER},
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "key", "mountPath": KEY_FOLDER, "readOnly": True},
            {"name": "tokens", "mountPath": TOKEN_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of the pod's own
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe("/healthz", periodSeconds=2, failureThreshold=60),
        "livenessProbe": _probe("/healthz", periodSeconds=20, failureThreshold=3),
        "readinessProbe": _probe("/readyz", periodSeconds=5, failureThreshold=3),
    }
    amounts = {key: str(value) for key, value in (spec.get("resources") or {}).items() if value is not None}
    if amounts:
        container["resources"] = {"requests": amounts, "limits": amounts}
    return container


def _probe(path: str, **more: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "gateway", "scheme": "HTTP"}, "timeoutSeconds": 3, **more}


def _volumes(tenant: KubeObject) -> list[dict[str, Any]]:
    tokens = [
        {"serviceAccountToken": {"audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": audience}}
        for audience in AUDIENCES
    ]
    return [
        {"name": "data", "persistentVolumeClaim": {"claimName": name_of(tenant, VOLUME_CLAIMS)}},
        {"name": "config", "configMap": {"name": name_of(tenant, CONFIG_MAPS)}},
        {"name": "key", "secret": {"secretName": name_of(tenant, SECRETS), "defaultMode": 0o440}},
        {"name": "tokens", "projected": {"defaultMode": 0o440, "sources": tokens}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]


def _service(tenant: KubeObject) -> dict[str, Any]:
    port = {"name": "gateway", "port": 80, "targetPort": "gateway", "protocol": "TCP"}
    return {"type": "ClusterIP", "selector": _selector(tenant), "ports": [port]}


def _ingress(tenant: KubeObject, host: str, defaults: Defaults) -> dict[str, Any]:
    backend = {"service": {"name": name_of(tenant, SERVICES), "port": {"name": "gateway"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    spec: dict[str, Any] = {"rules": [{"host": host, "http": {"paths": [path]}}]}
    if defaults.ingress_class:
        spec["ingressClassName"] = defaults.ingress_class
    if defaults.ingress_tls_secret:
        spec["tls"] = [{"hosts": [host], "secretName": defaults.ingress_tls_secret}]
    return spec


def _cilium(tenant: KubeObject, egress: Egress | None) -> dict[str, Any] | None:
    spec = cilium_spec(_selector(tenant), egress) if egress else None
    return {"spec": spec} if spec else None
