"""Definitions of another version: missing, without a status, without fields. Said where people look, and survived."""

import copy
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from accounts.models import Role
from accounts.tests.people import signed_in
from cluster import crds
from cluster.client import cluster_client
from cluster.resources import (
    ACCESS_POLICIES,
    CRDS,
    DEPLOYMENTS,
    INGRESSES,
    NETWORK_POLICIES,
    SECRETS,
    SERVICES,
    TENANTS,
    VOLUME_CLAIMS,
    KubeObject,
)
from cluster.tasks import check_definitions
from conftest import ApiClient
from tests.cluster.conftest import ANNA, OwnCluster
from tests.cluster.kube import eventually
from tests.cluster.test_operator import SPEC, People
from workloads import metrics, running, watching

pytestmark = pytest.mark.cluster


def definition(name: str = TENANTS.name) -> KubeObject:
    return copy.deepcopy(next(each for each in crds.definitions() if each["metadata"]["name"] == name))


def without(*fields: str, name: str = TENANTS.name) -> KubeObject:
    """Our definition without some fields (`spec.team`)."""
    made = definition(name)
    properties = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for field in fields:
        part, _, rest = field.partition(".")
        del properties[part]["properties"][rest]
    return made


def put(made: KubeObject) -> None:
    """What `kubectl replace` does with a definition."""
    client = cluster_client()
    name = made["metadata"]["name"]
    live = client.get(CRDS, name)
    assert live is not None
    body = made | {"metadata": made["metadata"] | {"resourceVersion": live["metadata"]["resourceVersion"]}}
    assert client.request("PUT", CRDS.path("", name), body=body)[0] == 200


def mend() -> None:
    crds.install()


