"""Events about tenants, for `kubectl describe` and whoever collects them. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

import hashlib
from typing import Any

from cluster.resources import EVENTS, OPERATOR, KubeObject
from workloads.observed import EventView


def event_manifest(tenant: KubeObject, event: EventView) -> KubeObject:
    """The object for an event. What happens again has the same name, so that it is counted and not told twice."""
    metadata = tenant["metadata"]
    said = "\0".join((metadata["uid"], event.type, event.reason, event.message))
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": tenant["apiVersion"],
            "kind": tenant["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "count": 1,
        "firstTimestamp": event.at,
        "lastTimestamp": event.at,
        "source": {"component": OPERATOR},
        "reportingComponent": OPERATOR,
        "reportingInstance": OPERATOR,
    }


def again_patch(live: KubeObject, at: str) -> list[dict[str, Any]]:
    """A JSON patch that counts an event once more."""
    return [
        {"op": "add", "path": "/count", "value": int(live.get("count") or 1) + 1},
        {"op": "add", "path": "/lastTimestamp", "value": at},
    ]
