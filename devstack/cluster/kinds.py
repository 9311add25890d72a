"""What the cluster serves: the built-in kinds and, as they come and go, those of CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from devstack.cluster import merge_types as m
from devstack.cluster.fields import Type
from devstack.cluster.schema import Schema, compile_schema, merge_type

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`. `path` is a JSONPath without braces, or the name of a function in `table`."""

    name: str
    path: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


@dataclass(slots=True, eq=False)
class Resource:
    """One kind in one version, and how it behaves."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    has_scale: bool = False
    counts_generations: bool = False
    type: Type = field(default_factory=lambda: m.PLAIN)
    schema: Schema | None = None
    raw_schema: dict[str, Any] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    selectable: frozenset[str] = frozenset()
    list_kind: str = ""
    storage: str = ""
    status_path: tuple[tuple[str, ...], ...] = (("f:status",),)
    spec_paths: tuple[tuple[str, ...], ...] = (("f:metadata",), ("f:spec",))
    # Objects older than their definition may lack its defaults, and those of other versions need relabelling.
    defined_rv: int = 0
    many_versions: bool = False

    def __post_init__(self) -> None:
        self.list_kind = self.list_kind or f"{self.kind}List"
        self.storage = self.storage or (f"{self.plural}.{self.group}" if self.group else self.plural)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        return self.schema is not None

    def ignored(self, subresource: str) -> tuple[tuple[str, ...], ...]:
        """The field paths that a write to this endpoint does not touch, for the books of ownership."""
        if subresource == "status":
            return self.spec_paths
        return self.status_path if self.has_status else ()

    def selects(self, path: str) -> bool:
        """Whether a field selector may name `path`."""
        if path in {"metadata.name", "metadata.namespace"}:
            return True
        return path in self.selectable if self.custom else not path.startswith("metadata.")


def _core(kind: str, plural: str, singular: str, **more: Any) -> Resource:
    return Resource("", "v1", kind, plural, singular, **more)


def _age() -> Column:
    return Column("Age", ".metadata.creationTimestamp", "date")


def builtin() -> list[Resource]:
    """The kinds that are always there."""
    name = Column("Name", ".metadata.name", format="name")
    return [
        _core(
            "Namespace", "namespaces", "namespace", namespaced=False, short_names=("ns",), has_status=True,
            type=m.NAMESPACE, columns=(name, Column("Status", ".status.phase"), _age()),
        ),
        _core(
            "Node", "nodes", "node", namespaced=False, short_names=("no",), has_status=True, type=m.NODE,
            columns=(name, Column("Status", "node_status"), Column("Roles", "node_roles"), _age(),
                     Column("Version", ".status.nodeInfo.kubeletVersion")),
        ),
        _core(
            "Secret", "secrets", "secret", type=m.SECRET,
            columns=(name, Column("Type", ".type"), Column("Data", "data_count", "integer"), _age()),
        ),
        _core(
            "ConfigMap", "configmaps", "configmap", short_names=("cm",), type=m.CONFIG_MAP,
            columns=(name, Column("Data", "data_count", "integer"), _age()),
        ),
        _core(
            "ServiceAccount", "serviceaccounts", "serviceaccount", short_names=("sa",), type=m.SERVICE_ACCOUNT,
            columns=(name, Column("Secrets", "secret_count", "integer"), _age()),
        ),
        _core(
            "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", short_names=("pvc",),
            has_status=True, type=m.VOLUME_CLAIM,
            columns=(name, Column("Status", ".status.phase"), Column("Volume", ".spec.volumeName"),
                     Column("Capacity", ".status.capacity.storage"), Column("Access Modes", "access_modes"),
                     Column("StorageClass", ".spec.storageClassName"), _age()),
        ),
        _core(
            "Pod", "pods", "pod", short_names=("po",), categories=("all",), has_status=True, type=m.POD,
            columns=(name, Column("Ready", "pod_ready"), Column("Status", "pod_phase"),
                     Column("Restarts", "pod_restarts"), _age(), Column("IP", ".status.podIP", priority=1),
                     Column("Node", ".spec.nodeName", priority=1)),
        ),
        _core(
            "Service", "services", "service", short_names=("svc",), categories=("all",), has_status=True,
            type=m.SERVICE,
            columns=(name, Column("Type", ".spec.type"), Column("Cluster-IP", ".spec.clusterIP"),
                     Column("External-IP", "none"), Column("Port(s)", "service_ports"), _age()),
        ),
        _core(
            "ResourceQuota", "resourcequotas", "resourcequota", short_names=("quota",), has_status=True, type=m.QUOTA,
            columns=(name, _age(), Column("Request", "quota_requests"), Column("Limit", "quota_limits")),
        ),
        _core(
            "LimitRange", "limitranges", "limitrange", short_names=("limits",), type=m.LIMIT_RANGE,
            columns=(name, Column("Created At", ".metadata.creationTimestamp", "date")),
        ),
        _core(
            "Event", "events", "event", short_names=("ev",),
            columns=(Column("Last Seen", ".lastTimestamp", "date"), Column("Type", ".type"),
                     Column("Reason", ".reason"), Column("Object", "event_object"), Column("Message", ".message"),
                     Column("Name", ".metadata.name", format="name", priority=1)),
        ),
        Resource(
            "apps", "v1", "Deployment", "deployments", "deployment", short_names=("deploy",), categories=("all",),
            has_status=True, has_scale=True, counts_generations=True, type=m.DEPLOYMENT,
            columns=(name, Column("Ready", "deployment_ready"),
                     Column("Up-to-date", "updated_count", "integer"),
                     Column("Available", "available_count", "integer"), _age()),
        ),
        Resource(
            "networking.k8s.io", "v1", "Ingress", "ingresses", "ingress", short_names=("ing",), has_status=True,
            counts_generations=True, type=m.INGRESS,
            columns=(name, Column("Class", ".spec.ingressClassName"), Column("Hosts", "ingress_hosts"),
                     Column("Address", "ingress_address"), Column("Ports", "ingress_ports"), _age()),
        ),
        Resource(
            "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "networkpolicy", short_names=("netpol",),
            counts_generations=True, type=m.NETWORK_POLICY,
            columns=(name, Column("Pod-Selector", "pod_selector"), _age()),
        ),
        Resource(
            "coordination.k8s.io", "v1", "Lease", "leases", "lease",
            columns=(name, Column("Holder", ".spec.holderIdentity"), _age()),
        ),
        *(
            Resource(
                "rbac.authorization.k8s.io", "v1", kind, f"{kind.lower()}s", kind.lower(), namespaced=namespaced,
                type=m.ROLE if kind.endswith("Role") else m.ROLE_BINDING, columns=(name, _age()),
            )
            for kind, namespaced in (
                ("Role", True), ("ClusterRole", False), ("RoleBinding", True), ("ClusterRoleBinding", False)
            )
        ),
        Resource(
            "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
            "customresourcedefinition", namespaced=False, short_names=("crd", "crds"), categories=("api-extensions",),
            has_status=True, counts_generations=True, type=m.CUSTOM_RESOURCE_DEFINITION,
            columns=(name, Column("Created At", "creation_time")),
        ),
    ]  # fmt: skip


# A hand-written subset of cert-manager's CRDs, only so that issuers can be named and listed; nothing issues here.
_ISSUER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "status": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "conditions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type"],
                        "properties": {"type": {"type": "string"}},
                        "x-kubernetes-preserve-unknown-fields": True,
                    },
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["type"],
                }
            },
        },
    },
}


def issuer_definitions() -> list[dict[str, Any]]:
    """CustomResourceDefinitions for cert-manager's Issuer and ClusterIssuer (see `_ISSUER_SCHEMA`)."""
    columns = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": f"{plural}.cert-manager.io",
                "annotations": {"opencrane.io/note": "hand-written subset for the development cluster"},
            },
            "spec": {
                "group": "cert-manager.io",
                "names": {"kind": kind, "plural": plural, "categories": ["cert-manager"]},
                "scope": scope,
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": _ISSUER_SCHEMA},
                        "subresources": {"status": {}},
                        "additionalPrinterColumns": columns,
                    }
                ],
            },
        }
        for kind, plural, scope in (("Issuer", "issuers", "Namespaced"), ("ClusterIssuer", "clusterissuers", "Cluster"))
    ]


