"""Other people at the cluster: what kubectl and controllers do to our objects, for tests."""

import time
from collections.abc import Callable
from typing import Any

from cluster.client import MERGE_PATCH, ClusterClient, cluster_client
from cluster.resources import ROW_ID, TENANTS, KubeObject, Resource

WAIT_SECONDS = 60.0


def eventually(what: str, holds: Callable[[], Any]) -> Any:
    """Wait until something holds; what it gave."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


class Kubectl:
    """Acts on custom resources under a field manager of its own, as `kubectl edit` and friends do."""

    def __init__(self, resource: Resource = TENANTS, manager: str = "kubectl-edit") -> None:
        self.resource = resource
        self.manager = manager

    @property
    def client(self) -> ClusterClient:
        return cluster_client()

    def get(self, name: str) -> KubeObject | None:
        return self.client.get(self.resource, name)

    def spec(self, name: str) -> dict[str, Any]:
        live = self.get(name)
        assert live is not None, f"the cluster has no {self.resource.plural} {name}"
        return live["spec"]

    def edit(self, name: str, body: dict[str, Any], subresource: str = "") -> KubeObject:
        """A merge patch; None removes a field."""
        path = self.resource.path(self.client.namespace, name, subresource)
        status, live = self.client.request(
            "PATCH", path, query={"fieldManager": self.manager}, body=body, content_type=MERGE_PATCH
        )
        assert status == 200, live
        return live

    def set_status(self, name: str, **status: Any) -> KubeObject:
        return self.edit(name, {"status": status}, "status")

    def create(self, name: str, spec: dict[str, Any], *, row_id: str = "", **metadata: Any) -> KubeObject:
        if row_id:
            metadata["annotations"] = {ROW_ID: row_id}
        body = {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        path = self.resource.path(self.client.namespace)
        status, live = self.client.request("POST", path, query={"fieldManager": self.manager}, body=body)
        assert status == 201, live
        return live

    def delete(self, name: str) -> None:
        path = self.resource.path(self.client.namespace, name)
        status, answer = self.client.request("DELETE", path)
        assert status == 200, answer

    def names(self) -> set[str]:
        pages = self.client.list_pages(self.resource)
        return {live["metadata"]["name"] for page, _ in pages for live in page}
