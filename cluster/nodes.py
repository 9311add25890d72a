"""What the cluster's nodes have and use, as the metrics API says (metrics-server or its like)."""

from dataclasses import dataclass

from cluster.client import cluster_client
from cluster.quantities import parse_quantity
from cluster.resources import Resource

NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", namespaced=False)


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """All nodes together; CPU in cores, memory in bytes."""

    cpu_used: float
    cpu_total: float
    memory_used: int
    memory_total: int


def node_usage() -> NodeUsage | None:
    """What all nodes that report metrics use, and may use at most; None where the cluster has no metrics API.

    Raises:
        KubeTransientError, KubeRefusedError: the cluster is away, or does not let us look.
    """
    client = cluster_client()
    status, body = client.request("GET", NODE_METRICS.path(""))
    if status == 404 or not body.get("items"):
        return None
    used = {item["metadata"]["name"]: item.get("usage") or {} for item in body["items"]}
    cpu_used = cpu_total = memory_used = memory_total = parse_quantity("0")
    for page, _ in client.list_pages(NODES):
        for node in page:
            usage = used.get(node["metadata"]["name"])
            if usage is None:
                continue
            has = (node.get("status") or {}).get("allocatable") or {}
            cpu_used += parse_quantity(usage.get("cpu", "0"))
            memory_used += parse_quantity(usage.get("memory", "0"))
            cpu_total += parse_quantity(has.get("cpu", "0"))
            memory_total += parse_quantity(has.get("memory", "0"))
    if not cpu_total:
        return None
    return NodeUsage(float(cpu_used), float(cpu_total), int(memory_used), int(memory_total))
