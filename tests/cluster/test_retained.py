"""What deleted tenants leave, who gets it, and what is let go or suspended by itself."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from awareness.models import ParticipationEvent
from cluster.client import cluster_client
from cluster.projector import project_listing
from cluster.resources import SECRETS, VOLUME_CLAIMS
from conftest import ApiClient
from operations.models import AuditEntry
from tenants.models import RetainedData, Tenant
from tenants.services import idle, release, retained
from tenants.services.kind import TENANT
from tests.cluster.conftest import ANNA
from tests.cluster.kube import Kubectl, eventually
from workloads.naming import DATA_UID, FINALIZER, PURGE

pytestmark = pytest.mark.cluster


def claim_of(uid: str) -> str:
    return f"openclaw-anna-data-{uid}"


def operated(api: ApiClient, kubectl: Kubectl, **fields: Any) -> str:
    """A tenant with a volume and a key, as the operator makes them; the uid they are named after."""
    answer = api.post("/tenants", ANNA | fields)
    assert answer.status_code == 201, answer.content
    live = kubectl.get("anna")
    assert live is not None
    metadata = live["metadata"]
    uid: str = metadata["annotations"].get(DATA_UID) or metadata["uid"]
    if DATA_UID not in metadata["annotations"]:
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim_of(uid)}, "spec": claim}
        cluster_client().create(VOLUME_CLAIMS, body)
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"openclaw-anna-key-{uid}"}}
        cluster_client().create(SECRETS, body)
    report(kubectl, uid)
    return uid


def report(kubectl: Kubectl, uid: str, **status: Any) -> None:
    """What the operator says of the tenant, and the projector copies."""
    objects = [{"kind": "PersistentVolumeClaim", "name": claim_of(uid), "state": "Bound"}]
    kubectl.set_status("anna", phase="Running", observedGeneration=1, objects=objects, **status)
    project_listing(TENANT)


def has_data(uid: str) -> bool:
    client = cluster_client()
    found = [client.get(VOLUME_CLAIMS, claim_of(uid)), client.get(SECRETS, f"openclaw-anna-key-{uid}")]
    return all(live is not None for live in found)


def test_an_old_name_with_data_is_refused_unless_an_administrator_takes_it_over(
    api: ApiClient, operator_api: ApiClient, kubectl: Kubectl
) -> None:
    uid = operated(api, kubectl)
    assert api.delete("/tenants/anna").status_code == 200
    [found] = api.get("/retained-data").json()
    assert (found["tenant"], found["volumeClaim"], found["status"]) == ("anna", claim_of(uid), "retained")
    answer = api.post("/tenants", ANNA)
    assert (answer.status_code, answer.json()["code"]) == (409, "DATA_RETAINED")
    assert kubectl.get("anna") is None
    assert not Tenant.objects.exists()
    assert operator_api.post("/tenants", ANNA | {"adoptRetained": True}).status_code == 403

    assert api.post("/tenants", ANNA | {"adoptRetained": True}).status_code == 201
    live = kubectl.get("anna")
    assert live is not None
    assert live["metadata"]["annotations"][DATA_UID] == uid
    assert uid in AuditEntry.objects.filter(action="tenant.created").latest("id").message
    assert api.get("/retained-data").json() == []
    # What it took over is left by it in turn.
    report(kubectl, uid)
    assert api.delete("/tenants/anna").status_code == 200
    assert [each["volumeClaim"] for each in api.get("/retained-data?tenant=anna").json()] == [claim_of(uid)]
    assert has_data(uid)


def test_a_tenant_that_never_ran_leaves_nothing_and_there_is_nothing_to_take_over(
    api: ApiClient, kubectl: Kubectl
) -> None:
    assert api.post("/tenants", ANNA).status_code == 201
    assert api.delete("/tenants/anna").status_code == 200
    answer = api.post("/tenants", ANNA | {"adoptRetained": True})
    assert (answer.status_code, list(answer.json()["fields"])) == (422, ["adoptRetained"])
    assert api.post("/tenants", ANNA).status_code == 201


def test_retained_data_is_deleted_when_asked_for(api: ApiClient, kubectl: Kubectl) -> None:
    uid = operated(api, kubectl)
    api.delete("/tenants/anna")
    [found] = api.get("/retained-data").json()
    assert api.delete("/retained-data/00000000-0000-4000-8000-000000000000").status_code == 404
    answer = api.delete(f"/retained-data/{found['id']}")
    assert (answer.status_code, answer.json()) == (200, {"id": found["id"], "status": "deleted"})
    assert not has_data(uid)
    assert api.get("/retained-data").json() == []
    assert AuditEntry.objects.filter(action="retained_data.delete_requested", tenant="anna").exists()
    assert api.post("/tenants", ANNA).status_code == 201


def test_data_that_somebody_has_deleted_is_forgotten(api: ApiClient, kubectl: Kubectl) -> None:
    uid = operated(api, kubectl)
    api.delete("/tenants/anna")
    retained.sweep()
    assert RetainedData.objects.count() == 1
    client = cluster_client()
    client.request("DELETE", VOLUME_CLAIMS.path(client.namespace, claim_of(uid)))
    eventually("the claim is gone", lambda: client.get(VOLUME_CLAIMS, claim_of(uid)) is None)
    retained.sweep()
    assert not RetainedData.objects.exists()


def test_purging_is_told_to_the_operator_before_the_resource_goes(
    api: ApiClient, kubectl: Kubectl, no_worker: Callable[[], None], settings: Any
) -> None:
    settings.TENANT_CR_APPEARANCE_TIMEOUT_MS = 0
    api.post("/tenants", ANNA)
    no_worker()
    kubectl.edit("anna", {"metadata": {"finalizers": ["example.com/hold"], "annotations": {"theirs": "stays"}}})
    report(kubectl, "some-uid")
    assert api.delete("/tenants/anna?purge=true").status_code == 504
    no_worker()
    live = kubectl.get("anna")
    assert live is not None
    assert live["metadata"]["deletionTimestamp"]
    annotations = live["metadata"]["annotations"]
    assert (annotations[PURGE], annotations["theirs"]) == ("true", "stays")
    kubectl.edit("anna", {"metadata": {"finalizers": None}})
    no_worker()
    assert not Tenant.objects.exists()
    assert not RetainedData.objects.exists()


def test_a_resource_that_is_made_again_gets_the_same_data(api: ApiClient, kubectl: Kubectl) -> None:
    uid = operated(api, kubectl)
    kubectl.delete("anna")
    project_listing(TENANT)
    assert api.post("/tenants/anna/sync").status_code == 200
    live = kubectl.get("anna")
    assert live is not None
    assert live["metadata"]["uid"] != uid
    assert live["metadata"]["annotations"][DATA_UID] == uid


def test_a_tenant_that_nobody_lets_go_can_be_let_go(
    api: ApiClient, kubectl: Kubectl, no_worker: Callable[[], None]
) -> None:
    api.post("/tenants", ANNA)
    no_worker()
    kubectl.edit("anna", {"metadata": {"finalizers": [FINALIZER]}})
    release.take_finalizer("anna")
    assert FINALIZER in (kubectl.get("anna") or {})["metadata"]["finalizers"], "only of what is being deleted"
    api.delete("/tenants/anna")
    no_worker()
    assert FINALIZER in Tenant.objects.get().sync_error
    release.take_finalizer("anna")
    assert kubectl.get("anna") is None
    no_worker()
    assert not Tenant.objects.exists()


# -- idle tenants -----------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(api: ApiClient, kubectl: Kubectl, settings: Any) -> Tenant:
    """A tenant that has been running for two hours; thirty minutes may pass without anybody using it."""
    settings.IDLE_SUSPEND_MINUTES = 30
    api.post("/tenants", ANNA)
    two_hours_ago = timezone.now() - datetime.timedelta(hours=2)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": two_hours_ago.strftime("%Y-%m-%dT%H:%M:%SZ")}
    report(kubectl, "some-uid", conditions=[ready])
    Tenant.objects.update(updated_at=two_hours_ago)
    return Tenant.objects.get()


def reported(tenant: Tenant, kind: str, minutes: int) -> None:
    at = timezone.now() - datetime.timedelta(minutes=minutes)
    ParticipationEvent.objects.create(
        tenant_id=tenant.pk, idempotency_key=f"{kind} {minutes}", kind=kind, occurred_at=at, received_at=at
    )


def test_an_idle_tenant_is_suspended_like_any_other(quiet: Tenant, api: ApiClient, kubectl: Kubectl) -> None:
    reported(quiet, "heartbeat", 1)
    reported(quiet, "skill_execution", 45)
    assert idle.suspend_idle() == 1
    assert kubectl.spec("anna")["suspended"] is True
    entry = AuditEntry.objects.filter(action="tenant.suspended").latest("id")
    assert "30 minutes" in entry.message
    assert api.get("/tenants/drift").json()["summary"]["driftCount"] == 0
    assert idle.suspend_idle() == 0


@pytest.mark.parametrize("what", ["used", "changed", "just ready", "off"])
def test_who_is_active_goes_on_running(quiet: Tenant, kubectl: Kubectl, settings: Any, what: str) -> None:
    match what:
        case "used":
            reported(quiet, "skill_execution", 5)
        case "changed":
            Tenant.objects.update(updated_at=timezone.now())
        case "just ready":
            now = timezone.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            report(kubectl, "some-uid", conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": now}])
        case "off":
            settings.IDLE_SUSPEND_MINUTES = 0
    assert idle.suspend_idle() == 0
    assert kubectl.spec("anna")["suspended"] is False
