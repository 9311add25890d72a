"""The controllers: a fleet that looks alive."""

from __future__ import annotations

from typing import Any

from devstack.tests.clusterclient import MERGE, Cluster, Object, deployment, until


def condition(obj: Object, kind: str) -> str:
    conditions = obj.get("status", {}).get("conditions", [])
    return next((str(c["status"]) for c in conditions if c["type"] == kind), "")


def test_deployment_becomes_available_scales_and_goes(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    pods = f"/api/v1/namespaces/{namespace}/pods"
    cluster.ok("POST", path, deployment("web", replicas=2))
    ready = until(lambda: obj if condition(obj := cluster.get(f"{path}/web"), "Available") == "True" else None)
    assert ready is not None
    assert ready["status"]["availableReplicas"] == 2
    assert ready["status"]["observedGeneration"] == ready["metadata"]["generation"] == 1
    running = cluster.get(f"{pods}?labelSelector=app%3Dweb")["items"]
    assert [pod["status"]["phase"] for pod in running] == ["Running", "Running"]
    assert all(condition(pod, "Ready") == "True" for pod in running)
    scale = cluster.ok("PATCH", f"{path}/web/scale", {"spec": {"replicas": 0}}, kind=MERGE)
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 0)
    until(lambda: not cluster.get(pods)["items"])
    cluster.ok("PUT", f"{path}/web/scale", {**scale, "metadata": {"name": "web"}, "spec": {"replicas": 1}})
    until(lambda: len(cluster.get(pods)["items"]) == 1)
    cluster.ok("DELETE", f"{path}/web")
    until(lambda: not cluster.get(pods)["items"])


def test_new_template_replaces_the_pods(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    cluster.ok("POST", path, deployment("web"))

    def images() -> list[Any]:
        items = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return [item["spec"]["containers"][0]["image"] for item in items]

    until(lambda: images() == ["web:1"])
    cluster.ok("PUT", f"{path}/web", deployment("web", "web:2"))
    until(lambda: images() == ["web:2"])


def test_image_that_cannot_be_pulled(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    cluster.ok("POST", path, deployment("bad", "fail:nothing"))
    events = f"/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.kind%3DPod"
    found = until(lambda: cluster.get(events)["items"])
    assert (found[0]["reason"], found[0]["type"]) == ("Failed", "Warning")
    pod = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"][0]
    assert pod["status"]["phase"] == "Pending"
    assert pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert condition(cluster.get(f"{path}/bad"), "Available") == "False"


def test_claim_is_bound(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    cluster.ok("POST", path, {"metadata": {"name": "c"}, "spec": spec})
    bound = until(lambda: obj if (obj := cluster.get(f"{path}/c"))["status"]["phase"] == "Bound" else None)
    assert bound is not None
    assert bound["status"]["capacity"] == {"storage": "1Gi"}


def test_namespace_has_a_default_account(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    first = cluster.get(path)["metadata"]["uid"]
    assert cluster.ok("DELETE", path)["kind"] == "ServiceAccount"
    until(lambda: not cluster.gone(path))
    assert cluster.get(path)["metadata"]["uid"] != first


def test_pod_without_an_owner_runs_and_a_collected_one_does_not_return(cluster: Cluster, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    spec = {"containers": [{"name": "a", "image": "a:1"}]}
    cluster.ok("POST", pods, {"metadata": {"name": "alone"}, "spec": spec})
    lost = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"}
    cluster.ok("POST", pods, {"metadata": {"name": "lost", "ownerReferences": [lost]}, "spec": spec})
    until(lambda: cluster.get(f"{pods}/alone")["status"]["phase"] == "Running")
    until(lambda: cluster.gone(f"{pods}/lost"))
