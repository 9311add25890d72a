"""Cluster tenants: dual write, their place in the cluster, and what is left when they go.

They are cluster-scoped, so every name carries that of the test process; and a namespace that goes takes its time, so no
two tests have the same one.
"""

import secrets
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from cluster.client import cluster_client
from cluster.resources import CLUSTER_TENANTS, NAMESPACES, KubeObject
from conftest import ApiClient
from opencrane.addresses import parse_networks
from operations.models import AuditEntry
from tenants.cluster_manifests import INSTALLATION
from tenants.models import ClusterTenant, Deprovisioning
from tenants.services.provisioning import LIMIT_RANGES, NETWORK_POLICIES, QUOTAS
from tenants.tasks import sweep_places
from tests.cluster.conftest import ANNA, OwnCluster
from tests.cluster.kube import Kubectl, eventually


@pytest.fixture
def acme(kubectl: Kubectl) -> Iterator[str]:
    """A name that is free; what is made of it goes afterwards."""
    name = f"acme-{secrets.token_hex(3)}-{django_settings.NAMESPACE}"[:53].strip("-")
    yield name
    client = cluster_client()
    for path in (CLUSTER_TENANTS.path("", name), NAMESPACES.path("", f"opencrane-{name}")):
        client.request("DELETE", path)


@pytest.fixture
def others(kubectl: Kubectl) -> Kubectl:
    """Other people at cluster tenants."""
    return Kubectl(CLUSTER_TENANTS)


def body_of(name: str, **values: Any) -> dict[str, Any]:
    return {
        "name": name,
        "displayName": "Acme",
        "baseDomain": "acme.example.com",
        "isolationTier": "shared",
        "compute": {"mode": "shared"},
        "resources": {"quota": {"cpu": "4", "memory": "8Gi", "pods": 10, "storage": "100Gi", "gpu": 1}},
    } | values


def make(api: ApiClient, name: str, **values: Any) -> dict[str, Any]:
    response = api.post("/cluster-tenants", body_of(name, **values))
    assert response.status_code == 201, response.content
    return response.json()


def made(resource: Any, name: str) -> KubeObject | None:
    return cluster_client().get(resource, "opencrane", namespace=f"opencrane-{name}")


def now_due() -> None:
    long_ago = timezone.now() - timedelta(minutes=1)
    ClusterTenant.objects.update(provision_not_before=long_ago)
    Deprovisioning.objects.update(not_before=long_ago)


