"""Drift over time and its alert; the metrics of nodes, where a cluster has them."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from cluster.client import cluster_client
from cluster.models import DriftEvaluation
from cluster.nodes import NODE_METRICS, NODES
from cluster.resources import ACCESS_POLICIES, CRDS
from conftest import ApiClient
from operations.models import DriftSample, ServerSample
from operations.services.server_metrics import take_sample
from operations.tasks import evaluate_drift
from operations.tests.receiver import Receiver
from tests.cluster.conftest import ANNA, OwnCluster
from tests.cluster.kube import Kubectl

QUIET = {"driftCount": 0, "pendingCount": 0, "maxProjectionLagSeconds": 0.0, "error": None}


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    stub = Receiver()
    settings.DRIFT_WEBHOOK_URL = stub.url
    yield stub
    stub.close()


@pytest.fixture
def fleet(api: ApiClient, kubectl: Kubectl) -> Kubectl:
    """Anna and Ben, in step with the cluster."""
    client = cluster_client()
    client.request("DELETE", ACCESS_POLICIES.path(client.namespace))
    for name in ("anna", "ben"):
        assert api.post("/tenants", ANNA | {"name": name}).status_code == 201
    return kubectl


def refreshed(api: ApiClient) -> dict[str, Any]:
    response = api.get("/api/v1/metrics/projection-drift?refresh=true")
    assert response.status_code == 200, response.content
    return response.json()


def test_the_first_request_evaluates_and_the_next_ones_do_not(api: ApiClient, fleet: Kubectl) -> None:
    first = api.get("/api/v1/metrics/projection-drift").json()
    assert first["tenant"] == first["tenant"] | QUIET | {"sourceCount": 2, "projectionCount": 2}
    assert first["accessPolicy"] == first["accessPolicy"] | QUIET | {"sourceCount": 0, "projectionCount": 0}
    assert (first["alertFired"], first["threshold"]) == (False, 0)
    fleet.edit("anna", {"spec": {"team": "green"}})
    assert api.get("/api/v1/metrics/projection-drift").json() == first
    assert refreshed(api)["tenant"]["driftCount"] == 1
    history = api.get("/api/v1/metrics/projection-drift/history").json()
    assert max(point["driftCount"] for point in history if point["kind"] == "Tenant") == 1
    assert DriftSample.objects.filter(kind="Tenant").count() == 2


def test_crossing_the_threshold_is_told_once_and_again_after_it_was_below(
    api: ApiClient, fleet: Kubectl, receiver: Receiver, settings: Any
) -> None:
    settings.PROJECTION_DRIFT_ALERT_THRESHOLD = 2
    fleet.edit("anna", {"spec": {"team": "green"}})
    evaluate_drift("Tenant")
    assert receiver.received == []
    fleet.edit("ben", {"spec": {"team": "green"}})
    evaluate_drift("Tenant")
    evaluate_drift("Tenant")
    assert len(receiver.received) == 1
    told = orjson.loads(receiver.received[0].body)
    assert (told["type"], told["data"]["driftCount"], told["data"]["threshold"]) == ("drift.threshold_crossed", 2, 2)
    shown = api.get("/api/v1/metrics/projection-drift").json()
    assert (shown["alertFired"], shown["threshold"]) == (True, 2)
    api.post("/tenants/repair?dryRun=false")
    evaluate_drift("Tenant")
    assert api.get("/api/v1/metrics/projection-drift").json()["alertFired"] is False
    assert len(receiver.received) == 1
    for name in ("anna", "ben"):
        fleet.edit(name, {"spec": {"team": "red"}})
    evaluate_drift("Tenant")
    assert len(receiver.received) == 2


def test_lag_is_the_age_of_the_oldest_write_in_flight(api: ApiClient, fleet: Kubectl, no_worker: Any) -> None:
    assert api.put("/tenants/anna", {"team": "blue"}).status_code == 504
    found = refreshed(api)["tenant"]
    assert (found["pendingCount"], found["driftCount"]) == (1, 0)
    assert found["maxProjectionLagSeconds"] > 0
    no_worker()
    assert refreshed(api)["tenant"]["maxProjectionLagSeconds"] == 0


def test_a_cluster_that_is_away_is_a_502_and_no_alert(
    api: ApiClient, own_cluster: OwnCluster, receiver: Receiver, settings: Any
) -> None:
    settings.PROJECTION_DRIFT_ALERT_THRESHOLD = 1
    refreshed(api)
    own_cluster.stop()
    response = api.get("/api/v1/metrics/projection-drift?refresh=true")
    assert (response.status_code, response.json()["code"]) == (502, "UPSTREAM_ERROR")
    still = api.get("/api/v1/metrics/projection-drift")
    assert still.status_code == 200
    assert still.json()["tenant"]["error"]
    assert receiver.received == []
    DriftEvaluation.objects.all().delete()
    assert api.get("/api/v1/metrics/projection-drift").status_code == 502


def test_nodes_are_sampled_where_the_cluster_has_their_metrics(api: ApiClient, own_cluster: OwnCluster) -> None:
    client = cluster_client()
    kind = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "nodes.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io",
            "names": {"kind": "NodeMetrics", "plural": "nodes"},
            "scope": "Cluster",
            "versions": [{"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": kind}}],
        },
    }
    client.create(CRDS, definition)
    here = {node["metadata"]["name"] for page, _ in client.list_pages(NODES) for node in page}
    for name, cpu, memory in (("one", "1500m", "1Gi"), ("two", "500000000n", "512Mi")):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        client.create(NODES, node)
        status = {"status": {"allocatable": {"cpu": "4", "memory": "3Gi"}}}
        client.apply(NODES, node | status, force=True, subresource="status")
        usage = {"usage": {"cpu": cpu, "memory": memory}, "window": "20s"}
        body = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics", "metadata": {"name": name}}
        client.create(NODE_METRICS, body | usage)
    assert not here & {"one", "two"}
    assert take_sample() is not None
    shown = api.get("/api/v1/metrics/server").json()
    assert shown == shown | {
        "source": "metrics.k8s.io",
        "cpuPercent": 25.0,
        "memoryUsedBytes": 1536 * 1024**2,
        "memoryTotalBytes": 6 * 1024**3,
    }
    own_cluster.stop()
    ServerSample.objects.all().delete()
    take_sample()
    assert api.get("/api/v1/metrics/server").json()["source"] == "host"