@pytest.fixture
def operated(own_cluster: OwnCluster, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    """An operator process on a cluster of its own, started again when it ends, as any supervisor does."""
    monkeypatch.setattr(watching, "WATCH_SECONDS", 2)
    monkeypatch.setattr(watching, "MAX_DELAY", 0.5)
    settings.INGRESS_DOMAIN = "crane.example.com"
    mend()
    stop = threading.Event()
    crashes: list[BaseException] = []

    def supervise() -> None:
        while not stop.is_set() and not crashes:
            try:
                assert running.run(stop), "the lease was lost"
            except BaseException as exc:  # noqa: BLE001 - told to the test
                crashes.append(exc)

    thread = threading.Thread(target=supervise, daemon=True)
    thread.start()
    yield People()
    stop.set()
    thread.join(30)
    assert not crashes


def outdated(name: str = TENANTS.name) -> float | None:
    return metrics.registry.get_sample_value("opencrane_operator_definition_outdated", {"definition": name})


def test_an_operator_lives_through_every_other_definition_and_goes_on_by_itself(operated: People) -> None:
    people = operated
    people.tenants.create("anna", SPEC | {"awarenessWave": "personal"})
    uid = (people.tenants.get("anna") or {})["metadata"]["uid"]
    people.phase("anna", "Running")
    assert outdated() == 0

    # Fields of the status are missing: what can be said is said.
    put(without("status.objects", "status.events", "status.lastReconciled"))
    eventually("the metric tells", lambda: outdated() == 1)
    people.tenants.create("berta", SPEC)
    status = people.phase("berta", "Running")
    assert not {"objects", "events", "lastReconciled"} & set(status)
    mend()
    eventually("all of it is said", lambda: people.status("berta").get("objects"))
    assert outdated() == 0

    # There is no status at all, in either way.
    bare = definition()
    del bare["spec"]["versions"][0]["subresources"]
    statusless = definition()
    del statusless["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    for name, made in (("carla", bare), ("dora", statusless)):
        put(made)
        eventually("the metric tells", lambda: outdated() == 1)
        people.tenants.create(name, SPEC)
        people.there(INGRESSES, f"openclaw-{name}")
        assert not people.status(name)
        mend()
        people.phase(name, "Running")

    # A field of the spec is missing, which one tenant has: to write to it would lose the field for good.
    put(without("spec.awarenessWave", "status.objects"))
    event = people.told("anna", "DefinitionOutdated")
    assert "cuts off spec.awarenessWave of Tenant anna" in event["message"]
    assert event["type"] == "Warning"
    people.delete(SERVICES, "openclaw-anna")
    people.tenants.create("elsa", SPEC)
    people.phase("elsa", "Running")
    assert people.live(SERVICES, "openclaw-anna") is None, "nothing is done on the word of half a spec"
    mend()
    people.there(SERVICES, "openclaw-anna")
    assert people.tenants.spec("anna")["awarenessWave"] == "personal", "nothing of it was lost"
    people.phase("anna", "Running")

    # The version is not served, then the definition is gone, and with it every tenant; their data is not.
    other = definition()
    newer = copy.deepcopy(other["spec"]["versions"][0]) | {"name": "v1beta1"}
    other["spec"]["versions"][0] |= {"served": False, "storage": False}
    other["spec"]["versions"].append(newer)
    put(other)
    eventually("the metric tells", lambda: outdated() == 1)
    assert people.live(DEPLOYMENTS, "openclaw-anna") is not None
    mend()
    eventually("the metric tells", lambda: outdated() == 0)
    people.tenants.edit("anna", {"spec": {"suspended": True}})
    people.phase("anna", "Suspended")
    people.delete(CRDS, TENANTS.name)
    eventually("the metric tells", lambda: outdated() == 1)
    mend()
    people.tenants.create("frida", SPEC)
    people.phase("frida", "Running")
    assert people.live(VOLUME_CLAIMS, f"openclaw-anna-data-{uid}") is not None
    assert people.live(SECRETS, f"openclaw-anna-key-{uid}") is not None


def test_half_a_policy_opens_nothing(operated: People) -> None:
    people = operated
    rule = {"cidr": "192.0.2.0/24", "ports": [443], "protocol": "TCP"}
    people.policies.create("closed", {"tenantSelector": {}, "egressRules": [rule]})
    people.tenants.create("anna", SPEC)
    before = people.there(NETWORK_POLICIES, "openclaw-anna")["spec"]
    people.phase("anna", "Running")
    put(without("spec.egressRules", name=ACCESS_POLICIES.name))
    people.says("anna", "cuts off spec.egressRules of AccessPolicy closed")
    assert people.there(NETWORK_POLICIES, "openclaw-anna")["spec"] == before
    mend()
    people.phase("anna", "Running")
    assert (people.policies.get("closed") or {})["spec"]["egressRules"] == [rule]


def shown(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def figures(api: ApiClient) -> str:
    return str(api.get("/prom").content.decode())


def test_people_are_told_where_they_look(api: ApiClient, own_cluster: OwnCluster) -> None:
    mend()
    client = signed_in(Role.VIEWER)
    assert api.post("/tenants", ANNA).status_code == 201
    pages = ("/admin/", "/admin/fleet/", "/admin/health/", "/admin/tenants/anna/")
    assert "Not checked yet" in shown(client, "/admin/health/")
    check_definitions.delay()
    assert 'opencrane_definition_outdated{definition="tenants.opencrane.io"} 0.0' in figures(api)
    for path in pages:
        assert "install_crds" not in shown(client, path)

    put(without("spec.awarenessWave", "status.objects"))
    check_definitions.delay()
    assert 'opencrane_definition_outdated{definition="tenants.opencrane.io"} 1.0' in figures(api)
    for path in pages:
        text = shown(client, path)
        assert "it lacks spec.awarenessWave, status.objects. Run manage.py install_crds" in text
    refused = api.post("/tenants", ANNA | {"name": "berta", "awarenessWave": "personal"})
    assert (refused.status_code, refused.json()["code"]) == (422, "CLUSTER_REJECTED")
    assert "Run manage.py install_crds" in refused.json()["detail"]

    cluster_client().request("DELETE", CRDS.path("", TENANTS.name))
    check_definitions.delay()
    assert "The cluster has no definition of tenants.opencrane.io." in shown(client, "/admin/health/")
    own_cluster.stop()
    check_definitions.delay()
    own_cluster.start()
    mend()
    assert "The cluster has no definition" in shown(client, "/admin/health/"), "what is not known stays as it was"
    check_definitions.delay()
    for path in pages[:3]:
        assert "install_crds" not in shown(client, path)
