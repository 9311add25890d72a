"""Which custom resources there are, and where they live in the API."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

GROUP = "opencrane.io"
VERSION = "v1alpha1"
FIELD_MANAGER = "opencrane"
# The operator's: status and finalizers are its own, the spec is not.
OPERATOR = "opencrane-operator"
ROW_ID = "opencrane.io/row-id"
ROW_GENERATION = "opencrane.io/row-generation"
MANAGED_BY = "app.kubernetes.io/managed-by"

KubeObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource type of the Kubernetes API.

    Attributes:
        group: API group; empty for the core group.
        plural: as in the URL.
        namespaced: whether objects live in a namespace.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """As a definition of it is called, and as RBAC and kubectl tell it from others."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """URL path of the collection, or of one object.

        `namespace` is ignored for cluster-scoped resources; without one the collection is that of all namespaces.
        """
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


TENANTS = Resource(GROUP, VERSION, "tenants", "Tenant", namespaced=True)
ACCESS_POLICIES = Resource(GROUP, VERSION, "accesspolicies", "AccessPolicy", namespaced=True)
CLUSTER_TENANTS = Resource(GROUP, VERSION, "clustertenants", "ClusterTenant", namespaced=False)
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", namespaced=True)
SERVICES = Resource("", "v1", "services", "Service", namespaced=True)
PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
EVENTS = Resource("", "v1", "events", "Event", namespaced=True)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress", namespaced=True)
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
CILIUM_POLICIES = Resource("cilium.io", "v2", "ciliumnetworkpolicies", "CiliumNetworkPolicy", namespaced=True)
