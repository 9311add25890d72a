"""What a tenant's objects are called and how they are labelled. Pure."""

from typing import Any

from cluster.resources import (
    CILIUM_POLICIES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    GROUP,
    INGRESSES,
    MANAGED_BY,
    NETWORK_POLICIES,
    OPERATOR,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    VOLUME_CLAIMS,
    Resource,
)

FINALIZER = f"{GROUP}/workloads"
PURGE = f"{GROUP}/purge"
# Names the uid of an earlier tenant whose volume and key this one takes over.
DATA_UID = f"{GROUP}/data-uid"
CONFIG_HASH = f"{GROUP}/config-hash"
MANIFEST_HASH = f"{GROUP}/manifest-hash"
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
TENANT_LABEL = f"{GROUP}/tenant"
TEAM_LABEL = f"{GROUP}/team"
# The namespace of the custom resource, which need not be that of the workloads.
HOME_LABEL = f"{GROUP}/tenant-namespace"

# In the order of applying: a pod never runs without its account, its data and its network policy.
CHILDREN: tuple[Resource, ...] = (
    SERVICE_ACCOUNTS,
    SECRETS,
    CONFIG_MAPS,
    VOLUME_CLAIMS,
    NETWORK_POLICIES,
    CILIUM_POLICIES,
    DEPLOYMENTS,
    SERVICES,
    INGRESSES,
)
# What holds a tenant's data: made once, never changed, and kept when the tenant goes.
DATA: tuple[Resource, ...] = (SECRETS, VOLUME_CLAIMS)


def object_name(tenant: str) -> str:
    return f"openclaw-{tenant}"


def key_name(tenant: str, data_uid: str) -> str:
    return f"openclaw-{tenant}-key-{data_uid}"


def claim_prefix(tenant: str) -> str:
    """What the name of a tenant's volume claim begins with; the rest is a uid."""
    return f"openclaw-{tenant}-data-"


def claim_name(tenant: str, data_uid: str) -> str:
    return claim_prefix(tenant) + data_uid


def litellm_secret_name(tenant: str) -> str:
    return f"openclaw-{tenant}-litellm-key"


def data_uid(tenant: dict[str, Any]) -> str:
    """The uid in the names of a tenant's volume claim and key."""
    metadata = tenant["metadata"]
    return str((metadata.get("annotations") or {}).get(DATA_UID) or metadata["uid"])


def selector(tenant: str, home: str) -> dict[str, str]:
    """The labels by which Deployment, Service and policies find a tenant's pod; they never change."""
    return {PART_OF: "opencrane", COMPONENT: "tenant", TENANT_LABEL: tenant, HOME_LABEL: home}


def labels(tenant: dict[str, Any]) -> dict[str, str]:
    """Every label of a tenant's objects."""
    metadata = tenant["metadata"]
    found = selector(metadata["name"], metadata["namespace"]) | {MANAGED_BY: OPERATOR}
    team = tenant["spec"].get("team")
    return found | ({TEAM_LABEL: team} if team else {})


def is_of_tenant(live: dict[str, Any], home: str) -> bool:
    """Whether an object carries the labels of `watched_labels`."""
    found = live["metadata"].get("labels") or {}
    return (found.get(PART_OF), found.get(COMPONENT), found.get(HOME_LABEL)) == ("opencrane", "tenant", home)


def watched_labels(home: str) -> str:
    """The label selector of everything that belongs to tenants of one namespace."""
    return f"{PART_OF}=opencrane,{COMPONENT}=tenant,{HOME_LABEL}={home}"
