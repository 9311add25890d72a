"""`kubectl get`: objects as rows of a meta.k8s.io/v1 Table."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from devstack.cluster.kinds import Column, Resource

Object = dict[str, Any]

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\]\\])+)|\[\?\(@\.(?P<key>[^=\s)]+)\s*==\s*['"](?P<value>[^'"]*)['"]\)\]"""
    r"""|\[(?P<index>-?\d+)\]|\['(?P<quoted>[^']+)'\]|(?P<all>\[\*\])"""
)


def json_path(obj: Any, path: str) -> list[Any]:
    """The values at a JSONPath: names, [n], [*], ['name'] and [?(@.key=="value")]."""
    found = [obj]
    for step in _STEP.finditer(path):
        following: list[Any] = []
        name = step["quoted"] or (step["name"] or "").replace("\\", "")
        for node in found:
            if name:
                if isinstance(node, dict) and name in node:
                    following.append(node[name])
            elif not isinstance(node, list):
                continue
            elif step["all"]:
                following.extend(node)
            elif step["index"]:
                index = int(step["index"])
                following.extend(node[index : index + 1 or None])
            else:
                following.extend(i for i in node if isinstance(i, dict) and str(i.get(step["key"])) == step["value"])
        found = following
    return found


def age(stamp: Any) -> str:
    """`5d`, `3h12m`, as kubectl writes durations."""
    try:
        since = datetime.fromisoformat(str(stamp))
    except ValueError:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y{days % 365}d"


def _pod_ready(pod: Object) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    ready = sum(bool(status.get("ready")) for status in statuses)
    return f"{ready}/{len((pod.get('spec') or {}).get('containers') or [])}"


def _pod_phase(pod: Object) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return str(waiting["reason"])
    return str(status.get("phase", "Unknown"))


def _pod_restarts(pod: Object) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return str(sum(status.get("restartCount", 0) for status in statuses))


def _deployment_ready(deployment: Object) -> str:
    status = deployment.get("status") or {}
    return f"{status.get('readyReplicas', 0)}/{(deployment.get('spec') or {}).get('replicas', 1)}"


def _service_ports(service: Object) -> str:
    ports = (service.get("spec") or {}).get("ports") or []
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _ingress_hosts(ingress: Object) -> str:
    rules = (ingress.get("spec") or {}).get("rules") or []
    return ",".join(rule["host"] for rule in rules if rule.get("host")) or "*"


def _ingress_address(ingress: Object) -> str:
    points = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return ",".join(point.get("ip") or point.get("hostname", "") for point in points)


def _quota(part: str) -> Callable[[Object], str]:
    def shown(quota: Object) -> str:
        status = quota.get("status") or {}
        used = status.get("used") or {}
        limits = part == "limits"
        hard = {k: v for k, v in (status.get("hard") or {}).items() if k.startswith("limits.") is limits}
        return ", ".join(f"{key}: {used.get(key, '0')}/{value}" for key, value in sorted(hard.items()))

    return shown


def _pod_selector(policy: Object) -> str:
    labels = ((policy.get("spec") or {}).get("podSelector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"


def _event_object(event: Object) -> str:
    involved = event.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _node_status(node: Object) -> str:
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return "Ready" if ready else "NotReady"


def _node_roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    return ",".join(sorted(key[len(prefix) :] for key in labels if key.startswith(prefix))) or "<none>"


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}

_CELLS: dict[str, Callable[[Object], Any]] = {
    "pod_ready": _pod_ready,
    "pod_phase": _pod_phase,
    "pod_restarts": _pod_restarts,
    "deployment_ready": _deployment_ready,
    "updated_count": lambda obj: (obj.get("status") or {}).get("updatedReplicas", 0),
    "available_count": lambda obj: (obj.get("status") or {}).get("availableReplicas", 0),
    "data_count": lambda obj: len(obj.get("data") or {}) + len(obj.get("binaryData") or {}),
    "secret_count": lambda obj: len(obj.get("secrets") or []),
    "access_modes": lambda obj: ",".join(_MODES.get(m, m) for m in (obj.get("spec") or {}).get("accessModes") or []),
    "service_ports": _service_ports,
    "ingress_hosts": _ingress_hosts,
    "ingress_address": _ingress_address,
    "ingress_ports": lambda obj: "80, 443" if (obj.get("spec") or {}).get("tls") else "80",
    "quota_requests": _quota("requests"),
    "quota_limits": _quota("limits"),
    "pod_selector": _pod_selector,
    "event_object": _event_object,
    "node_status": _node_status,
    "node_roles": _node_roles,
    "creation_time": lambda obj: obj["metadata"].get("creationTimestamp"),
    "none": lambda obj: "<none>",
}


def cell(obj: Object, column: Column, *, custom: bool) -> Any:
    """What stands in one column for one object."""
    if not column.path.startswith((".", "[")):
        return _CELLS[column.path](obj)
    values = json_path(obj, column.path)
    if column.type == "date":
        return age(values[0]) if values and values[0] else "<unknown>"
    if not values or values[0] is None:
        return None if custom else ""
    value = values[0]
    if column.type == "string":
        return " ".join(item if isinstance(item, str) else orjson.dumps(item).decode() for item in values)
    return value


def row(resource: Resource, obj: Object, include: str) -> Object:
    cells = [cell(obj, column, custom=resource.custom) for column in resource.columns]
    out: Object = {"cells": cells}
    if include == "Object":
        out["object"] = obj
    elif include != "None":
        out["object"] = partial(obj)
    return out


def partial(obj: Object) -> Object:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def table(resource: Resource, rows: list[Object], metadata: Object, *, columns: bool = True) -> Object:
    definitions = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in resource.columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions if columns else None,
        "rows": rows,
    }