def test_a_cluster_tenant_gets_a_namespace_with_walls_and_a_quota(api: ApiClient, acme: str, others: Kubectl) -> None:
    answer = make(api, acme)
    assert answer["compute"] == {"mode": "shared"}
    assert answer["resources"]["quota"] == body_of(acme)["resources"]["quota"]
    ready = {"phase": "ready", "boundNamespace": f"opencrane-{acme}", "provisioner": "shared"}
    assert api.get(f"/cluster-tenants/{acme}/status").json() == ready
    live = others.get(acme)
    assert live is not None
    assert live["spec"] == {key: value for key, value in body_of(acme).items() if key != "name"}
    assert live["status"] == live["status"] | ready | {"observedGeneration": live["metadata"]["generation"]}
    namespace = cluster_client().get(NAMESPACES, f"opencrane-{acme}")
    assert namespace is not None
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert labels["opencrane.io/cluster-tenant"] == acme
    quota, network = made(QUOTAS, acme), made(NETWORK_POLICIES, acme)
    assert quota is not None
    assert network is not None
    assert quota["spec"]["hard"] == {
        "requests.cpu": "4",
        "limits.cpu": "4",
        "requests.memory": "8Gi",
        "limits.memory": "8Gi",
        "requests.storage": "100Gi",
        "pods": "10",
        "requests.nvidia.com/gpu": "1",
    }
    assert network["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert made(LIMIT_RANGES, acme) is not None
    actions = (
        AuditEntry.objects.filter(resource=f"ClusterTenant/{acme}").order_by("id").values_list("action", flat=True)
    )
    assert list(actions) == ["cluster_tenant.created", "cluster_tenant.provisioned"]
    shown = api.get(f"/cluster-tenants/{acme}")
    assert api.get(f"/cluster-tenants/{acme}", headers={"If-None-Match": shown["ETag"]}).status_code == 304
    assert [row["name"] for row in api.get("/cluster-tenants?q=acme&tier=shared&phase=ready").json()] == [acme]
    assert api.get("/cluster-tenants?phase=failed").json() == []


def test_a_change_reaches_the_namespace_and_what_is_not_named_stays(api: ApiClient, acme: str, others: Kubectl) -> None:
    etag = api.get(f"/cluster-tenants/{make(api, acme)['name']}")["ETag"]
    changes = {
        "isolationTier": "dedicatedNodes",
        "compute": {"mode": "dedicated", "nodePool": "gold"},
        "resources": {"quota": {"pods": 3}},
        "baseDomain": None,
    }
    answer = api.put(f"/cluster-tenants/{acme}", changes, headers={"If-Match": etag})
    assert answer.status_code == 200
    assert answer.json() == answer.json() | changes | {"baseDomain": "", "displayName": "Acme"}
    assert "baseDomain" not in others.spec(acme)
    quota = made(QUOTAS, acme)
    assert quota is not None
    assert quota["spec"]["hard"] == {"pods": "3"}
    namespace = cluster_client().get(NAMESPACES, f"opencrane-{acme}")
    assert namespace is not None
    assert namespace["metadata"]["labels"]["opencrane.io/node-pool"] == "gold"
    assert api.get(f"/cluster-tenants/{acme}/status").json()["phase"] == "ready"
    assert api.put(f"/cluster-tenants/{acme}", {"displayName": "B"}, headers={"If-Match": etag}).status_code == 412
    audited = AuditEntry.objects.count()
    assert api.put(f"/cluster-tenants/{acme}", changes).status_code == 200
    assert AuditEntry.objects.count() == audited


def test_what_somebody_removes_from_the_namespace_comes_back(api: ApiClient, acme: str) -> None:
    make(api, acme)
    client = cluster_client()
    client.request("DELETE", QUOTAS.path(f"opencrane-{acme}", "opencrane"))
    sweep_places()
    assert made(QUOTAS, acme) is None, "looked at before it was time"
    now_due()
    sweep_places()
    assert made(QUOTAS, acme) is not None
    assert AuditEntry.objects.filter(action="cluster_tenant.provisioned").count() == 1


def test_deleting_keeps_the_namespace_and_its_data_for_the_next_of_the_name(api: ApiClient, acme: str) -> None:
    make(api, acme)
    client, path = cluster_client(), f"opencrane-{acme}"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "stringData": {"a": "b"}}
    from cluster.secrets import SECRETS

    client.create(SECRETS, secret, namespace=path)
    assert api.delete(f"/cluster-tenants/{acme}").json() == {"name": acme, "status": "deleted"}
    assert api.get(f"/cluster-tenants/{acme}").status_code == 404
    assert client.get(CLUSTER_TENANTS, acme) is None
    assert [made(resource, acme) for resource in (QUOTAS, LIMIT_RANGES, NETWORK_POLICIES)] == [None] * 3
    namespace = client.get(NAMESPACES, path)
    assert namespace is not None
    assert "opencrane.io/released" in namespace["metadata"]["annotations"]
    assert not Deprovisioning.objects.exists()
    assert AuditEntry.objects.filter(action="cluster_tenant.deprovisioned").count() == 1
    make(api, acme)
    assert api.get(f"/cluster-tenants/{acme}/status").json()["phase"] == "ready"
    assert client.get(SECRETS, "theirs", namespace=path) is not None
    namespace = client.get(NAMESPACES, path)
    assert namespace is not None
    assert "opencrane.io/released" not in namespace["metadata"]["annotations"]


def test_purge_takes_the_namespace_too(api: ApiClient, acme: str) -> None:
    make(api, acme)
    assert api.delete(f"/cluster-tenants/{acme}?purge=true").status_code == 200

    def is_cleared() -> bool:
        now_due()
        sweep_places()
        return not Deprovisioning.objects.exists()

    eventually("all of it is cleared away", is_cleared)
    assert cluster_client().get(NAMESPACES, f"opencrane-{acme}") is None


