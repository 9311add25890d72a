"""The official Python client, as the `cluster` app uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, watch

from devstack.tests.clusterclient import APPLY, Cluster, deployment, tenant, until

TENANTS = ("opencrane.io", "v1alpha1")


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Any]:
    """An ApiClient from the kubeconfig."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as made:
        yield made


@pytest.fixture
def custom(api: Any) -> Any:
    return client.CustomObjectsApi(api)


@pytest.fixture
def core(api: Any) -> Any:
    return client.CoreV1Api(api)


def test_custom_objects(custom: Any, namespace: str) -> None:
    where = (*TENANTS, namespace, "tenants")
    made = custom.create_namespaced_custom_object(*where, tenant("a"))
    assert made["metadata"]["uid"]
    more = {"field_manager": "m", "_content_type": APPLY, "_preload_content": False}
    applied = custom.patch_namespaced_custom_object(*where, "b", tenant("b"), **more)
    assert (applied.status, json.loads(applied.data)["metadata"]["name"]) == (201, "b")
    names, token = [], None
    while token != "":
        page = custom.list_namespaced_custom_object(*where, limit=1, **({"_continue": token} if token else {}))
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
    assert names == ["a", "b"]
    patched = custom.patch_namespaced_custom_object(
        *where, "a", {"spec": {"team": "x"}}, _content_type="application/merge-patch+json"
    )
    assert patched["spec"]["team"] == "x"
    status = custom.patch_namespaced_custom_object_status(
        *where, "a", {"status": {"phase": "Running"}}, _content_type="application/merge-patch+json"
    )
    assert status["status"]["phase"] == "Running"
    with pytest.raises(client.ApiException) as failure:
        custom.create_namespaced_custom_object(*where, tenant("c", email="x"))
    assert failure.value.status == 422
    assert custom.delete_namespaced_custom_object(*where, "a")["status"] == "Success"
    with pytest.raises(client.ApiException) as failure:
        custom.get_namespaced_custom_object(*where, "a")
    assert failure.value.status == 404


def test_watch_and_its_resumption(custom: Any, namespace: str) -> None:
    where = (*TENANTS, namespace, "tenants")
    custom.create_namespaced_custom_object(*where, tenant("a"))
    stream = watch.Watch()
    for event in stream.stream(custom.list_namespaced_custom_object, *where, timeout_seconds=10):
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")
        break
    version = event["object"]["metadata"]["resourceVersion"]
    custom.delete_namespaced_custom_object(*where, "a")
    again = watch.Watch()
    for event in again.stream(
        custom.list_namespaced_custom_object, *where, resource_version=version, timeout_seconds=10
    ):
        assert event["type"] == "DELETED"
        break


def test_typed_kinds(api: Any, core: Any, namespace: str) -> None:
    apps = client.AppsV1Api(api)
    made = apps.create_namespaced_deployment(namespace, deployment("web"))
    assert made.spec.replicas == 1
    until(lambda: apps.read_namespaced_deployment("web", namespace).status.available_replicas == 1)
    (pod,) = core.list_namespaced_pod(namespace).items
    assert pod.status.phase == "Running"
    assert core.delete_namespaced_pod(pod.metadata.name, namespace).metadata.name == pod.metadata.name
    apps.delete_namespaced_deployment("web", namespace)
    with pytest.raises(client.ApiException) as failure:
        apps.read_namespaced_deployment("web", namespace)
    assert failure.value.status == 404
    apps.create_namespaced_deployment(namespace, deployment("bad", "fail:x"))

    def failures() -> list[client.CoreV1Event]:
        return core.list_namespaced_event(namespace, field_selector="type=Warning").items

    (event,) = until(failures)
    assert (event.reason, event.involved_object.kind) == ("Failed", "Pod")
    body = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"a": "b"})
    assert core.create_namespaced_secret(namespace, body).data == {"a": "Yg=="}
    assert core.read_namespaced_secret("s", namespace).type == "Opaque"
    assert core.read_namespace(namespace).status.phase == "Active"
    assert [node.metadata.name for node in core.list_node().items] == ["development-node"]


def test_every_kind_can_be_listed(api: Any, core: Any) -> None:
    networking, coordination = client.NetworkingV1Api(api), client.CoordinationV1Api(api)
    for listing in (
        core.list_namespace,
        core.list_config_map_for_all_namespaces,
        core.list_secret_for_all_namespaces,
        core.list_service_account_for_all_namespaces,
        core.list_service_for_all_namespaces,
        core.list_persistent_volume_claim_for_all_namespaces,
        core.list_resource_quota_for_all_namespaces,
        core.list_limit_range_for_all_namespaces,
        core.list_event_for_all_namespaces,
        networking.list_ingress_for_all_namespaces,
        networking.list_network_policy_for_all_namespaces,
        coordination.list_lease_for_all_namespaces,
        client.ApiextensionsV1Api(api).list_custom_resource_definition,
    ):
        assert listing().metadata.resource_version


def test_tokens(api: Any, core: Any, namespace: str) -> None:
    spec = client.V1TokenRequestSpec(audiences=["opencrane"], expiration_seconds=600)
    request = client.AuthenticationV1TokenRequest(spec=spec)
    token = core.create_namespaced_service_account_token("default", namespace, request).status.token
    reviews = client.AuthenticationV1Api(api)

    def review(audience: str) -> Any:
        asked = client.V1TokenReviewSpec(token=token, audiences=[audience])
        return reviews.create_token_review(client.V1TokenReview(spec=asked)).status

    good, bad = review("opencrane"), review("other")
    assert (good.authenticated, good.audiences) == (True, ["opencrane"])
    assert good.user.username == f"system:serviceaccount:{namespace}:default"
    assert bad.authenticated is None
    assert bad.error
