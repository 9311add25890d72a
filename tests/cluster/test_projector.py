"""What the cluster says about a tenant reaches its row, and moves nothing of ours."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from cluster import projector
from cluster.locks import close_lock_connection
from conftest import ApiClient
from tenants.models import Tenant
from tenants.services.kind import TENANT
from tests.cluster.conftest import ANNA
from tests.cluster.kube import Kubectl

pytestmark = pytest.mark.cluster


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


@pytest.fixture
def followed(kubectl: Kubectl) -> Iterator[None]:
    """The projector at work on tenants."""
    stop = threading.Event()

    def follow() -> None:
        try:
            projector.follow(TENANT, stop)
        finally:
            connection.close()
            close_lock_connection()

    thread = threading.Thread(target=follow)
    thread.start()
    yield
    stop.set()
    # The stream is only looked up from when something comes.
    kubectl.create("last-word", {"displayName": "Last", "email": "last@example.com"})
    thread.join(30)
    assert not thread.is_alive()


def test_status_follows_the_watch_and_intent_does_not_move(api: ApiClient, kubectl: Kubectl, followed: None) -> None:
    api.post("/tenants", ANNA)
    assert api.get("/tenants/anna").json()["phase"] == "Pending"
    before = Tenant.objects.get(name="anna")
    kubectl.set_status("anna", phase="Running", observedGeneration=1, ingressHost="anna.example.com", podName="p-1")
    until("Running", lambda: api.get("/tenants/anna").json()["phase"] == "Running")
    after = Tenant.objects.get(name="anna")
    assert (after.ingress_host, after.pod_name) == ("anna.example.com", "p-1")
    assert (after.generation, after.updated_at) == (before.generation, before.updated_at)
    assert after.status_revision > before.status_revision
    assert api.get("/tenants/anna").headers["ETag"] == f'"1.{after.status_revision}"'
    assert [row["ingressHost"] for row in api.get("/tenants?phase=Running").json()] == ["anna.example.com"]
    assert api.get("/tenants?phase=Pending").json() == []


def test_phase_is_pending_while_the_status_is_older_than_the_spec(
    api: ApiClient, kubectl: Kubectl, followed: None
) -> None:
    api.post("/tenants", ANNA)
    kubectl.set_status("anna", phase="Running", observedGeneration=1)
    until("Running", lambda: api.get("/tenants/anna").json()["phase"] == "Running")
    api.put("/tenants/anna", {"team": "blue"})
    assert api.get("/tenants/anna").json()["phase"] == "Pending"
    kubectl.set_status("anna", phase="Error", observedGeneration=2, message="no image")
    until("Error", lambda: api.get("/tenants/anna").json()["phase"] == "Error")
    api.post("/tenants/anna/suspend")
    assert api.get("/tenants/anna").json()["phase"] == "Suspended"


def test_labels_are_copied_and_a_deletion_clears_the_projection(
    api: ApiClient, kubectl: Kubectl, followed: None
) -> None:
    api.post("/tenants", ANNA)
    kubectl.edit("anna", {"metadata": {"labels": {"cost-centre": "7"}}})
    until("label", lambda: api.get("/tenants/anna").json()["labels"].get("cost-centre") == "7")
    kubectl.set_status("anna", phase="Running", observedGeneration=1)
    until("Running", lambda: api.get("/tenants/anna").json()["phase"] == "Running")
    kubectl.delete("anna")
    until("cleared", lambda: api.get("/tenants/anna").json()["status"] == {})
    detail = api.get("/tenants/anna").json()
    assert (detail["phase"], detail["labels"], detail["ingressHost"]) == ("Pending", {}, None)


def test_a_listing_projects_what_was_missed(api: ApiClient, kubectl: Kubectl) -> None:
    for name in ("anna", "berta", "carla"):
        api.post("/tenants", ANNA | {"name": name})
        kubectl.set_status(name, phase="Running", observedGeneration=1)
    projector.project_listing(TENANT)
    assert len(api.get("/tenants?phase=Running").json()) == 3
    kubectl.delete("anna")
    kubectl.delete("carla")
    revisions = dict(Tenant.objects.values_list("name", "status_revision"))
    projector.project_listing(TENANT)
    assert [row["name"] for row in api.get("/tenants?phase=Running").json()] == ["berta"]
    assert Tenant.objects.get(name="berta").status_revision == revisions["berta"]


def test_the_end_of_a_finalizer_wakes_the_worker_that_waits_for_it(
    api: ApiClient, kubectl: Kubectl, followed: None, settings: object
) -> None:
    settings.TENANT_CR_APPEARANCE_TIMEOUT_MS = 0  # type: ignore[attr-defined]
    api.post("/tenants", ANNA)
    kubectl.edit("anna", {"metadata": {"finalizers": ["example.com/hold"]}})
    assert api.delete("/tenants/anna").status_code == 504
    kubectl.edit("anna", {"metadata": {"finalizers": None}})
    until("gone", lambda: not Tenant.objects.filter(name="anna").exists())
