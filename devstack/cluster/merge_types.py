"""How the built-in kinds merge: which lists are keyed, which maps are atomic.

Only what matters for apply, strategic merge and managedFields is listed; everything else merges as its value suggests.
Source: the x-kubernetes-list-type, -map-keys and -map-type markers of Kubernetes' OpenAPI document.
"""

from __future__ import annotations

from devstack.cluster.fields import ANY, ATOMIC_LIST, ATOMIC_MAP, Type, list_set, listing, mapping

_MAP = Type("map", element=ANY)

METADATA = mapping(
    annotations=_MAP,
    labels=_MAP,
    finalizers=list_set(),
    ownerReferences=listing(mapping(atomic=True), "uid"),
)
CONDITIONS = listing(mapping(), "type")
SELECTOR = mapping(atomic=True)

_VALUE_FROM = mapping(
    secretKeyRef=ATOMIC_MAP, configMapKeyRef=ATOMIC_MAP, fieldRef=ATOMIC_MAP, resourceFieldRef=ATOMIC_MAP
)
_RESOURCES = mapping(limits=_MAP, requests=_MAP, claims=listing(mapping(), "name"))
CONTAINER = mapping(
    env=listing(mapping(valueFrom=_VALUE_FROM), "name"),
    ports=listing(mapping(), "containerPort", "protocol", protocol="TCP"),
    volumeMounts=listing(mapping(), "mountPath"),
    volumeDevices=listing(mapping(), "devicePath"),
    resources=_RESOURCES,
    args=ATOMIC_LIST,
    command=ATOMIC_LIST,
    securityContext=mapping(),
)
POD_SPEC = mapping(
    containers=listing(CONTAINER, "name"),
    initContainers=listing(CONTAINER, "name"),
    ephemeralContainers=listing(CONTAINER, "name"),
    volumes=listing(mapping(secret=mapping(), configMap=mapping(), emptyDir=mapping()), "name"),
    imagePullSecrets=listing(mapping(atomic=True), "name"),
    hostAliases=listing(mapping(), "ip"),
    topologySpreadConstraints=listing(mapping(labelSelector=SELECTOR), "topologyKey", "whenUnsatisfiable"),
    nodeSelector=ATOMIC_MAP,
    tolerations=ATOMIC_LIST,
    securityContext=mapping(supplementalGroups=ATOMIC_LIST, sysctls=ATOMIC_LIST),
    affinity=mapping(),
)
POD_STATUS = mapping(
    conditions=CONDITIONS, podIPs=listing(mapping(), "ip"), hostIPs=ATOMIC_LIST, containerStatuses=ATOMIC_LIST
)
POD_TEMPLATE = mapping(metadata=METADATA, spec=POD_SPEC)


def whole(spec: Type = ANY, status: Type | None = None) -> Type:
    """The type of an object from those of its parts."""
    root = mapping(metadata=METADATA)
    if spec is not ANY:
        root.fields["spec"] = spec
    root.fields["status"] = status or mapping(conditions=CONDITIONS)
    return root


POD = whole(POD_SPEC, POD_STATUS)
DEPLOYMENT = whole(mapping(selector=SELECTOR, template=POD_TEMPLATE, strategy=mapping(rollingUpdate=mapping())))
SERVICE = whole(
    mapping(
        ports=listing(mapping(), "port", "protocol", protocol="TCP"),
        selector=ATOMIC_MAP,
        clusterIPs=ATOMIC_LIST,
        externalIPs=ATOMIC_LIST,
    )
)
SERVICE_ACCOUNT = mapping(metadata=METADATA, secrets=listing(mapping(), "name"), imagePullSecrets=ATOMIC_LIST)
CONFIG_MAP = mapping(metadata=METADATA, data=_MAP, binaryData=_MAP)
SECRET = mapping(metadata=METADATA, data=_MAP, stringData=_MAP)
NAMESPACE = whole(mapping(finalizers=ATOMIC_LIST))
NODE = whole(
    mapping(taints=ATOMIC_LIST, podCIDRs=list_set()),
    mapping(conditions=CONDITIONS, addresses=listing(mapping(), "type"), capacity=_MAP, allocatable=_MAP),
)
VOLUME_CLAIM = whole(
    mapping(accessModes=ATOMIC_LIST, selector=SELECTOR, resources=_RESOURCES, dataSource=ATOMIC_MAP),
    mapping(accessModes=ATOMIC_LIST, capacity=_MAP, conditions=CONDITIONS),
)
QUOTA = whole(mapping(hard=_MAP, scopes=ATOMIC_LIST, scopeSelector=ATOMIC_MAP), mapping(hard=_MAP, used=_MAP))
LIMIT_RANGE = whole(mapping(limits=ATOMIC_LIST))
INGRESS = whole(mapping(rules=ATOMIC_LIST, tls=ATOMIC_LIST, defaultBackend=mapping()))
NETWORK_POLICY = whole(mapping(podSelector=SELECTOR, ingress=ATOMIC_LIST, egress=ATOMIC_LIST, policyTypes=ATOMIC_LIST))
CUSTOM_RESOURCE_DEFINITION = whole(
    mapping(versions=ATOMIC_LIST, names=mapping(shortNames=ATOMIC_LIST, categories=ATOMIC_LIST)),
    mapping(conditions=CONDITIONS, storedVersions=ATOMIC_LIST),
)
# Roles have no spec.
ROLE = mapping(metadata=METADATA, rules=ATOMIC_LIST)
ROLE_BINDING = mapping(metadata=METADATA, subjects=ATOMIC_LIST, roleRef=ATOMIC_MAP)
PLAIN = whole()