def from_definition(crd: dict[str, Any]) -> list[Resource]:
    """The resources that a (checked) CustomResourceDefinition asks for, one for each served version."""
    spec = crd["spec"]
    names = spec["names"]
    out = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        raw = version["schema"]["openAPIV3Schema"]
        schema = compile_schema(raw)
        type_ = merge_type(schema)
        type_.fields["apiVersion"] = type_.fields["kind"] = Type("scalar", scalar="string")
        type_.fields["metadata"] = m.METADATA
        subresources = version.get("subresources") or {}
        columns = tuple(
            Column(
                column["name"],
                column["jsonPath"],
                column.get("type", "string"),
                column.get("format", ""),
                int(column.get("priority", 0)),
                column.get("description", ""),
            )
            for column in version.get("additionalPrinterColumns") or ()
        )
        tops = {"metadata", "spec", *schema.properties} - {"status", "apiVersion", "kind"}
        out.append(
            Resource(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                names.get("singular") or names["kind"].lower(),
                namespaced=spec["scope"] == "Namespaced",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                has_status="status" in subresources,
                counts_generations=True,
                type=type_,
                schema=schema,
                raw_schema=raw,
                columns=(Column("Name", ".metadata.name", format="name"), *(columns or (_age(),))),
                selectable=frozenset(
                    item["jsonPath"].lstrip(".") for item in version.get("selectableFields") or () if "jsonPath" in item
                ),
                list_kind=names.get("listKind") or f"{names['kind']}List",
                spec_paths=tuple((f"f:{top}",) for top in sorted(tops)),
                defined_rv=int(crd["metadata"].get("resourceVersion") or 0),
                many_versions=len(spec["versions"]) > 1,
            )
        )
    return out


class Registry:
    """Every resource served at the moment."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_storage: dict[str, Resource] = {}
        self.revision = 0
        for resource in builtin():
            self._add(resource)

    def _add(self, resource: Resource) -> None:
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._by_storage.setdefault(resource.storage, resource)
        self.revision += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def by_storage(self, storage: str) -> Resource | None:
        return self._by_storage.get(storage)

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        return next((r for r in self._by_path.values() if r.kind == kind and r.api_version == api_version), None)

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._by_path.values()))

    def define(self, crd: dict[str, Any]) -> None:
        """Serve (again) what a definition asks for."""
        self.undefine(crd)
        stored = next((v["name"] for v in crd["spec"]["versions"] if v.get("storage")), "")
        resources = from_definition(crd)
        for resource in sorted(resources, key=lambda r: r.version != stored):
            self._add(resource)

    def undefine(self, crd: dict[str, Any]) -> None:
        names, group = crd["spec"]["names"], crd["spec"]["group"]
        for key in [key for key in self._by_path if key[0] == group and key[2] == names["plural"]]:
            del self._by_path[key]
        self._by_storage.pop(f"{names['plural']}.{group}", None)
        self.revision += 1
