"""Create, read, replace, patch and delete, with the refusals of a real API server."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from devstack.tests.clusterclient import (
    APPLY,
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    Cluster,
    config_map,
    deployment,
    owned_by,
    tenant,
    until,
)


def test_created_object_gets_its_server_fields(cluster: Cluster, tenants: str) -> None:
    body = tenant("a")
    body["metadata"]["uid"] = "mine"
    body["status"] = {"phase": "Running"}
    status, made = cluster.call("POST", tenants, body)
    metadata = made["metadata"]
    assert status == 201
    assert metadata["generation"] == 1
    assert len(metadata["uid"]) == 36
    assert metadata["creationTimestamp"].endswith("Z")
    assert "status" not in made
    assert made == cluster.get(f"{tenants}/a")


def test_versions_come_from_one_growing_counter(cluster: Cluster, tenants: str, maps: str) -> None:
    made = [cluster.ok("POST", tenants, tenant("a")), cluster.ok("POST", maps, config_map("b"))]
    made.append(cluster.ok("PATCH", f"{tenants}/a", {"spec": {"team": "x"}}, kind=MERGE))
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in made]
    assert versions == sorted(set(versions))


def test_generate_name(cluster: Cluster, maps: str) -> None:
    names = {cluster.ok("POST", maps, {"metadata": {"generateName": "x-"}})["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("x-") and len(name) == 7 for name in names)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (tenant("taken"), 409, "AlreadyExists"),
        (tenant("Upper"), 422, "Invalid"),
        (tenant("x" * 60), 422, "Invalid"),
        ({**tenant("a"), "metadata": {}}, 422, "Invalid"),
        ({**tenant("a"), "metadata": {"name": "a", "labels": {"k": "not a label"}}}, 422, "Invalid"),
        ({**tenant("a"), "metadata": {"name": "a", "labels": {"k": 5}}}, 400, "BadRequest"),
        ({**tenant("a"), "metadata": {"name": "a", "namespace": "elsewhere"}}, 400, "BadRequest"),
        ({**tenant("a"), "metadata": {"name": "a", "resourceVersion": "5"}}, 400, "BadRequest"),
        ({**tenant("a"), "apiVersion": "v1"}, 400, "BadRequest"),
        ({**tenant("a"), "kind": ""}, 400, "BadRequest"),
        ([], 400, "BadRequest"),
        (b"{", 400, "BadRequest"),
        (b'{"a": "\\ud800"}', 400, "BadRequest"),
        (b"", 400, "BadRequest"),
    ],
)
def test_refused_creates(cluster: Cluster, tenants: str, body: Any, code: int, reason: str) -> None:
    cluster.ok("POST", tenants, tenant("taken"))
    status, answer = cluster.call("POST", tenants, body)
    assert (status, answer["kind"], answer["code"], answer["reason"]) == (code, "Status", code, reason)
    assert [item["metadata"]["name"] for item in cluster.get(tenants)["items"]] == ["taken"]


def test_namespace_must_exist(cluster: Cluster) -> None:
    status, answer = cluster.call("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a"))
    assert (status, answer["details"]["kind"], answer["details"]["name"]) == (404, "namespaces", "nowhere")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/apis/no.such.group/v1", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/none", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/none/status", 404),
        ("PUT", "/api/v1/namespaces/default/configmaps", 405),
        ("POST", "/api/v1/configmaps", 405),
        ("DELETE", "/apis", 405),
        ("GET", "/apis/authentication.k8s.io/v1/tokenreviews", 405),
    ],
)
def test_paths_and_methods(cluster: Cluster, method: str, path: str, code: int) -> None:
    status, answer = cluster.call(method, path, {} if method != "GET" else None)
    assert (status, answer["kind"], answer["code"]) == (code, "Status", code)


def test_media_types_and_limits(cluster: Cluster, maps: str) -> None:
    assert cluster.call("POST", maps, b"x", kind="text/plain")[0] == 415
    assert cluster.call("POST", maps, b"x", kind="application/vnd.kubernetes.protobuf")[0] == 400
    assert cluster.call("PATCH", f"{maps}/a", {}, kind="application/json")[0] == 415
    assert cluster.call("GET", maps, headers={"accept": "application/vnd.kubernetes.protobuf"})[0] == 406
    fallback = {"accept": "application/vnd.kubernetes.protobuf, application/json"}
    assert cluster.call("GET", maps, headers=fallback)[0] == 200
    status, answer = cluster.call("POST", maps, config_map("big", x="x" * (4 * 1024 * 1024)))
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")
    text = b"metadata: {name: from-yaml}\ndata: {day: '2026-01-01', when: 2026-01-01}\n"
    assert cluster.ok("POST", maps, text, kind="application/yaml")["data"] == {
        "day": "2026-01-01",
        "when": "2026-01-01",
    }
    head = cluster.raw("HEAD", f"{maps}/from-yaml")
    assert (head.status, head.data) == (200, b"")


def test_replace_wants_the_present_version(cluster: Cluster, tenants: str) -> None:
    first = cluster.ok("POST", tenants, tenant("a"))
    second = cluster.ok("PUT", f"{tenants}/a", {**first, "spec": {**first["spec"], "team": "x"}})
    assert second["metadata"]["generation"] == 2
    status, answer = cluster.call("PUT", f"{tenants}/a", {**first, "spec": {**first["spec"], "team": "y"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert "the object has been modified" in answer["message"]
    other = {**second, "metadata": {**second["metadata"], "uid": "0000"}}
    assert cluster.call("PUT", f"{tenants}/a", other)[0] == 409
    unversioned = {**second, "metadata": {"name": "a"}}
    assert cluster.call("PUT", f"{tenants}/a", unversioned)[0] == 422
    renamed = {**second, "metadata": {**second["metadata"], "name": "b"}}
    assert cluster.call("PUT", f"{tenants}/a", renamed)[0] == 400
    assert cluster.call("PUT", f"{tenants}/none", tenant("none"))[0] == 404
    assert cluster.get(f"{tenants}/a") == second


def test_server_owned_metadata_cannot_be_changed(cluster: Cluster, tenants: str) -> None:
    first = cluster.ok("POST", tenants, tenant("a"))
    patch = {
        "metadata": {
            "creationTimestamp": "2001-01-01T00:00:00Z",
            "generation": 77,
            "deletionTimestamp": "2001-01-01T00:00:00Z",
        }
    }
    assert cluster.ok("PATCH", f"{tenants}/a", patch, kind=MERGE) == first


def test_nothing_changed_keeps_the_version(cluster: Cluster, tenants: str) -> None:
    first = cluster.ok("POST", tenants, tenant("a", team="x"))
    assert cluster.ok("PUT", f"{tenants}/a", first) == first
    assert cluster.ok("PATCH", f"{tenants}/a", {"spec": {"team": "x"}}, kind=MERGE) == first
    assert cluster.ok("PATCH", f"{tenants}/a", [], kind=JSON_PATCH) == first


def test_true_is_not_one(cluster: Cluster, tenants: str) -> None:
    first = cluster.ok("POST", tenants, tenant("a", configOverrides={"on": 1}))
    second = cluster.ok("PATCH", f"{tenants}/a", {"spec": {"configOverrides": {"on": True}}}, kind=MERGE)
    assert second["spec"]["configOverrides"] == {"on": True}
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]


def test_json_patch(cluster: Cluster, tenants: str) -> None:
    cluster.ok("POST", tenants, tenant("a", skillAllowlist=["x"]))
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": "/spec/displayName", "value": "A"},
        {"op": "add", "path": "/spec/skillAllowlist/-", "value": "y"},
        {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "1"}},
        {"op": "copy", "from": "/spec/displayName", "path": "/spec/team"},
        {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "2"},
    ]
    after = cluster.ok("PATCH", f"{tenants}/a", patch, kind=JSON_PATCH)
    assert after["spec"]["skillAllowlist"] == ["x", "y"]
    assert after["spec"]["team"] == "A"
    assert after["metadata"]["annotations"] == {"a/b": "2"}


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ([{"op": "test", "path": "/spec/displayName", "value": "B"}], 422),
        ([{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}], 422),
        ([{"op": "remove", "path": "/spec/nothing"}], 422),
        ([{"op": "replace", "path": "/metadata/name", "value": "b"}], 422),
        ([{"op": "fly", "path": "/spec"}], 400),
        ({"op": "test"}, 400),
    ],
)
def test_refused_json_patches(cluster: Cluster, tenants: str, patch: Any, code: int) -> None:
    first = cluster.ok("POST", tenants, tenant("a"))
    status, answer = cluster.call("PATCH", f"{tenants}/a", patch, kind=JSON_PATCH)
    assert (status, answer["reason"]) == (code, {422: "Invalid", 400: "BadRequest"}[code])
    assert cluster.get(f"{tenants}/a") == first


def test_merge_patch_removes_with_null_and_honours_the_version(cluster: Cluster, tenants: str) -> None:
    first = cluster.ok("POST", tenants, tenant("a", team="x"))
    stale = {"metadata": {"resourceVersion": "1"}, "spec": {"team": "y"}}
    assert cluster.call("PATCH", f"{tenants}/a", stale, kind=MERGE)[0] == 409
    fresh = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "spec": {"team": None}}
    assert "team" not in cluster.ok("PATCH", f"{tenants}/a", fresh, kind=MERGE)["spec"]
    assert cluster.call("PATCH", f"{tenants}/a", {}, kind=STRATEGIC)[0] == 415


def test_strategic_merge_goes_by_container_name(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    body = deployment("web", replicas=0)
    body["spec"]["template"]["spec"]["containers"] = [
        {"name": "main", "image": "web:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "side", "image": "side:1"},
    ]
    cluster.ok("POST", path, body)
    containers = [
        {"name": "main", "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}]},
        {"name": "side", "$patch": "delete"},
        {"name": "new", "image": "new:1"},
    ]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    after = cluster.ok("PATCH", f"{path}/web", patch, kind=STRATEGIC)["spec"]["template"]["spec"]["containers"]
    assert [(item["name"], item["image"]) for item in after] == [("main", "web:1"), ("new", "new:1")]
    assert after[0]["env"] == [{"name": "B", "value": "3"}]


@pytest.mark.parametrize("way", ["post", "put", "patch", "apply", "delete"])
def test_dry_run_changes_nothing(cluster: Cluster, tenants: str, way: str) -> None:
    first = cluster.ok("POST", tenants, tenant("a"))
    changed = {**first, "spec": {**first["spec"], "team": "x"}}
    if way == "post":
        made = cluster.ok("POST", f"{tenants}?dryRun=All", tenant("b"))
        assert made["metadata"]["uid"]
        assert cluster.gone(f"{tenants}/b")
        assert cluster.call("POST", f"{tenants}?dryRun=All", tenant("b", monthlyBudgetUsd=-1))[0] == 422
    elif way == "put":
        assert cluster.ok("PUT", f"{tenants}/a?dryRun=All", changed)["spec"]["team"] == "x"
    elif way == "patch":
        patch = {"spec": {"team": "x"}}
        assert cluster.ok("PATCH", f"{tenants}/a?dryRun=All", patch, kind=MERGE)["metadata"]["generation"] == 2
    elif way == "apply":
        kind = "application/apply-patch+yaml"
        path = f"{tenants}/a?dryRun=All&fieldManager=m&force=true"
        assert cluster.ok("PATCH", path, tenant("a", team="x"), kind=kind)["spec"]["team"] == "x"
    else:
        assert cluster.ok("DELETE", f"{tenants}/a", {"dryRun": ["All"]})["status"] == "Success"
    assert cluster.get(f"{tenants}/a") == first


@pytest.mark.parametrize(
    ("raw", "read"), [("\x7f", None), ("\x80", None), ("\x85", "a b"), ("\\u0080", "a\x80b"), ("\u00e9", "a\u00e9b")]
)
def test_what_is_applied_is_read_as_yaml(cluster: Cluster, tenants: str, raw: str, read: str | None) -> None:
    text = orjson.dumps(tenant("a", displayName="TEXT")).decode().replace("TEXT", f"a{raw}b")
    status, answer = cluster.call("PATCH", f"{tenants}/a?fieldManager=m", text.encode(), kind=APPLY)
    if read is None:
        assert (status, answer["reason"]) == (400, "BadRequest")
        assert "error decoding YAML" in answer["message"]
    else:
        assert answer["spec"]["displayName"] == read


def test_delete_answers_with_a_status(cluster: Cluster, tenants: str) -> None:
    made = cluster.ok("POST", tenants, tenant("a"))
    status, answer = cluster.call("DELETE", f"{tenants}/a")
    details = {"name": "a", "group": "opencrane.io", "kind": "tenants", "uid": made["metadata"]["uid"]}
    assert status == 200
    assert (answer["kind"], answer["status"], answer["details"]) == ("Status", "Success", details)
    status, answer = cluster.call("DELETE", f"{tenants}/a")
    assert (status, answer["reason"], answer["message"]) == (404, "NotFound", 'tenants.opencrane.io "a" not found')


def test_delete_preconditions(cluster: Cluster, tenants: str) -> None:
    made = cluster.ok("POST", tenants, tenant("a"))
    for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
        status, answer = cluster.call("DELETE", f"{tenants}/a", {"preconditions": wrong})
        assert (status, answer["reason"]) == (409, "Conflict")
    right = {key: made["metadata"][key] for key in ("uid", "resourceVersion")}
    assert cluster.call("DELETE", f"{tenants}/a", {"preconditions": right})[0] == 200


def test_finalizers_hold_an_object(cluster: Cluster, tenants: str) -> None:
    body = tenant("a")
    body["metadata"]["finalizers"] = ["opencrane.io/one", "opencrane.io/two"]
    cluster.ok("POST", tenants, body)
    marked = cluster.ok("DELETE", f"{tenants}/a")
    assert marked["kind"] == "Tenant"
    assert marked["metadata"]["deletionTimestamp"]
    assert cluster.ok("DELETE", f"{tenants}/a") == marked
    cluster.ok("PATCH", f"{tenants}/a", {"spec": {"team": "still"}}, kind=MERGE)
    more = {"metadata": {"finalizers": ["opencrane.io/one", "opencrane.io/two", "opencrane.io/three"]}}
    assert cluster.call("PATCH", f"{tenants}/a", more, kind=MERGE)[0] == 422
    cluster.ok("PATCH", f"{tenants}/a", {"metadata": {"finalizers": ["opencrane.io/two"]}}, kind=MERGE)
    assert cluster.get(f"{tenants}/a")["spec"]["team"] == "still"
    cluster.ok("PATCH", f"{tenants}/a", {"metadata": {"finalizers": None}}, kind=MERGE)
    assert cluster.gone(f"{tenants}/a")


def test_collection_is_deleted_by_selector(cluster: Cluster, maps: str) -> None:
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        body = config_map(name)
        body["metadata"]["labels"] = {"color": color}
        cluster.ok("POST", maps, body)
    cluster.ok("DELETE", f"{maps}?labelSelector=color%3Dred")
    assert [item["metadata"]["name"] for item in cluster.get(maps)["items"]] == ["b"]


def test_garbage_is_collected_with_its_last_owner(cluster: Cluster, maps: str) -> None:
    first, second = (cluster.ok("POST", maps, config_map(name)) for name in ("first", "second"))
    for name, owners in (("one", owned_by(first)), ("both", owned_by(first) + owned_by(second))):
        body = config_map(name)
        body["metadata"]["ownerReferences"] = owners
        cluster.ok("POST", maps, body)
    cluster.ok("DELETE", f"{maps}/first")
    until(lambda: cluster.gone(f"{maps}/one"))
    assert not cluster.gone(f"{maps}/both")
    cluster.ok("DELETE", f"{maps}/second")
    until(lambda: cluster.gone(f"{maps}/both"))


def test_orphan_and_foreground(cluster: Cluster, maps: str) -> None:
    for name, policy in (("o", "Orphan"), ("f", "Foreground")):
        owner = cluster.ok("POST", maps, config_map(name))
        body = config_map(f"{name}-child")
        body["metadata"]["ownerReferences"] = owned_by(owner, blockOwnerDeletion=True)
        body["metadata"]["finalizers"] = ["opencrane.io/wait"] if policy == "Foreground" else []
        cluster.ok("POST", maps, body)
        cluster.ok("DELETE", f"{maps}/{name}", {"propagationPolicy": policy})
    assert cluster.gone(f"{maps}/o")
    assert "ownerReferences" not in cluster.get(f"{maps}/o-child")["metadata"]
    until(lambda: "deletionTimestamp" in cluster.get(f"{maps}/f-child")["metadata"])
    assert cluster.get(f"{maps}/f")["metadata"]["finalizers"] == ["foregroundDeletion"]
    cluster.ok("PATCH", f"{maps}/f-child", {"metadata": {"finalizers": None}}, kind=MERGE)
    until(lambda: cluster.gone(f"{maps}/f"))
    assert cluster.gone(f"{maps}/f-child")


def test_namespace_takes_its_contents_along(cluster: Cluster, namespace: str, tenants: str, maps: str) -> None:
    held = tenant("held")
    held["metadata"]["finalizers"] = ["opencrane.io/wait"]
    cluster.ok("POST", tenants, held)
    cluster.ok("POST", maps, config_map("a"))
    marked = cluster.ok("DELETE", f"/api/v1/namespaces/{namespace}")
    assert marked["status"]["phase"] == "Terminating"
    until(lambda: cluster.gone(f"{maps}/a"))
    status, answer = cluster.call("POST", maps, config_map("late"))
    assert (status, answer["reason"], answer["details"]["causes"][0]["reason"]) == (
        403,
        "Forbidden",
        "NamespaceTerminating",
    )
    assert not cluster.gone(f"/api/v1/namespaces/{namespace}")
    cluster.ok("PATCH", f"{tenants}/held", {"metadata": {"finalizers": None}}, kind=MERGE)
    until(lambda: cluster.gone(f"/api/v1/namespaces/{namespace}"))
    assert cluster.gone(f"{tenants}/held")


def test_secrets_take_plain_strings(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    body = {"metadata": {"name": "s"}, "stringData": {"a": "plain"}, "data": {"b": base64.b64encode(b"x").decode()}}
    made = cluster.ok("POST", path, body)
    assert made["data"] == {"a": base64.b64encode(b"plain").decode(), "b": base64.b64encode(b"x").decode()}
    assert made["type"] == "Opaque"
    assert "stringData" not in made
    assert cluster.call("POST", path, {"metadata": {"name": "t"}, "data": {"a": "?"}})[0] == 400
    assert cluster.call("PATCH", f"{path}/s", {"type": "other"}, kind=MERGE)[0] == 422


@pytest.mark.parametrize(
    ("plural", "spec", "field"),
    [
        ("resourcequotas", {"hard": {"cpu": "lots"}}, "spec.hard[cpu]"),
        ("limitranges", {"limits": [{"type": "Container", "max": {"memory": "1GB!"}}]}, "spec.limits[0].max[memory]"),
        ("services", {}, "spec.ports"),
        ("persistentvolumeclaims", {"accessModes": ["ReadWriteOnce"]}, "spec.resources[storage]"),
        ("pods", {"containers": [{"name": "a"}]}, "spec.containers[0].image"),
    ],
)
def test_builtin_kinds_are_checked(cluster: Cluster, namespace: str, plural: str, spec: Any, field: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/{plural}"
    status, answer = cluster.call("POST", path, {"metadata": {"name": "x"}, "spec": spec})
    assert (status, answer["reason"]) == (422, "Invalid")
    assert field in [cause["field"] for cause in answer["details"]["causes"]]


def test_deployment_selector_must_fit_and_stay(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    wrong = deployment("web")
    wrong["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    assert cluster.call("POST", path, wrong)[0] == 422
    cluster.ok("POST", path, deployment("web", replicas=0))
    patch = {"spec": {"selector": {"matchLabels": {"b": "c"}}, "template": {"metadata": {"labels": {"b": "c"}}}}}
    status, answer = cluster.call("PATCH", f"{path}/web", patch, kind=MERGE)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "spec.selector")
