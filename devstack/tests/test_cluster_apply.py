"""Server-side apply: who owns what, who may change it, and what goes away."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from devstack.tests.clusterclient import APPLY, MERGE, Cluster, Object, config_map, deployment, tenant, until


def owners(obj: Object) -> dict[str, Any]:
    """fieldsV1 by manager, with `+Apply` or `+Update`."""
    return {f"{e['manager']}+{e['operation']}": e["fieldsV1"] for e in obj["metadata"]["managedFields"]}


def test_apply_creates_then_updates_then_rests(cluster: Cluster, tenants: str) -> None:
    status, first = cluster.apply(f"{tenants}/a", tenant("a"))
    assert status == 201
    assert owners(first) == {"a+Apply": {"f:spec": {"f:displayName": {}, "f:email": {}}}}
    assert first["spec"]["suspended"] is False
    status, second = cluster.apply(f"{tenants}/a", tenant("a", team="x"))
    assert (status, second["metadata"]["generation"]) == (200, 2)
    status, third = cluster.apply(f"{tenants}/a", tenant("a", team="x"))
    assert (status, third) == (200, second)


def test_yaml_body(cluster: Cluster, tenants: str) -> None:
    text = yaml.safe_dump(tenant("a")).encode()
    assert cluster.call("PATCH", f"{tenants}/a?fieldManager=m", text, kind=APPLY)[0] == 201
    assert cluster.call("PATCH", f"{tenants}/b?fieldManager=m", b"a: [", kind=APPLY)[0] == 400


def test_apply_wants_a_manager(cluster: Cluster, tenants: str) -> None:
    status, answer = cluster.call("PATCH", f"{tenants}/a", tenant("a"), kind=APPLY)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "fieldManager")


def test_conflict_names_manager_and_field(cluster: Cluster, tenants: str) -> None:
    cluster.ok("POST", f"{tenants}?fieldManager=kubectl-create", tenant("a", team="x"))
    status, answer = cluster.apply(f"{tenants}/a", tenant("a", team="y"))
    assert (status, answer["reason"]) == (409, "Conflict")
    cause = answer["details"]["causes"][0]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".spec.team")
    assert cause["message"] == 'conflict with "kubectl-create" using opencrane.io/v1alpha1'
    assert cluster.get(f"{tenants}/a")["spec"]["team"] == "x"
    status, after = cluster.apply(f"{tenants}/a", tenant("a", team="y"), force=True)
    assert (status, after["spec"]["team"]) == (200, "y")
    assert "f:team" not in owners(after)["kubectl-create+Update"]["f:spec"]
    assert "f:team" in owners(after)["a+Apply"]["f:spec"]


def test_equal_values_are_shared(cluster: Cluster, tenants: str) -> None:
    cluster.apply(f"{tenants}/a", tenant("a", team="x"), "one")
    status, both = cluster.apply(f"{tenants}/a", tenant("a", team="x"), "two")
    assert status == 200
    assert owners(both)["one+Apply"] == owners(both)["two+Apply"]
    assert cluster.apply(f"{tenants}/a", tenant("a"), "one")[1]["spec"]["team"] == "x"
    status, after = cluster.apply(f"{tenants}/a", tenant("a"), "two")
    assert (status, "team" in after["spec"]) == (200, False)


def test_omitted_field_goes_when_nobody_else_owns_it(cluster: Cluster, tenants: str) -> None:
    body = tenant("a", team="x", policyRef="p", mcpPolicy={"allow": ["m"]})
    body["metadata"]["labels"] = {"mine": "1"}
    cluster.apply(f"{tenants}/a", body)
    cluster.ok("PATCH", f"{tenants}/a?fieldManager=edit", {"spec": {"policyRef": "q"}}, kind=MERGE)
    cluster.ok("PATCH", f"{tenants}/a?fieldManager=label", {"metadata": {"labels": {"theirs": "2"}}}, kind=MERGE)
    _, after = cluster.apply(f"{tenants}/a", tenant("a"))
    assert after["metadata"]["labels"] == {"theirs": "2"}
    assert "team" not in after["spec"]
    assert "mcpPolicy" not in after["spec"]
    assert after["spec"]["policyRef"] == "q"


def test_update_takes_ownership_and_removal_ends_it(cluster: Cluster, tenants: str) -> None:
    cluster.apply(f"{tenants}/a", tenant("a", team="x", policyRef="p"))
    patch = {"spec": {"team": "y", "policyRef": None}}
    after = cluster.ok("PATCH", f"{tenants}/a?fieldManager=edit", patch, kind=MERGE)
    assert owners(after)["a+Apply"]["f:spec"] == {"f:displayName": {}, "f:email": {}}
    assert owners(after)["edit+Update"] == {"f:spec": {"f:team": {}}}
    # Omitting it now does not remove it: it belongs to the editor.
    assert cluster.apply(f"{tenants}/a", tenant("a"))[1]["spec"]["team"] == "y"


def test_objects_and_lists_under_spec_are_atomic(cluster: Cluster, tenants: str) -> None:
    cluster.apply(f"{tenants}/a", tenant("a", configOverrides={"x": {"y": 1}}, skillAllowlist=["s"]), "one")
    changed = tenant("a", configOverrides={"z": 2}, skillAllowlist=["s", "t"])
    status, answer = cluster.apply(f"{tenants}/a", changed, "two")
    fields = {cause["field"] for cause in answer["details"]["causes"]}
    assert (status, fields) == (409, {".spec.configOverrides", ".spec.skillAllowlist"})
    after = cluster.apply(f"{tenants}/a", changed, "two", force=True)[1]
    assert after["spec"]["configOverrides"] == {"z": 2}


def test_uid_must_be_that_of_the_live_object(cluster: Cluster, tenants: str) -> None:
    body = tenant("a")
    body["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    status, answer = cluster.apply(f"{tenants}/a", body)
    assert (status, answer["reason"]) == (409, "Conflict")
    assert "uid mismatch" in answer["message"]
    assert "no existing object was found" in answer["message"]
    assert cluster.gone(f"{tenants}/a")
    live = cluster.apply(f"{tenants}/a", tenant("a"))[1]
    assert cluster.apply(f"{tenants}/a", body)[0] == 409
    body["metadata"]["uid"] = live["metadata"]["uid"]
    assert cluster.apply(f"{tenants}/a", body) == (200, live)


def test_stale_version_is_a_conflict_but_creates_what_is_absent(cluster: Cluster, tenants: str) -> None:
    live = cluster.apply(f"{tenants}/a", tenant("a"))[1]
    body = tenant("a", team="x")
    body["metadata"]["resourceVersion"] = "1"
    assert cluster.apply(f"{tenants}/a", body)[0] == 409
    body["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    assert cluster.apply(f"{tenants}/a", body)[0] == 200
    cluster.ok("DELETE", f"{tenants}/a")
    assert cluster.apply(f"{tenants}/a", body)[0] == 201


def test_status_belongs_to_its_own_endpoint(cluster: Cluster, tenants: str) -> None:
    cluster.apply(f"{tenants}/a", {**tenant("a"), "status": {"phase": "Error"}})
    body = {**tenant("a", team="ignored"), "status": {"phase": "Running", "podName": "p"}}
    del body["spec"]
    query = "?fieldManager=operator"
    after = cluster.ok("PATCH", f"{tenants}/a/status{query}", body, kind=APPLY)
    assert after["status"] == {"phase": "Running", "podName": "p"}
    assert after["metadata"]["generation"] == 1
    entry = next(e for e in after["metadata"]["managedFields"] if e["manager"] == "operator")
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:phase": {}, "f:podName": {}}})
    _, again = cluster.apply(f"{tenants}/a", tenant("a", team="x"))
    assert again["status"] == after["status"]
    assert (
        cluster.call("PATCH", f"{tenants}/none/status{query}", {**body, "metadata": {"name": "none"}}, kind=APPLY)[0]
        == 404
    )


def test_wrong_type_is_a_500_as_on_a_real_server(cluster: Cluster, tenants: str, namespace: str) -> None:
    status, answer = cluster.apply(f"{tenants}/a", tenant("a", team=5))
    assert (status, "reason" in answer) == (500, False)
    prefix = f"failed to create typed patch object ({namespace}/a; opencrane.io/v1alpha1, Kind=Tenant): "
    assert answer["message"].startswith(prefix + ".spec.team: expected string, got ")
    status, answer = cluster.apply(f"{tenants}/a", tenant("a", nonsense=1))
    assert (status, answer["message"]) == (500, prefix + ".spec.nonsense: field not declared in schema")


def test_value_out_of_range_is_a_422(cluster: Cluster, tenants: str) -> None:
    status, answer = cluster.apply(f"{tenants}/a", tenant("a", monthlyBudgetUsd=-1))
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["details"]["causes"][0]["field"] == "spec.monthlyBudgetUsd"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"metadata": {"name": "b"}}, 400),
        ({"metadata": {"name": "a", "managedFields": [{"manager": "x"}]}}, 400),
        ({"kind": "AccessPolicy"}, 400),
        ({"apiVersion": ""}, 400),
    ],
)
def test_refused_configurations(cluster: Cluster, tenants: str, change: Object, code: int) -> None:
    assert cluster.apply(f"{tenants}/a", {**tenant("a"), **change})[0] == code
    assert cluster.gone(f"{tenants}/a")


def test_keyed_lists_merge_and_prune(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web"
    body = deployment("web", replicas=0)
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    body["spec"]["template"]["spec"]["containers"][0]["env"] = env
    assert cluster.apply(path, body, "one")[0] == 201
    theirs: Object = {"name": "main", "env": [{"name": "C", "value": "3"}], "image": "web:1"}
    other = {**deployment("web"), "spec": {"template": {"spec": {"containers": [theirs]}}}}
    assert cluster.apply(path, other, "two")[0] == 200
    del env[0]
    _, after = cluster.apply(path, body, "one")
    assert [item["name"] for item in after["spec"]["template"]["spec"]["containers"][0]["env"]] == ["B", "C"]
    theirs["env"] = [{"name": "B", "value": "other"}]
    status, answer = cluster.apply(path, other, "two")
    field = '.spec.template.spec.containers[name="main"].env[name="B"].value'
    assert (status, [cause["field"] for cause in answer["details"]["causes"]]) == (409, [field])


def test_books_can_be_reset(cluster: Cluster, maps: str) -> None:
    cluster.apply(f"{maps}/a", config_map("a", x="1"))
    after = cluster.ok("PATCH", f"{maps}/a", {"metadata": {"managedFields": [{}]}}, kind=MERGE)
    assert not after["metadata"].get("managedFields")
    status, answer = cluster.apply(f"{maps}/a", config_map("a", x="2"))
    assert status == 409
    assert 'conflict with "before-first-apply" using v1' in answer["message"]


def test_many_updaters_are_folded_together(cluster: Cluster, maps: str) -> None:
    cluster.ok("POST", maps, config_map("a"))
    for number in range(14):
        patch = {"data": {f"k{number}": "v"}}
        cluster.ok("PATCH", f"{maps}/a?fieldManager=m{number:02}", patch, kind=MERGE)
    books = owners(cluster.get(f"{maps}/a"))
    assert len(books) == 10
    folded = books["ancient-changes+Update"]["f:data"]
    assert {"f:k0", "f:k1", "f:k2", "f:k3", "f:k4"} <= folded.keys()


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@pytest.mark.parametrize(
    ("group", "plural", "kind", "body"),
    [
        ("apis/apps/v1", "deployments", "Deployment", {"spec": deployment("a", replicas=0)["spec"]}),
        ("apis/networking.k8s.io/v1", "ingresses", "Ingress", {"spec": {"rules": [{"host": "a.test"}]}}),
        ("api/v1", "services", "Service", {"spec": {"ports": [{"port": 80}]}}),
        ("api/v1", "secrets", "Secret", {"stringData": {"a": "b"}}),
        ("api/v1", "resourcequotas", "ResourceQuota", {"spec": {"hard": {"pods": 5}}}),
        ("api/v1", "persistentvolumeclaims", "PersistentVolumeClaim", {"spec": CLAIM}),
    ],
)
def test_defaults_are_no_change(
    cluster: Cluster, namespace: str, group: str, plural: str, kind: str, body: Object
) -> None:
    """Applying the same again changes nothing, whatever the server has filled in."""
    body = {"apiVersion": group.partition("/")[2], "kind": kind, "metadata": {"name": "a"}, **body}
    path = f"/{group}/namespaces/{namespace}/{plural}/a"
    assert cluster.apply(path, body)[0] == 201
    # Controllers may come between two of them, but not for long.
    until(lambda: cluster.apply(path, body) == cluster.apply(path, body), 5)
