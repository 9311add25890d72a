"""What the cluster refuses is taken back; what it cannot answer now lands later."""

from collections.abc import Callable
from typing import Any

from cluster.models import ClusterHealth, Revision
from cluster.sweep import sweep
from conftest import ApiClient
from operations.models import AuditEntry
from tenants.models import Tenant
from tests.cluster.conftest import ANNA, OwnCluster, work
from tests.cluster.kube import Kubectl


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("timestamp", "id").values_list("action", flat=True))


def test_a_refused_create_leaves_nothing_but_its_audit(api: ApiClient, own_cluster: OwnCluster) -> None:
    answer = api.post("/tenants", ANNA | {"team": "forbidden"})
    assert (answer.status_code, answer.json()["code"]) == (422, "CLUSTER_REJECTED")
    assert "spec.team" in answer.json()["error"]
    assert api.get("/tenants/anna").status_code == 404
    assert Kubectl().get("anna") is None
    assert actions() == ["tenant.created", "tenant.create_rejected"]
    assert not Revision.objects.exists()
    assert api.post("/tenants", ANNA | {"team": "red"}).status_code == 201


def test_a_refused_update_is_taken_back(api: ApiClient, own_cluster: OwnCluster) -> None:
    api.post("/tenants", ANNA | {"team": "red"})
    answer = api.put("/tenants/anna", {"team": "forbidden", "displayName": "New"})
    assert (answer.status_code, answer.json()["code"]) == (422, "CLUSTER_REJECTED")
    detail = api.get("/tenants/anna").json()
    assert (detail["team"], detail["displayName"], detail["sync"]["state"]) == ("red", "Anna", "synced")
    assert Kubectl().spec("anna")["displayName"] == "Anna"
    assert actions() == ["tenant.created", "tenant.updated", "tenant.update_rejected"]
    rejected = AuditEntry.objects.get(action="tenant.update_rejected")
    assert (rejected.before, rejected.after) == (
        {"team": "forbidden", "displayName": "New"},
        {"team": "red", "displayName": "Anna"},
    )
    assert api.put("/tenants/anna", {"team": "blue"}).status_code == 200


def test_a_refused_update_between_two_good_ones_loses_neither(
    api: ApiClient, own_cluster: OwnCluster, no_worker: Callable[[], None]
) -> None:
    api.post("/tenants", ANNA | {"team": "red"})
    no_worker()
    api.put("/tenants/anna", {"displayName": "First"})
    api.put("/tenants/anna", {"team": "forbidden", "monthlyBudgetUsd": 9})
    api.put("/tenants/anna", {"email": "third@example.com"})
    no_worker()
    detail = api.get("/tenants/anna").json()
    wanted = {"displayName": "First", "email": "third@example.com", "team": "red"}
    assert {key: detail[key] for key in wanted} == wanted
    assert detail["monthlyBudgetUsd"] is None
    assert detail["sync"]["state"] == "synced"
    assert Kubectl().spec("anna") == wanted | {"suspended": False}
    assert actions().count("tenant.update_rejected") == 1
    assert api.get("/tenants/drift").json()["summary"]["driftCount"] == 0


def test_a_good_write_of_the_same_field_survives_a_refused_one_before_it(
    api: ApiClient, own_cluster: OwnCluster, no_worker: Callable[[], None]
) -> None:
    api.post("/tenants", ANNA | {"team": "red"})
    no_worker()
    api.put("/tenants/anna", {"team": "forbidden", "monthlyBudgetUsd": 9})
    api.put("/tenants/anna", {"monthlyBudgetUsd": 10})
    no_worker()
    detail = api.get("/tenants/anna").json()
    assert (detail["team"], detail["monthlyBudgetUsd"]) == ("red", 10)
    assert Kubectl().spec("anna")["monthlyBudgetUsd"] == 10


def test_updates_of_a_refused_create_go_with_it(
    api: ApiClient, own_cluster: OwnCluster, no_worker: Callable[[], None]
) -> None:
    api.post("/tenants", ANNA | {"team": "forbidden"})
    api.put("/tenants/anna", {"displayName": "Later"})
    no_worker()
    assert not Tenant.objects.exists()
    assert Kubectl().names() == set()
    assert actions() == ["tenant.created", "tenant.updated", "tenant.create_rejected"]


def test_a_cluster_that_is_away_is_a_504_first_then_a_502_and_the_write_lands(
    api: ApiClient, own_cluster: OwnCluster, settings: Any
) -> None:
    api.post("/tenants", ANNA)
    own_cluster.stop()
    settings.TENANT_CR_APPEARANCE_TIMEOUT_MS = 0
    first = api.put("/tenants/anna", {"team": "blue"})
    assert (first.status_code, first.json()["code"]) == (504, "TIMEOUT")
    detail = api.get("/tenants/anna").json()
    assert (detail["team"], detail["sync"]["state"]) == ("blue", "failing")
    for ask in (
        lambda: api.put("/tenants/anna", {"team": "red"}),
        lambda: api.post("/tenants", ANNA | {"name": "berta"}),
        lambda: api.delete("/tenants/anna"),
        lambda: api.post("/tenants/anna/suspend"),
    ):
        second = ask()
        assert (second.status_code, second.json()["code"]) == (502, "UPSTREAM_ERROR")
        assert "Kubernetes" in second.json()["error"]
    assert api.get("/tenants/drift").status_code == 502
    assert api.get("/tenants").status_code == 200
    own_cluster.start()
    sweep()
    assert ClusterHealth.objects.get().unreachable_since is None
    work()
    assert Kubectl().spec("anna")["team"] == "blue"
    assert api.get("/tenants/anna").json()["sync"]["state"] == "synced"


def test_a_cluster_that_hangs_counts_as_away(api: ApiClient, own_cluster: OwnCluster, settings: Any) -> None:
    api.post("/tenants", ANNA)
    settings.CLUSTER_TIMEOUT_SECONDS = 1
    settings.TENANT_CR_APPEARANCE_TIMEOUT_MS = 0
    own_cluster.freeze()
    assert api.put("/tenants/anna", {"team": "blue"}).status_code == 504
    assert api.put("/tenants/anna", {"team": "red"}).status_code == 502
    own_cluster.thaw()
    work()
    assert Kubectl().spec("anna")["team"] == "blue"


def test_repair_on_a_listing_that_fails_or_is_empty_changes_nothing(api: ApiClient, own_cluster: OwnCluster) -> None:
    for name in ("anna", "berta"):
        api.post("/tenants", ANNA | {"name": name})
    before = list(Tenant.objects.order_by("name").values())
    for name in ("anna", "berta"):
        Kubectl().delete(name)
    for query in ("?dryRun=true", "?dryRun=false"):
        answer = api.post(f"/tenants/repair{query}")
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    own_cluster.stop()
    for query in ("?dryRun=true", "?dryRun=false"):
        answer = api.post(f"/tenants/repair{query}")
        assert (answer.status_code, answer.json()["code"]) == (502, "UPSTREAM_ERROR")
    assert list(Tenant.objects.order_by("name").values()) == before
