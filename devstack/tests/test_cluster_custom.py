"""Custom resources: validation, defaults, pruning, printer columns, and definitions that come, change and go."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from devstack.tests.clusterclient import CRDS, GROUP, MERGE, Cluster, Object, tenant, until

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CONDITION = {"type": "Ready", "status": "True"}


def causes(answer: Object) -> dict[str, str]:
    return {cause["field"]: cause["reason"] for cause in answer["details"]["causes"]}


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"displayName": ""}, "spec.displayName", "FieldValueInvalid"),
        ({"displayName": "x" * 201}, "spec.displayName", "FieldValueTooLong"),
        ({"email": "nobody"}, "spec.email", "FieldValueInvalid"),
        ({"email": None}, "spec.email", "FieldValueTypeInvalid"),
        ({"team": "not a label"}, "spec.team", "FieldValueInvalid"),
        ({"team": "line\n"}, "spec.team", "FieldValueInvalid"),
        ({"monthlyBudgetUsd": -0.01}, "spec.monthlyBudgetUsd", "FieldValueInvalid"),
        ({"monthlyBudgetUsd": "5"}, "spec.monthlyBudgetUsd", "FieldValueTypeInvalid"),
        ({"monthlyBudgetUsd": True}, "spec.monthlyBudgetUsd", "FieldValueTypeInvalid"),
        ({"resources": {"cpu": "much"}}, "spec.resources.cpu", "FieldValueInvalid"),
        ({"resources": {"cpu": 0.5}}, "spec.resources.cpu", "FieldValueTypeInvalid"),
        ({"skillAllowlist": "a"}, "spec.skillAllowlist", "FieldValueTypeInvalid"),
        ({"skillAllowlist": ["a", ""]}, "spec.skillAllowlist[1]", "FieldValueInvalid"),
        ({"suspended": "yes"}, "spec.suspended", "FieldValueTypeInvalid"),
        ({"configOverrides": []}, "spec.configOverrides", "FieldValueTypeInvalid"),
    ],
)
def test_refused_specs(cluster: Cluster, tenants: str, spec: Object, field: str, reason: str) -> None:
    status, answer = cluster.call("POST", tenants, tenant("a", **spec))
    assert (status, answer["reason"], causes(answer)) == (422, "Invalid", {field: reason})
    assert answer["message"].startswith(f'Tenant.opencrane.io "a" is invalid: {field}: ')


def test_missing_fields_are_all_named(cluster: Cluster, tenants: str) -> None:
    status, answer = cluster.call("POST", tenants, {**tenant("a"), "spec": {}})
    wanted = {"spec.displayName": "FieldValueRequired", "spec.email": "FieldValueRequired"}
    assert (status, causes(answer)) == (422, wanted)


@pytest.mark.parametrize(
    "resources", [{"cpu": 2}, {"cpu": "500m"}, {"cpu": "0.5", "memory": "1.5Gi"}, {"memory": "1e9"}, {"memory": 1024}]
)
def test_quantities(cluster: Cluster, tenants: str, resources: Object) -> None:
    assert cluster.ok("POST", tenants, tenant("a", resources=resources))["spec"]["resources"] == resources


def test_free_objects_are_kept_as_they_are(cluster: Cluster, tenants: str) -> None:
    overrides = {"a": {"b": [1, {"c": None}], "d": "ü\U0001f600"}, "e": 1.5, "f": {}}
    assert cluster.ok("POST", tenants, tenant("a", configOverrides=overrides))["spec"]["configOverrides"] == overrides


def test_unknown_fields_are_pruned_warned_of_or_refused(cluster: Cluster, tenants: str) -> None:
    body = tenant("a", typo=1, resources={"gpu": 1})
    body["metadata"]["colour"] = "red"
    status, answer = cluster.call("POST", f"{tenants}?fieldValidation=Strict", body)
    assert (status, answer["reason"]) == (400, "BadRequest")
    for path in ("metadata.colour", "spec.typo", "spec.resources.gpu"):
        assert f'unknown field "{path}"' in answer["message"]
    response = cluster.raw("POST", tenants, body)
    assert 'unknown field \\"spec.typo\\"' in response.headers["warning"]
    made = cluster.get(f"{tenants}/a")
    assert made["spec"] == {**tenant("a")["spec"], "resources": {}, "suspended": False}
    assert "warning" not in cluster.raw("PUT", f"{tenants}/a?fieldValidation=Ignore", made).headers


def test_defaults_deep_in_lists(cluster: Cluster, namespace: str) -> None:
    path = f"{GROUP}/namespaces/{namespace}/accesspolicies"
    body = {
        "apiVersion": "opencrane.io/v1alpha1",
        "kind": "AccessPolicy",
        "metadata": {"name": "p"},
        "spec": {"egressRules": [{"cidr": "10.0.0.0/8", "ports": [443]}, {"cidr": "::/0", "protocol": "UDP"}]},
    }
    rules = cluster.ok("POST", path, body)["spec"]["egressRules"]
    assert [rule["protocol"] for rule in rules] == ["TCP", "UDP"]
    rules[0]["ports"] = [0]
    rules[1]["protocol"] = "ICMP"
    status, answer = cluster.call("PATCH", f"{path}/p", {"spec": {"egressRules": rules}}, kind=MERGE)
    wanted = {
        "spec.egressRules[0].ports[0]": "FieldValueInvalid",
        "spec.egressRules[1].protocol": "FieldValueNotSupported",
    }
    assert (status, causes(answer)) == (422, wanted)


def test_cluster_scope(cluster: Cluster, namespace: str) -> None:
    path = f"{GROUP}/clustertenants"
    body = {
        "apiVersion": "opencrane.io/v1alpha1",
        "kind": "ClusterTenant",
        "metadata": {"name": f"c-{namespace}"},
        "spec": {
            "displayName": "Acme",
            "isolationTier": "shared",
            "baseDomain": "",
            "compute": {"mode": "shared"},
            "resources": {"quota": {"cpu": "4", "pods": 10}},
        },
    }
    made = cluster.ok("POST", path, body)
    assert "namespace" not in made["metadata"]
    assert made["spec"] == body["spec"]
    assert cluster.call("GET", f"{GROUP}/namespaces/{namespace}/clustertenants")[0] == 404
    assert cluster.call("PATCH", f"{path}/c-{namespace}", {"spec": {"isolationTier": "none"}}, kind=MERGE)[0] == 422
    assert cluster.call("PATCH", f"{path}/c-{namespace}", {"spec": {"baseDomain": "Acme.com"}}, kind=MERGE)[0] == 422


def test_status_subresource(cluster: Cluster, tenants: str) -> None:
    first = cluster.ok("POST", tenants, tenant("a"))
    both = {
        "spec": {"team": "x"},
        "status": {"phase": "Running", "conditions": [CONDITION]},
        "metadata": {"labels": {"l": "1"}},
    }
    after = cluster.ok("PATCH", f"{tenants}/a/status", both, kind=MERGE)
    assert after["status"] == {"phase": "Running", "conditions": [CONDITION]}
    assert after["spec"] == first["spec"]
    assert "labels" not in after["metadata"]
    assert after["metadata"]["generation"] == 1
    again = cluster.ok("PATCH", f"{tenants}/a", {"status": None, "spec": {"team": "x"}}, kind=MERGE)
    assert again["status"] == after["status"]
    status, answer = cluster.call("PATCH", f"{tenants}/a/status", {"status": {"phase": "Odd"}}, kind=MERGE)
    assert (status, causes(answer)) == (422, {"status.phase": "FieldValueNotSupported"})
    twice = {"status": {"conditions": [CONDITION, CONDITION]}}
    status, answer = cluster.call("PATCH", f"{tenants}/a/status", twice, kind=MERGE)
    assert (status, causes(answer)) == (422, {"status.conditions[1]": "FieldValueDuplicate"})
    replaced = cluster.ok("PUT", f"{tenants}/a/status", {**again, "status": {"phase": "Error"}})
    assert replaced["status"] == {"phase": "Error"}


def test_printer_columns(cluster: Cluster, tenants: str) -> None:
    cluster.ok("POST", tenants, tenant("a", team="x"))
    cluster.ok("PATCH", f"{tenants}/a/status", {"status": {"phase": "Running", "ingressHost": "a.test"}}, kind=MERGE)
    accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = cluster.ok("GET", tenants, headers=accept)
    assert table["kind"] == "Table"
    names = [column["name"] for column in table["columnDefinitions"]]
    assert names == ["Name", "Team", "Phase", "Suspended", "Host", "Age", "Policy", "Message"]
    cells = table["rows"][0]["cells"]
    assert cells[:5] == ["a", "x", "Running", False, "a.test"]
    assert re.fullmatch(r"\d+s", cells[5])
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


WIDGET: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "spec": {
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
                    }
                },
            }
        ],
    },
}


@pytest.fixture
def widgets(cluster: Cluster, namespace: str) -> Iterator[Object]:
    """A definition of a kind of its own."""
    crd = copy.deepcopy(WIDGET)
    group = f"{namespace}.example.com"
    crd["metadata"] = {"name": f"widgets.{group}"}
    crd["spec"] |= {"group": group, "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]}}
    made = cluster.ok("POST", DEFINITIONS, crd)
    yield made
    cluster.call("DELETE", f"{DEFINITIONS}/{crd['metadata']['name']}")


def widget(crd: Object, **spec: Any) -> Object:
    return {"apiVersion": f"{crd['spec']['group']}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}


def test_definition_is_served_changes_and_goes(cluster: Cluster, namespace: str, widgets: Object) -> None:
    assert {c["type"]: c["status"] for c in widgets["status"]["conditions"]}["Established"] == "True"
    group = widgets["spec"]["group"]
    name = widgets["metadata"]["name"]
    found = cluster.get(f"/apis/{group}/v1")["resources"]
    assert [(r["name"], r["shortNames"]) for r in found] == [("widgets", ["wd"])]
    path = f"/apis/{group}/v1/namespaces/{namespace}/widgets"
    first = cluster.ok("POST", path, widget(widgets, size=1))
    schema = copy.deepcopy(widgets["spec"]["versions"][0]["schema"])
    size = schema["openAPIV3Schema"]["properties"]["spec"]["properties"]
    size["colour"] = {"type": "string", "default": "red"}
    size["size"]["maximum"] = 5
    version = {**widgets["spec"]["versions"][0], "schema": schema, "subresources": {"status": {}}}
    cluster.ok("PATCH", f"{DEFINITIONS}/{name}", {"spec": {"versions": [version]}}, kind=MERGE)
    # A new default shows on old objects, read alone or in a list, without their being written.
    seen = cluster.get(f"{path}/w")
    assert seen["spec"] == {"size": 1, "colour": "red"}
    assert seen["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert cluster.get(path)["items"] == [seen]
    assert cluster.call("PATCH", f"{path}/w", {"spec": {"size": 6}}, kind=MERGE)[0] == 422
    cluster.ok("DELETE", f"{DEFINITIONS}/{name}")
    until(lambda: cluster.call("GET", path)[0] == 404)
    assert cluster.call("GET", f"/apis/{group}")[0] == 404


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "object", "properties": {"a": {}}}, "properties[a].type"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, "properties[a].items"),
        ({"type": "object", "properties": {"a": {"$ref": "x"}}}, "properties[a].$ref"),
        ({"type": "object", "properties": {"a": {"type": "string", "maxLength": "5"}}}, "properties[a].maxLength"),
        ({"type": "object", "properties": []}, "properties"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}}, "properties[a].pattern"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": r"(x)\1"}}}, "properties[a].pattern"),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
            "additionalProperties",
        ),
    ],
)
def test_schemas_that_are_not_structural(cluster: Cluster, namespace: str, schema: Object, field: str) -> None:
    crd = copy.deepcopy(WIDGET)
    group = f"{namespace}.example.com"
    crd["metadata"] = {"name": f"widgets.{group}"}
    crd["spec"] |= {"group": group, "names": {"plural": "widgets", "kind": "Widget"}}
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema
    status, answer = cluster.call("POST", DEFINITIONS, crd)
    assert status == 422
    assert f"spec.versions[0].schema.openAPIV3Schema.{field}" in causes(answer)


@pytest.mark.parametrize("file", sorted(CRDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_our_specs_are_owned_field_by_field(file: Any) -> None:
    """Every object and list directly under spec is atomic: the engine owns top-level spec fields, nothing finer."""
    crd = yaml.safe_load(file.read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    marks = {"object": ("x-kubernetes-map-type", "atomic"), "array": ("x-kubernetes-list-type", "atomic")}
    containers = {name: sub for name, sub in spec["properties"].items() if sub.get("type") in marks}
    assert containers
    for name, sub in containers.items():
        key, wanted = marks[sub["type"]]
        assert sub.get(key) == wanted, name
    assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
    assert file.stem == f"{crd['spec']['group']}_{crd['spec']['names']['plural']}"
