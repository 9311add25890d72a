"""A write goes to the row and to the cluster, and neither loses what others did there."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from cluster.client import cluster_client
from cluster.errors import KubeConflictError
from cluster.locks import close_lock_connection
from cluster.models import Outcome, Revision, Tombstone
from cluster.resources import MANAGED_BY, ROW_GENERATION, ROW_ID, TENANTS
from cluster.sweep import sweep
from conftest import API_TOKEN, ApiClient
from operations.models import AuditEntry
from tenants.models import Tenant
from tests.cluster.conftest import ANNA
from tests.cluster.kube import Kubectl

pytestmark = pytest.mark.cluster


def actions(name: str = "anna") -> list[str]:
    return list(AuditEntry.objects.filter(tenant=name).order_by("timestamp", "id").values_list("action", flat=True))


def create(api: ApiClient, **fields: Any) -> None:
    answer = api.post("/tenants", ANNA | fields)
    assert answer.status_code == 201, answer.content


def drift(api: ApiClient) -> dict[str, Any]:
    answer = api.get("/tenants/drift")
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_a_created_tenant_is_in_the_cluster_when_the_answer_comes(api: ApiClient, kubectl: Kubectl) -> None:
    create(
        api,
        team="red",
        monthlyBudgetUsd=12.5,
        resources={"cpu": "500m", "memory": "1Gi"},
        skillAllowlist=["a", "b"],
        mcpPolicy={"allow": ["x"], "deny": []},
        configOverrides={"deep": {"er": [1, None, {"z": True}]}},
    )
    live = kubectl.get("anna")
    row = Tenant.objects.get(name="anna")
    assert live is not None
    assert live["spec"] == {
        "displayName": "Anna",
        "email": "anna@example.com",
        "team": "red",
        "monthlyBudgetUsd": 12.5,
        "resources": {"cpu": "500m", "memory": "1Gi"},
        "skillAllowlist": ["a", "b"],
        "mcpPolicy": {"allow": ["x"], "deny": []},
        "configOverrides": {"deep": {"er": [1, None, {"z": True}]}},
        "suspended": False,
    }
    assert live["metadata"]["annotations"] == {ROW_ID: str(row.pk), ROW_GENERATION: "1"}
    assert live["metadata"]["labels"] == {MANAGED_BY: "opencrane"}
    assert (row.generation, row.observed_generation, row.cluster_uid) == (1, 1, live["metadata"]["uid"])
    assert drift(api)["summary"] == {"sourceCount": 1, "projectionCount": 1, "driftCount": 0, "pendingCount": 0}
    assert actions() == ["tenant.created"]
    assert not Revision.objects.exists()


def test_all_fields_come_back_and_an_update_changes_only_what_it_names(api: ApiClient, kubectl: Kubectl) -> None:
    create(api, team="red", monthlyBudgetUsd=5)
    assert api.put("/tenants/anna", {"team": "blue"}).json() == {"name": "anna", "status": "updated"}
    assert kubectl.spec("anna")["team"] == "blue"
    detail = api.get("/tenants/anna").json()
    assert (detail["team"], detail["monthlyBudgetUsd"], detail["sync"]["state"]) == ("blue", 5, "synced")
    before = AuditEntry.objects.count()
    assert api.put("/tenants/anna", {"team": "blue"}).status_code == 200
    assert AuditEntry.objects.count() == before
    assert Tenant.objects.get(name="anna").generation == 2


def test_an_edit_in_the_cluster_is_drift_and_a_write_of_another_field_leaves_it_alone(
    api: ApiClient, kubectl: Kubectl
) -> None:
    create(api, team="red")
    kubectl.edit("anna", {"spec": {"team": "green"}, "metadata": {"labels": {"owner": "someone"}}})
    assert api.put("/tenants/anna", {"displayName": "Anna B."}).status_code == 200
    live = kubectl.get("anna")
    assert live is not None
    assert (live["spec"]["team"], live["spec"]["displayName"]) == ("green", "Anna B.")
    assert live["metadata"]["labels"] == {MANAGED_BY: "opencrane", "owner": "someone"}
    report = drift(api)
    assert report["summary"]["driftCount"] == 1
    [mismatch] = report["mismatches"]
    assert (mismatch["name"], mismatch["issue"], mismatch["fields"]) == ("anna", "field-mismatch", ["team"])
    assert mismatch["differences"] == [{"field": "team", "cluster": "green", "row": "red"}]
    assert "kubectl-edit" in mismatch["managers"]["team"][0]


def test_a_field_removed_in_the_cluster_is_drift_and_is_not_put_back(api: ApiClient, kubectl: Kubectl) -> None:
    create(api, team="red", monthlyBudgetUsd=5)
    kubectl.edit("anna", {"spec": {"team": None}})
    assert api.put("/tenants/anna", {"monthlyBudgetUsd": 6}).status_code == 200
    assert "team" not in kubectl.spec("anna")
    assert drift(api)["mismatches"][0]["differences"] == [{"field": "team", "cluster": None, "row": "red"}]


def test_a_write_that_names_a_drifted_field_wins(api: ApiClient, kubectl: Kubectl) -> None:
    create(api, team="red")
    kubectl.edit("anna", {"spec": {"team": "green"}})
    assert api.put("/tenants/anna", {"team": "blue"}).status_code == 200
    assert kubectl.spec("anna")["team"] == "blue"
    assert drift(api)["summary"]["driftCount"] == 0


@pytest.mark.parametrize("touch", ["nobody", "same value", "other value"])
def test_clearing_a_field_clears_it_whoever_touched_it_last(api: ApiClient, kubectl: Kubectl, touch: str) -> None:
    create(api, team="red")
    if touch != "nobody":
        kubectl.edit("anna", {"spec": {"team": "green"}})
    if touch == "same value":
        kubectl.edit("anna", {"spec": {"team": "red"}})
    assert api.put("/tenants/anna", {"team": None}).status_code == 200
    assert "team" not in kubectl.spec("anna")
    assert api.get("/tenants/anna").json()["team"] is None
    assert drift(api)["summary"]["driftCount"] == 0


def test_an_update_of_a_resource_deleted_in_the_cluster_is_refused_and_does_not_bring_it_back(
    api: ApiClient, kubectl: Kubectl
) -> None:
    create(api, team="red")
    kubectl.delete("anna")
    answer = api.put("/tenants/anna", {"team": "blue"})
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert kubectl.get("anna") is None
    assert api.get("/tenants/anna").json()["team"] == "red"
    assert drift(api)["mismatches"] == [{"name": "anna", "issue": "missing-source"}]
    assert actions()[-1] == "tenant.update_rejected"
    assert api.post("/tenants/anna/sync").json() == {"name": "anna", "status": "updated"}
    assert kubectl.spec("anna")["team"] == "red"
    assert drift(api)["summary"]["driftCount"] == 0


def test_a_resource_deleted_and_made_again_by_someone_else_is_not_overwritten(api: ApiClient, kubectl: Kubectl) -> None:
    create(api, team="red")
    kubectl.delete("anna")
    kubectl.create("anna", {"displayName": "Other", "email": "other@example.com"})
    assert api.put("/tenants/anna", {"team": "blue"}).status_code == 409
    assert kubectl.spec("anna")["displayName"] == "Other"
    assert api.post("/tenants/anna/sync").status_code == 409
    [mismatch] = drift(api)["mismatches"]
    assert mismatch["fields"] == ["displayName", "email", "team", "metadata.uid"]
    assert api.post("/tenants/repair?dryRun=false").json()["repairedCount"] == 1
    assert drift(api)["summary"]["driftCount"] == 0
    assert api.put("/tenants/anna", {"team": "blue"}).status_code == 200
    assert kubectl.spec("anna")["displayName"] == "Other"


def test_an_apply_with_a_uid_never_creates(kubectl: Kubectl, api: ApiClient) -> None:
    create(api)
    live = kubectl.get("anna")
    assert live is not None
    kubectl.delete("anna")
    late = {
        "apiVersion": TENANTS.api_version,
        "kind": "Tenant",
        "metadata": {"name": "anna", "uid": live["metadata"]["uid"]},
        "spec": live["spec"],
    }
    with pytest.raises(KubeConflictError):
        cluster_client().apply(TENANTS, late, force=True)
    assert kubectl.get("anna") is None


def test_a_name_taken_in_the_cluster_is_a_409_and_what_is_there_stays(api: ApiClient, kubectl: Kubectl) -> None:
    kubectl.create("anna", {"displayName": "Other", "email": "other@example.com"})
    before = kubectl.get("anna")
    answer = api.post("/tenants", ANNA)
    assert (answer.status_code, answer.json()["code"]) == (409, "TENANT_EXISTS")
    assert "repair" in answer.json()["detail"].lower()
    assert kubectl.get("anna") == before
    assert not Tenant.objects.exists()
    assert actions() == ["tenant.created", "tenant.create_rejected"]


def test_a_worker_killed_between_apply_and_record_is_picked_up(
    api: ApiClient, kubectl: Kubectl, no_worker: Callable[[], None]
) -> None:
    assert api.post("/tenants", ANNA | {"team": "red"}).status_code == 504
    row = Tenant.objects.get(name="anna")
    kubectl.create("anna", {"displayName": "Anna", "email": "anna@example.com"}, row_id=str(row.pk))
    no_worker()
    assert kubectl.spec("anna")["team"] == "red"
    assert Tenant.objects.get(name="anna").in_flight is False


def test_without_a_worker_the_answer_is_504_and_the_write_lands_later(
    api: ApiClient, kubectl: Kubectl, no_worker: Callable[[], None]
) -> None:
    answer = api.post("/tenants", ANNA)
    assert (answer.status_code, answer.json()["code"]) == (504, "TIMEOUT")
    assert "queued" in answer.json()["detail"]
    assert api.get("/tenants/anna").json()["sync"]["state"] == "waiting"
    assert drift(api)["summary"]["pendingCount"] == 1
    assert api.put("/tenants/anna", {}).status_code == 504
    no_worker()
    assert api.get("/tenants/anna").json()["sync"]["state"] == "synced"
    assert kubectl.spec("anna")["displayName"] == "Anna"
    assert api.put("/tenants/anna", {}).status_code == 200


def test_writes_in_a_row_end_as_the_last_one_and_every_waiter_learns_it(
    api: ApiClient, kubectl: Kubectl, no_worker: Callable[[], None]
) -> None:
    api.post("/tenants", ANNA)
    for team in ("red", "green", "blue"):
        assert api.put("/tenants/anna", {"team": team}).status_code == 504
    assert Revision.objects.count() == 4
    no_worker()
    assert kubectl.spec("anna")["team"] == "blue"
    assert Revision.objects.count() == 0
    assert set(Outcome.objects.values_list("generation", "state")) == {(n, "confirmed") for n in (1, 2, 3, 4)}


def test_deleting_removes_the_resource_then_the_row(api: ApiClient, kubectl: Kubectl) -> None:
    create(api)
    assert api.delete("/tenants/anna").json() == {"name": "anna", "status": "deleted"}
    assert kubectl.get("anna") is None
    assert api.get("/tenants/anna").status_code == 404
    assert actions() == ["tenant.created", "tenant.delete_requested", "tenant.deleted"]
    assert Tombstone.objects.count() == 1
    create(api)


def test_a_finalizer_holds_the_row_as_deleting(api: ApiClient, kubectl: Kubectl, no_worker: Callable[[], None]) -> None:
    api.post("/tenants", ANNA)
    no_worker()
    kubectl.edit("anna", {"metadata": {"finalizers": ["example.com/hold"]}})
    assert api.delete("/tenants/anna").status_code == 504
    no_worker()
    detail = api.get("/tenants/anna").json()
    assert detail["sync"]["state"] == "deleting"
    assert "example.com/hold" in detail["sync"]["error"]
    assert api.put("/tenants/anna", {"team": "x"}).json()["code"] == "CONFLICT"
    assert api.post("/tenants/anna/suspend").status_code == 409
    assert api.post("/tenants", ANNA).json()["code"] == "TENANT_EXISTS"
    assert api.delete("/tenants/anna").status_code == 504
    assert drift(api)["summary"]["pendingCount"] == 1
    kubectl.edit("anna", {"metadata": {"finalizers": None}})
    no_worker()
    assert api.get("/tenants/anna").status_code == 404
    assert actions().count("tenant.delete_requested") == 1


def test_deleting_leaves_a_resource_that_is_not_ours(api: ApiClient, kubectl: Kubectl) -> None:
    create(api)
    kubectl.delete("anna")
    kubectl.create("anna", {"displayName": "Other", "email": "other@example.com"})
    assert api.delete("/tenants/anna").status_code == 200
    assert kubectl.spec("anna")["displayName"] == "Other"


def test_the_sweep_removes_what_a_late_worker_made_of_a_row_that_is_gone(api: ApiClient, kubectl: Kubectl) -> None:
    create(api)
    row_id = str(Tenant.objects.get(name="anna").pk)
    api.delete("/tenants/anna")
    kubectl.create("anna", {"displayName": "Late", "email": "late@example.com"}, row_id=row_id)
    assert drift(api)["summary"] == {"sourceCount": 1, "projectionCount": 0, "driftCount": 0, "pendingCount": 1}
    sweep()
    assert kubectl.get("anna") is None


def test_suspend_and_resume_are_idempotent(api: ApiClient, kubectl: Kubectl) -> None:
    create(api)
    for _ in range(2):
        answer = api.post("/tenants/anna/suspend", {"reason": "on leave"})
        assert answer.json() == {"name": "anna", "status": "suspended"}
    assert kubectl.spec("anna")["suspended"] is True
    assert api.get("/tenants/anna").json()["phase"] == "Suspended"
    for _ in range(2):
        assert api.post("/tenants/anna/resume").json() == {"name": "anna", "status": "resumed"}
    assert kubectl.spec("anna")["suspended"] is False
    assert actions() == ["tenant.created", "tenant.suspended", "tenant.resumed"]


def in_threads(count: int, ask: Callable[[int, ApiClient], int]) -> list[int]:
    """Ask from many threads at once; their statuses, sorted."""
    barrier = threading.Barrier(count)
    statuses: list[int] = []

    def one(number: int) -> None:
        try:
            client = ApiClient(API_TOKEN)
            barrier.wait(30)
            statuses.append(ask(number, client))
        finally:
            connection.close()
            close_lock_connection()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return sorted(statuses)


def test_of_fifty_creates_of_one_name_one_wins(kubectl: Kubectl, settings: Any) -> None:
    settings.TENANT_CR_APPEARANCE_TIMEOUT_MS = 60_000
    statuses = in_threads(50, lambda _, client: client.post("/tenants", ANNA).status_code)
    assert statuses == [201] + [409] * 49
    assert kubectl.names() == {"anna"}
    assert actions() == ["tenant.created"]


def test_concurrent_updates_end_with_the_cluster_at_the_last_committed_row(
    api: ApiClient, kubectl: Kubectl, no_worker: Callable[[], None]
) -> None:
    api.post("/tenants", ANNA)
    no_worker()

    def update(number: int, client: ApiClient) -> int:
        status = int(client.put("/tenants/anna", {"team": f"team-{number}"}).status_code)
        no_worker()
        return status

    # Some find that another thread's worker has taken their write along already.
    assert set(in_threads(12, update)) <= {200, 504}
    no_worker()
    row = Tenant.objects.get(name="anna")
    assert (row.generation, row.in_flight) == (13, False)
    assert kubectl.spec("anna")["team"] == row.team
    assert drift(api)["summary"]["driftCount"] == 0


def test_if_match_refuses_a_stale_write(api: ApiClient, kubectl: Kubectl) -> None:
    create(api)
    etag = api.get("/tenants/anna").headers["ETag"]
    assert api.put("/tenants/anna", {"team": "red"}, headers={"If-Match": etag}).status_code == 200
    stale = api.put("/tenants/anna", {"team": "blue"}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (412, "PRECONDITION_FAILED")
    assert kubectl.spec("anna")["team"] == "red"
