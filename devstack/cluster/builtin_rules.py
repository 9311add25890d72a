"""Defaults and basic checks of the built-in kinds: enough that a manifest which passes here is no nonsense."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from typing import Any

from devstack.cluster import schema as structural
from devstack.cluster.errors import Cause, bad_request
from devstack.cluster.fields import same
from devstack.cluster.kinds import Resource, from_definition

Object = dict[str, Any]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]\Z")
_QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)([KMGTPE]i|[munkMGTPE]|[eE][+-]?\d+)?\Z")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
LABEL_NAMES = frozenset({"namespaces", "services"})


def wrong(field: str, value: Any, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause("FieldValueInvalid", field, f"Invalid value: {shown}: {why}")


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", field, f"Required value{': ' + why if why else ''}")


def metadata_causes(resource: Resource, metadata: Object) -> list[Cause]:
    """What is wrong with name, labels, annotations, finalizers and owner references."""
    out: list[Cause] = []
    name = metadata.get("name") or ""
    if not name:
        out.append(required("metadata.name", "name or generateName is required"))
    elif resource.plural in LABEL_NAMES:
        if len(name) > 63:
            out.append(wrong("metadata.name", name, "must be no more than 63 characters"))
        elif not _LABEL.match(name):
            out.append(wrong("metadata.name", name, LABEL_RULE))
    elif len(name) > 253:
        out.append(wrong("metadata.name", name, "must be no more than 253 characters"))
    elif not _SUBDOMAIN.match(name):
        out.append(wrong("metadata.name", name, SUBDOMAIN_RULE))
    for key, value in (metadata.get("labels") or {}).items():
        if not _QUALIFIED.match(key):
            out.append(
                wrong("metadata.labels", key, "name part must consist of alphanumeric characters, '-', '_' or '.'")
            )
        if len(value) > 63:
            out.append(wrong("metadata.labels", value, "must be no more than 63 characters"))
        elif not _LABEL_VALUE.match(value):
            out.append(wrong("metadata.labels", value, LABEL_VALUE_RULE))
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        if not _QUALIFIED.match(key.lower()):
            why = "name part must consist of alphanumeric characters, '-', '_' or '.'"
            out.append(wrong("metadata.annotations", key, why))
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        message = "Too long: may not be more than 262144 bytes"
        out.append(Cause("FieldValueTooLong", "metadata.annotations", message))
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                out.append(required(f"metadata.ownerReferences[{index}].{key}", "must not be empty"))
    for finalizer in metadata.get("finalizers") or ():
        if not _QUALIFIED.match(finalizer):
            out.append(wrong("metadata.finalizers", finalizer, "name part must be non-empty"))
    return out


def _quantities(values: Any, field: str, out: list[Cause]) -> None:
    for key, value in (values or {}).items() if isinstance(values, dict) else ():
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not _QUANTITY.match(str(value)):
            why = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            out.append(wrong(f"{field}[{key}]", value, why))


def _as_text(values: Any) -> None:
    """Quantities given as numbers are stored as strings, as the API server does."""
    for key, value in (values or {}).items() if isinstance(values, dict) else ():
        if isinstance(value, int | float) and not isinstance(value, bool):
            values[key] = str(value)


def _namespace(obj: Object, old: Object | None) -> list[Cause]:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    if old is None:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
    else:
        obj["spec"] = old.get("spec") or {}
    return []


def _secret(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    data = dict(obj.get("data") or {})
    for key, value in data.items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise bad_request(
                'Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0'
            ) from None
        if not _KEY.match(key):
            out.append(wrong(f"data[{key}]", key, "a valid config key must consist of alphanumeric characters"))
    for key, value in (obj.pop("stringData", None) or {}).items():
        if not isinstance(value, str):
            raise bad_request('Secret in version "v1" cannot be handled as a Secret: stringData wants strings')
        data[key] = base64.b64encode(value.encode()).decode()
    if data or "data" in obj:
        obj["data"] = data
    obj.setdefault("type", "Opaque")
    if old is not None and old.get("type") != obj["type"]:
        out.append(wrong("type", obj["type"], "field is immutable"))
    if old is not None and old.get("immutable") and not same(old.get("data"), obj.get("data")):
        out.append(Cause("FieldValueForbidden", "data", "Forbidden: field is immutable when `immutable` is set"))
    return out


def _config_map(obj: Object, old: Object | None) -> list[Cause]:
    for value in (obj.get("data") or {}).values():
        if not isinstance(value, str):
            raise bad_request(
                'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal value into Go'
                " struct field ConfigMap.data of type string"
            )
    if old is not None and old.get("immutable") and not same(old.get("data"), obj.get("data")):
        return [Cause("FieldValueForbidden", "data", "Forbidden: field is immutable when `immutable` is set")]
    return []


def _claim(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    spec = obj.setdefault("spec", {})
    if not spec.get("accessModes"):
        out.append(required("spec.accessModes", "at least 1 access mode is required"))
    requests = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in requests:
        out.append(required("spec.resources[storage]"))
    _quantities(requests, "spec.resources.requests", out)
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("storageClassName", "standard")
    if old is None:
        obj["status"] = {"phase": "Pending"}
    else:
        before = old.get("spec") or {}
        if "volumeName" in before:
            spec.setdefault("volumeName", before["volumeName"])
        fixed = {key: value for key, value in spec.items() if key not in {"resources", "volumeName"}}
        if not same(fixed, {key: value for key, value in before.items() if key not in {"resources", "volumeName"}}):
            message = "Forbidden: spec is immutable after creation except resources.requests for bound claims"
            out.append(Cause("FieldValueForbidden", "spec", message))
    return out


def _pod_spec(spec: Object, path: str, out: list[Cause]) -> None:
    if not spec.get("containers"):
        out.append(required(f"{path}.containers"))
    for group in ("containers", "initContainers"):
        names: set[str] = set()
        for index, container in enumerate(spec.get(group) or ()):
            where = f"{path}.{group}[{index}]"
            name = container.get("name")
            if not name:
                out.append(required(f"{where}.name"))
            elif len(name) > 63 or not _LABEL.match(name):
                out.append(wrong(f"{where}.name", name, LABEL_RULE))
            if name in names:
                out.append(Cause("FieldValueDuplicate", f"{where}.name", f'Duplicate value: "{name}"'))
            names.add(name)
            image = container.get("image")
            if not image:
                out.append(required(f"{where}.image"))
                image = ""
            resources = container.setdefault("resources", {})
            for part in ("limits", "requests"):
                _quantities(resources.get(part), f"{where}.resources.{part}", out)
                _as_text(resources.get(part))
            latest = image.endswith(":latest") or ":" not in image.rpartition("/")[2]
            container.setdefault("imagePullPolicy", "Always" if latest and "@" not in image else "IfNotPresent")
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("terminationMessagePolicy", "File")
            for port in container.get("ports") or ():
                port.setdefault("protocol", "TCP")
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])


def _pod(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    spec = obj.setdefault("spec", {})
    _pod_spec(spec, "spec", out)
    spec.setdefault("serviceAccountName", "default")
    if old is None:
        obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    return out


def _deployment(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    spec = obj.setdefault("spec", {})
    selector = spec.get("selector") or {}
    template = spec.setdefault("template", {})
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        out.append(required("spec.selector"))
    elif any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        out.append(wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    replicas = spec.setdefault("replicas", 1)
    if isinstance(replicas, bool) or not isinstance(replicas, int):
        raise bad_request('Deployment in version "v1" cannot be handled as a Deployment: spec.replicas wants an int32')
    if replicas < 0:
        out.append(wrong("spec.replicas", replicas, "must be greater than or equal to 0"))
    spec.setdefault("progressDeadlineSeconds", 600)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    template.setdefault("metadata", {})
    _pod_spec(template.setdefault("spec", {}), "spec.template.spec", out)
    if old is not None and not same(old["spec"].get("selector"), selector):
        out.append(wrong("spec.selector", selector, "field is immutable"))
    return out


def _service(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    spec = obj.setdefault("spec", {})
    kind = spec.setdefault("type", "ClusterIP")
    if kind not in {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}:
        supported = 'supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'
        out.append(Cause("FieldValueNotSupported", "spec.type", f'Unsupported value: "{kind}": {supported}'))
    headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and kind != "ExternalName" and not headless:
        out.append(required("spec.ports"))
    for index, port in enumerate(spec.get("ports") or ()):
        number = port.get("port")
        if not isinstance(number, int) or not 0 < number < 65536:
            out.append(wrong(f"spec.ports[{index}].port", number, "must be between 1 and 65535, inclusive"))
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", number)
    spec.setdefault("sessionAffinity", "None")
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        before = (old or {}).get("spec", {}).get("clusterIP")
        if before and not spec.get("clusterIP"):
            spec["clusterIP"] = before
        elif before and spec["clusterIP"] != before:
            out.append(wrong("spec.clusterIPs[0]", spec["clusterIP"], "may not change once set"))
        if not spec.get("clusterIP"):
            seed = hashlib.sha256((obj["metadata"].get("uid") or obj["metadata"]["name"]).encode()).digest()
            spec["clusterIP"] = f"10.96.{seed[0]}.{seed[1] % 254 + 1}"
        spec["clusterIPs"] = [spec["clusterIP"]]
    if old is None:
        obj["status"] = {"loadBalancer": {}}
    return out


def _quota(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    hard = (obj.get("spec") or {}).get("hard")
    _quantities(hard, "spec.hard", out)
    _as_text(hard)
    if old is None and not out:
        obj["status"] = {"hard": dict(hard or {}), "used": dict.fromkeys(hard or {}, "0")}
    return out


def _limit_range(obj: Object, old: Object | None) -> list[Cause]:
    del old
    out: list[Cause] = []
    for index, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
        where = f"spec.limits[{index}]"
        if not limit.get("type"):
            out.append(required(f"{where}.type"))
        for part in ("default", "defaultRequest", "max", "min", "maxLimitRequestRatio"):
            _quantities(limit.get(part), f"{where}.{part}", out)
            _as_text(limit.get(part))
    return out


def _network_policy(obj: Object, old: Object | None) -> list[Cause]:
    del old
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if "egress" in spec else ["Ingress"])
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            for port in rule.get("ports") or ():
                port.setdefault("protocol", "TCP")
    return []


def _ingress(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    spec = obj.setdefault("spec", {})
    if not spec.get("rules") and not spec.get("defaultBackend"):
        out.append(wrong("spec", spec, "either `defaultBackend` or `rules` must be specified"))
    for index, rule in enumerate(spec.get("rules") or ()):
        for number, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            if path.get("pathType") not in {"Exact", "Prefix", "ImplementationSpecific"}:
                out.append(required(f"spec.rules[{index}].http.paths[{number}].pathType", "pathType must be specified"))
    if old is None:
        obj["status"] = {"loadBalancer": {}}
    return out


def _event(obj: Object, old: Object | None) -> list[Cause]:
    del old
    involved = obj.get("involvedObject") or {}
    if (involved.get("namespace") or "default") != obj["metadata"].get("namespace"):
        return [wrong("involvedObject.namespace", involved.get("namespace", ""), "does not match event.namespace")]
    return []


def _definition(obj: Object, old: Object | None) -> list[Cause]:
    out: list[Cause] = []
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    for key, value in (("group", spec.get("group")), ("scope", spec.get("scope")), ("versions", spec.get("versions"))):
        if not value:
            out.append(required(f"spec.{key}"))
    for key in ("kind", "plural"):
        if not names.get(key):
            out.append(required(f"spec.names.{key}"))
    if out:
        return out
    if spec["scope"] not in {"Namespaced", "Cluster"}:
        message = f'Unsupported value: "{spec["scope"]}": supported values: "Cluster", "Namespaced"'
        out.append(Cause("FieldValueNotSupported", "spec.scope", message))
    if obj["metadata"]["name"] != f"{names['plural']}.{spec['group']}":
        why = 'must be spec.names.plural+"."+spec.group'
        out.append(wrong("metadata.name", obj["metadata"]["name"], why))
    versions = spec["versions"]
    if sum(bool(version.get("storage")) for version in versions) != 1:
        message = "must have exactly one version marked as storage version"
        out.append(wrong("spec.versions", "versions", message))
    for index, version in enumerate(versions):
        where = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            out.append(required(where, "schemas are required"))
            continue
        out += structural.problems(schema, where)
        if isinstance(schema, dict) and schema.get("type") != "object":
            out.append(wrong(f"{where}.type", schema.get("type", ""), 'must be "object" at the root'))
    if old is not None:
        before = old["spec"]
        for key in ("group", "scope"):
            if before[key] != spec[key]:
                out.append(wrong(f"spec.{key}", spec[key], "field is immutable"))
    if out:
        return out
    try:
        from_definition(obj)
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as exc:
        # Stored all the same, it would keep the server from starting ever again.
        return [wrong("spec", "spec", f"cannot be served: {type(exc).__name__}: {exc}")]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    return out


_RULES: dict[str, Callable[[Object, Object | None], list[Cause]]] = {
    "namespaces": _namespace,
    "secrets": _secret,
    "configmaps": _config_map,
    "persistentvolumeclaims": _claim,
    "pods": _pod,
    "deployments.apps": _deployment,
    "services": _service,
    "resourcequotas": _quota,
    "limitranges": _limit_range,
    "networkpolicies.networking.k8s.io": _network_policy,
    "ingresses.networking.k8s.io": _ingress,
    "events": _event,
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
}


def complete(resource: Resource, obj: Object, old: Object | None) -> list[Cause]:
    """Fill in defaults in place and say what is wrong.

    Raises:
        StatusError: 400 for what does not even decode.
    """
    rule = _RULES.get(resource.storage)
    if rule is None:
        return []
    try:
        return rule(obj, old)
    except (AttributeError, TypeError, KeyError, ValueError) as exc:
        # A mapping where a list belongs, or the like: a real server fails to decode it.
        kind = f'{resource.kind} in version "{resource.version}"'
        raise bad_request(f"{kind} cannot be handled as a {resource.kind}: json: cannot unmarshal: {exc}") from exc
