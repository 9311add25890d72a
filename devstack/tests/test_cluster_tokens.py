"""Who may call: the administrator, ServiceAccounts for little, and reviews of both."""

from __future__ import annotations

import base64
import time

import orjson
import pytest

from devstack.tests.clusterclient import Cluster, Object

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


def review(cluster: Cluster, token: str, *audiences: str) -> Object:
    body = {"spec": {"token": token, "audiences": list(audiences)}}
    status: Object = cluster.ok("POST", REVIEWS, body)["status"]
    return status


def issue(cluster: Cluster, namespace: str, **spec: object) -> Object:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    return cluster.ok("POST", path, {"spec": spec})


@pytest.mark.parametrize("path", ["/api", "/api/v1/namespaces", "/apis/opencrane.io/v1alpha1/tenants", "/nothing"])
def test_no_or_a_wrong_token_is_a_401(cluster: Cluster, path: str) -> None:
    for token in ("wrong", "a.b.c", "", "ü"):
        status, answer = cluster.call(
            "GET", path, headers={"authorization": f"Bearer {token}".encode().decode("latin-1")}
        )
        assert (status, answer["kind"], answer["reason"]) == (401, "Status", "Unauthorized")
    assert cluster.call("GET", path, headers={"authorization": ""})[0] == 401


def test_health_and_version_are_open(cluster: Cluster) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert cluster.raw("GET", path, headers={"authorization": ""}).status == 200


def test_token_of_a_service_account(cluster: Cluster, namespace: str) -> None:
    answer = issue(cluster, namespace, audiences=["opencrane"], expirationSeconds=900)
    token = answer["status"]["token"]
    payload = token.split(".")[1]
    claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    account = cluster.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
    uid = account["metadata"]["uid"]
    assert claims["sub"] == f"system:serviceaccount:{namespace}:default"
    assert claims["aud"] == ["opencrane"]
    assert 890 < claims["exp"] - time.time() <= 900
    assert claims["kubernetes.io"]["serviceaccount"] == {"name": "default", "uid": uid}
    good = review(cluster, token, "other", "opencrane")
    assert (good["authenticated"], good["audiences"]) == (True, ["opencrane"])
    assert good["user"]["username"] == claims["sub"]
    assert good["user"]["uid"] == uid
    assert f"system:serviceaccounts:{namespace}" in good["user"]["groups"]


def test_review_of_a_bad_token_has_an_error_and_no_authenticated(cluster: Cluster, namespace: str) -> None:
    token = issue(cluster, namespace, audiences=["opencrane"])["status"]["token"]
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{signature[:-6]}AAAAAA"
    for status in (review(cluster, token, "other"), review(cluster, forged, "opencrane"), review(cluster, token)):
        assert "authenticated" not in status
        assert status["error"]
    assert cluster.call("POST", REVIEWS, {"spec": {}})[0] == 422


def test_token_dies_with_its_account(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.ok("POST", path, {"metadata": {"name": "robot"}})
    token = cluster.ok("POST", f"{path}/robot/token", {"spec": {"audiences": ["x"]}})["status"]["token"]
    assert review(cluster, token, "x")["authenticated"] is True
    cluster.ok("DELETE", f"{path}/robot")
    cluster.ok("POST", path, {"metadata": {"name": "robot"}})
    assert "authenticated" not in review(cluster, token, "x")


def test_life_has_a_minimum(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    status, answer = cluster.call("POST", path, {"spec": {"expirationSeconds": 599}})
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "spec.expirationSeconds")
    assert cluster.call("POST", path.replace("default", "none"), {})[0] == 404


def test_service_account_may_look_around_and_no_more(cluster: Cluster, namespace: str) -> None:
    token = issue(cluster, namespace)["status"]["token"]
    assert cluster.call("GET", "/apis", token=token)[0] == 200
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    me = cluster.ok("POST", path, {}, token=token)
    assert me["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    for method, path in (
        ("GET", maps),
        ("POST", maps),
        ("GET", f"{maps}/a"),
        ("DELETE", f"{maps}/a"),
        ("POST", REVIEWS),
    ):
        status, answer = cluster.call(method, path, {}, token=token)
        assert (status, answer["reason"]) == (403, "Forbidden")
        assert f'User "system:serviceaccount:{namespace}:default" cannot' in answer["message"]


def test_a_service_account_may_what_its_roles_allow(cluster: Cluster, namespace: str) -> None:
    token = issue(cluster, namespace)["status"]["token"]
    group = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]}
    subjects = [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]
    role = {"metadata": {"name": "maps"}, "rules": [rule, rule | {"verbs": ["delete"], "resourceNames": ["mine"]}]}
    cluster.ok("POST", f"{group}/namespaces/{namespace}/roles", role)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"}
    binding = {"metadata": {"name": "maps"}, "subjects": subjects, "roleRef": reference}
    cluster.ok("POST", f"{group}/namespaces/{namespace}/rolebindings", binding)

    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    for name in ("mine", "theirs"):
        cluster.ok("POST", maps, {"metadata": {"name": name}})
    allowed = cluster.call("GET", maps, token=token)
    assert (allowed[0], len(allowed[1]["items"])) == (200, 2)
    assert cluster.call("GET", f"{maps}?watch=true&timeoutSeconds=1", token=token)[0] == 403
    assert cluster.call("GET", "/api/v1/configmaps", token=token)[0] == 403, "a Role ends with its namespace"
    assert cluster.call("GET", "/api/v1/namespaces/default/configmaps", token=token)[0] == 403
    apply = {"content-type": "application/apply-patch+yaml"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {"a": "b"}}
    path = f"{maps}/new?fieldManager=x"
    assert cluster.call("PATCH", path, body, headers=apply, token=token)[0] == 403, "applying makes what is not there"
    cluster.ok("POST", maps, {"metadata": {"name": "new"}})
    assert cluster.call("PATCH", path, body, headers=apply, token=token)[0] == 200
    assert cluster.call("DELETE", f"{maps}/theirs", token=token)[0] == 403
    assert cluster.call("DELETE", f"{maps}/mine", token=token)[0] == 200
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for verb, holds in (("patch", True), ("update", False)):
        attributes = {"verb": verb, "resource": "configmaps", "namespace": namespace}
        answer = cluster.ok("POST", review, {"spec": {"resourceAttributes": attributes}}, token=token)
        assert answer["status"]["allowed"] is holds


def test_access_reviews(cluster: Cluster, namespace: str) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    body = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}}}
    assert cluster.ok("POST", path, body)["status"]["allowed"] is True
    token = issue(cluster, namespace)["status"]["token"]
    assert cluster.ok("POST", path, body, token=token)["status"]["allowed"] is False