def test_tenants_that_refer_protect_it(api: ApiClient, acme: str) -> None:
    make(api, acme)
    assert api.post("/tenants", ANNA | {"clusterTenantRef": acme}).status_code == 201
    refused = api.delete(f"/cluster-tenants/{acme}")
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
    assert "anna" in refused.json()["detail"]
    assert api.put("/tenants/anna", {"clusterTenantRef": None}).status_code == 200
    assert api.delete(f"/cluster-tenants/{acme}").status_code == 200
    missing = api.put("/tenants/anna", {"clusterTenantRef": acme})
    assert (missing.status_code, missing.json()["code"]) == (422, "REFERENCE_NOT_FOUND")


def test_while_it_is_deleted_it_counts_as_missing_and_its_name_as_taken(
    api: ApiClient, acme: str, no_worker: Any
) -> None:
    assert api.post("/cluster-tenants", body_of(acme)).status_code == 504
    assert api.get(f"/cluster-tenants/{acme}/status").json()["phase"] == "pending"
    assert api.delete(f"/cluster-tenants/{acme}").status_code == 504
    assert api.get(f"/cluster-tenants/{acme}").json()["sync"]["state"] == "deleting"
    assert api.post("/tenants", ANNA | {"clusterTenantRef": acme}).json()["code"] == "REFERENCE_NOT_FOUND"
    assert api.post("/cluster-tenants", body_of(acme)).json()["code"] == "CLUSTER_TENANT_EXISTS"
    assert api.put(f"/cluster-tenants/{acme}", {"displayName": "B"}).json()["code"] == "CONFLICT"


def test_the_name_is_taken_while_the_former_one_is_cleared_away(api: ApiClient, acme: str) -> None:
    left = Deprovisioning.objects.create(
        pk="6f9619ff-8b86-4d11-b42d-00c04fc964ff", name=acme, namespace=f"opencrane-{acme}", provisioner="shared"
    )
    refused = api.post("/cluster-tenants", body_of(acme))
    assert (refused.status_code, refused.json()["code"]) == (409, "CLUSTER_TENANT_EXISTS")
    now_due()
    sweep_places()
    assert not Deprovisioning.objects.filter(pk=left.pk).exists()
    make(api, acme)


def test_a_namespace_of_somebody_else_is_left_alone(api: ApiClient, acme: str) -> None:
    client = cluster_client()
    name = f"opencrane-{acme}"
    client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    make(api, acme)
    status = api.get(f"/cluster-tenants/{acme}/status").json()
    assert status["phase"] == "failed"
    assert "somebody else" in status["message"]
    assert made(QUOTAS, acme) is None
    assert api.delete(f"/cluster-tenants/{acme}?purge=true").status_code == 200
    assert client.get(NAMESPACES, name) is not None


def test_drift_is_found_and_repaired_and_other_installations_are_not_ours(
    api: ApiClient, acme: str, others: Kubectl
) -> None:
    make(api, acme)
    others.edit(acme, {"spec": {"displayName": "Acme Inc."}})
    found = [each for each in api.get("/cluster-tenants/drift").json()["mismatches"] if each["name"] == acme]
    assert [(each["issue"], each["fields"]) for each in found] == [("field-mismatch", ["displayName"])]
    report = api.post("/cluster-tenants/repair?dryRun=false", {"names": [acme]}).json()
    assert [(each["name"], each["action"]) for each in report["entries"]] == [(acme, "updated")]
    assert api.get(f"/cluster-tenants/{acme}").json()["displayName"] == "Acme Inc."
    others.edit(acme, {"metadata": {"labels": {INSTALLATION: "elsewhere"}}})
    ClusterTenant.objects.all().delete()
    assert acme not in [each["name"] for each in api.get("/cluster-tenants/drift").json()["mismatches"]]
    others.edit(acme, {"metadata": {"labels": {INSTALLATION: None}}})
    report = api.post("/cluster-tenants/repair?dryRun=false", {"names": [acme]}).json()
    assert [(each["name"], each["action"]) for each in report["entries"]] == [(acme, "created")]
    sweep_places()
    assert api.get(f"/cluster-tenants/{acme}/status").json()["phase"] == "ready"


def test_a_deleted_resource_is_made_again_on_request(api: ApiClient, acme: str, others: Kubectl) -> None:
    make(api, acme)
    others.delete(acme)
    assert api.post(f"/cluster-tenants/{acme}/sync").json() == {"name": acme, "status": "updated"}
    live = others.get(acme)
    assert live is not None
    assert live["status"]["phase"] == "ready"


def test_capacity_adds_up_what_tenants_ask_for(api: ApiClient, acme: str) -> None:
    make(api, acme, resources={"quota": {"cpu": "2", "memory": "4Gi", "pods": 10}})
    asks: list[dict[str, Any]] = [
        {"cpu": "1500m", "memory": "1Gi"},
        {"cpu": 1, "memory": "1Gi"},
        {"memory": "2048Mi"},
    ]
    for number, resources in enumerate(asks):
        body = ANNA | {"name": f"t{number}", "clusterTenantRef": acme, "resources": resources}
        assert api.post("/tenants", body).status_code == 201
    body = ANNA | {"name": "idle", "clusterTenantRef": acme, "resources": {"cpu": "64"}, "suspended": True}
    assert api.post("/tenants", body).status_code == 201
    found = api.get(f"/cluster-tenants/{acme}/capacity").json()
    assert (found["tenants"], found["unspecified"]) == (3, 1)
    cpu, memory, pods = found["measures"]
    assert cpu == {"name": "cpu", "requested": 2.5, "quota": 2.0, "percent": 125.0, "over": True}
    assert memory == {"name": "memory", "requested": 4 * 1024**3, "quota": 4 * 1024**3, "percent": 100.0, "over": False}
    assert (pods["requested"], pods["percent"]) == (3, 30.0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Acme"}, "name"),
        ({"name": "a" * 54}, "name"),
        ({"name": "repair"}, "name"),
        ({"displayName": ""}, "displayName"),
        ({"baseDomain": "Acme.example.com"}, "baseDomain"),
        ({"baseDomain": "\u00e4cme.example.com"}, "baseDomain"),
        ({"baseDomain": "acme..com"}, "baseDomain"),
        ({"baseDomain": "-acme.com"}, "baseDomain"),
        ({"isolationTier": "private"}, "isolationTier"),
        ({"compute": {"mode": "dedicated"}}, "compute.nodePool"),
        ({"compute": {"mode": "dedicated", "nodePool": "no pool"}}, "compute.nodePool"),
        ({"compute": {}}, "compute.mode"),
        ({"resources": {}}, "resources.quota"),
        ({"resources": {"quota": {"cpu": "four"}}}, "resources.quota.cpu"),
        ({"resources": {"quota": {"memory": "-1Gi"}}}, "resources.quota.memory"),
        ({"resources": {"quota": {"storage": "1e999"}}}, "resources.quota.storage"),
        ({"resources": {"quota": {"pods": -1}}}, "resources.quota.pods"),
        ({"resources": {"quota": {"pods": 1.5}}}, "resources.quota.pods"),
        ({"resources": {"quota": {"gpu": "one"}}}, "resources.quota.gpu"),
        ({"resources": {"quota": {"disks": 1}}}, "resources.quota.disks"),
        ({"colour": "red"}, "colour"),
    ],
)
@pytest.mark.django_db
def test_bad_bodies_name_the_field(api: ApiClient, change: dict[str, Any], field: str) -> None:
    response = api.post("/cluster-tenants", body_of("acme") | change)
    assert response.status_code == 400, response.content
    assert list(response.json()["fields"]) == [field]
    assert not ClusterTenant.objects.exists()


@pytest.mark.django_db
def test_unknown_names_and_viewers(api: ApiClient, viewer_api: ApiClient) -> None:
    for suffix in ("", "/status", "/capacity"):
        response = api.get(f"/cluster-tenants/nobody{suffix}")
        assert (response.status_code, response.json()["code"]) == (404, "CLUSTER_TENANT_NOT_FOUND")
    assert api.put("/cluster-tenants/nobody", {"displayName": "x"}).status_code == 404
    assert api.delete("/cluster-tenants/nobody").status_code == 404
    assert viewer_api.get("/cluster-tenants").status_code == 200
    assert viewer_api.post("/cluster-tenants", body_of("acme")).status_code == 403


# --- The external provisioner ----------------------------------------------------------------------------------------


class Provisioner:
    """Somebody who makes clusters; answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.status, self.answer = 200, b"{}"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(orjson.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.tokens.append(self.headers.get("Authorization", ""))
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/clusters"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def provisioner(settings: Any) -> Iterator[Provisioner]:
    stub = Provisioner()
    settings.CLUSTER_PROVISIONER_URL, settings.CLUSTER_PROVISIONER_TOKEN = stub.url, "a token for it"
    settings.OUTBOUND_ALLOW = parse_networks(["127.0.0.0/8"])
    yield stub
    stub.close()


def test_a_cluster_of_its_own_comes_from_the_external_provisioner(
    api: ApiClient, acme: str, provisioner: Provisioner, others: Kubectl
) -> None:
    provisioner.status, provisioner.answer = 202, b'{"message": "Ordering machines."}'
    make(api, acme, isolationTier="dedicatedCluster")
    asked = provisioner.asked[0]
    assert (asked["action"], asked["name"], asked["isolationTier"]) == ("provision", acme, "dedicatedCluster")
    assert provisioner.tokens == ["Bearer a token for it"]
    status = api.get(f"/cluster-tenants/{acme}/status").json()
    assert status == {"phase": "provisioning", "message": "Ordering machines.", "provisioner": "external"}
    provisioner.status = 200
    provisioner.answer = b'{"boundNamespace": "agents", "kubeconfigSecretRef": "clusters/acme#kubeconfig"}'
    now_due()
    sweep_places()
    assert provisioner.asked[1]["id"] == asked["id"]
    status = api.get(f"/cluster-tenants/{acme}/status").json()
    assert status == {
        "phase": "ready",
        "boundNamespace": "agents",
        "kubeconfigSecretRef": "clusters/acme#kubeconfig",
        "provisioner": "external",
    }
    live = others.get(acme)
    assert live is not None
    assert live["status"]["kubeconfigSecretRef"] == "clusters/acme#kubeconfig"
    assert api.put(f"/cluster-tenants/{acme}", {"isolationTier": "shared"}).status_code == 409
    provisioner.answer = b""
    assert api.delete(f"/cluster-tenants/{acme}?purge=true").status_code == 200
    assert provisioner.asked[-1] == {"action": "deprovision", "id": asked["id"], "name": acme, "purge": True}
    assert not Deprovisioning.objects.exists()


@pytest.mark.parametrize(
    ("status", "answer", "phase", "why"),
    [
        (500, b"", "provisioning", "answered 500"),
        (403, b"", "failed", "answered 403"),
        (200, b"<html>", "failed", "no JSON"),
        (200, b"[]", "failed", "no JSON object"),
        (200, b'{"phase": "sleeping"}', "failed", "makes no sense"),
        (200, b'{"phase": "failed", "message": "No machines."}', "failed", "No machines."),
        (200, b'{"kubeconfigSecretRef": "apiVersion: v1\\nkind: Config"}', "failed", "no reference"),
        (302, b"", "failed", "answered 302"),
    ],
)
def test_a_provisioner_that_fails_or_lies(
    api: ApiClient, acme: str, provisioner: Provisioner, status: int, answer: bytes, phase: str, why: str
) -> None:
    provisioner.status, provisioner.answer = status, answer
    make(api, acme, isolationTier="dedicatedCluster")
    found = api.get(f"/cluster-tenants/{acme}/status").json()
    assert found["phase"] == phase
    assert why in found["message"]
    assert "kind: Config" not in api.get(f"/cluster-tenants/{acme}").content.decode()


def test_without_a_provisioner_the_tier_is_not_available(api: ApiClient, acme: str) -> None:
    refused = api.post("/cluster-tenants", body_of(acme, isolationTier="dedicatedCluster"))
    assert (refused.status_code, refused.json()["code"]) == (422, "TIER_UNAVAILABLE")
    make(api, acme)
    refused = api.put(f"/cluster-tenants/{acme}", {"isolationTier": "dedicatedCluster"})
    assert (refused.status_code, refused.json()["code"]) == (422, "TIER_UNAVAILABLE")


def test_a_cluster_that_goes_away_while_the_place_is_made(api: ApiClient, own_cluster: OwnCluster) -> None:
    make(api, "acme")
    row = ClusterTenant.objects.get()
    now_due()
    own_cluster.stop()
    sweep_places()
    row.refresh_from_db()
    assert row.status_phase == "ready"
    assert "did not answer" in row.status_message
    own_cluster.start()
    now_due()
    sweep_places()
    row.refresh_from_db()
    assert (row.status_phase, row.status_message, row.provision_attempts) == ("ready", "", 0)
