"""Drift is found with the right fields; repair lets the custom resource win and deletes nothing."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster.client import cluster_client
from cluster.evaluation import evaluate
from cluster.models import DriftEvaluation, DriftFinding
from cluster.resources import TENANTS
from conftest import ApiClient
from operations.models import AuditEntry, Job
from tenants.models import Tenant
from tests.cluster.conftest import ANNA
from tests.cluster.kube import Kubectl

pytestmark = pytest.mark.cluster


def fleet(api: ApiClient, *names: str) -> None:
    for name in names:
        assert api.post("/tenants", ANNA | {"name": name, "team": "red"}).status_code == 201


def test_repair_takes_over_what_the_cluster_has(api: ApiClient, kubectl: Kubectl) -> None:
    fleet(api, "anna", "berta", "carla")
    kubectl.edit("anna", {"spec": {"team": "green", "monthlyBudgetUsd": 7, "displayName": "Anna B."}})
    kubectl.delete("berta")
    kubectl.create("dora", {"displayName": "Dora", "email": "dora@example.com", "skillAllowlist": ["a"]})
    report = api.get("/tenants/drift").json()
    assert report["resource"] == "Tenant"
    assert report["mode"] == "detect-only"
    assert report["summary"] == {"sourceCount": 3, "projectionCount": 3, "driftCount": 3, "pendingCount": 0}
    assert [(m["name"], m["issue"]) for m in report["mismatches"]] == [
        ("anna", "field-mismatch"),
        ("berta", "missing-source"),
        ("dora", "missing-projection"),
    ]
    assert report["mismatches"][0]["fields"] == ["displayName", "monthlyBudgetUsd", "team"]

    plan = api.post("/tenants/repair").json()
    assert (plan["mode"], plan["repairedCount"], plan["skippedCount"]) == ("dry-run", 2, 1)
    assert all(entry["dryRun"] for entry in plan["entries"])
    assert api.get("/tenants/drift").json()["summary"]["driftCount"] == 3

    done = api.post("/tenants/repair?dryRun=false").json()
    assert (done["mode"], done["repairedCount"], done["skippedCount"]) == ("apply", 2, 1)
    assert [(e["name"], e["action"], e["dryRun"]) for e in done["entries"]] == [
        ("anna", "updated", False),
        ("berta", "skipped", False),
        ("dora", "created", False),
    ]
    anna, dora = api.get("/tenants/anna").json(), api.get("/tenants/dora").json()
    assert (anna["team"], anna["monthlyBudgetUsd"], anna["displayName"]) == ("green", 7, "Anna B.")
    assert (dora["email"], dora["skillAllowlist"]) == ("dora@example.com", ["a"])
    assert api.get("/tenants/berta").status_code == 200
    left = api.get("/tenants/drift").json()["mismatches"]
    assert [m["name"] for m in left] == ["berta"]
    audited = AuditEntry.objects.filter(action="tenant.repaired").order_by("tenant")
    assert next((e.tenant, e.before, e.after) for e in audited) == (
        "anna",
        {"team": "red", "displayName": "Anna"},
        {"team": "green", "displayName": "Anna B.", "monthlyBudgetUsd": 7},
    )
    assert [e.tenant for e in audited] == ["anna", "dora"]
    assert api.put("/tenants/dora", {"team": "blue"}).status_code == 200
    assert kubectl.spec("dora")["team"] == "blue"


def test_repair_of_chosen_names_leaves_the_others(api: ApiClient, kubectl: Kubectl) -> None:
    fleet(api, "anna", "berta")
    for name in ("anna", "berta"):
        kubectl.edit(name, {"spec": {"team": "green"}})
    answer = api.post("/tenants/repair?dryRun=false", {"names": ["berta"]})
    assert [entry["name"] for entry in answer.json()["entries"]] == ["berta"]
    assert [m["name"] for m in api.get("/tenants/drift").json()["mismatches"]] == ["anna"]


def test_a_resource_that_the_api_would_not_accept_is_skipped_with_the_reason(api: ApiClient, kubectl: Kubectl) -> None:
    fleet(api, "anna")
    kubectl.create("drift", {"displayName": "Drift", "email": "drift@example.com"})
    [entry] = api.post("/tenants/repair?dryRun=false").json()["entries"]
    assert (entry["name"], entry["action"]) == ("drift", "skipped")
    assert "reserved" in entry["reason"]


def test_a_long_repair_answers_202_and_ends_as_a_job(api: ApiClient, kubectl: Kubectl, settings: Any) -> None:
    from opencrane.celery import app as celery_app
    from operations.services.jobs import run_job

    fleet(api, "anna")
    kubectl.edit("anna", {"spec": {"team": "green"}})
    settings.REPAIR_WAIT_SECONDS = 0
    celery_app.conf.task_always_eager = False
    try:
        answer = api.post("/tenants/repair?dryRun=false")
        again = api.post("/tenants/repair?dryRun=false")
    finally:
        celery_app.conf.task_always_eager = True
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert again.json()["code"] == "CONFLICT"
    job_id = answer.json()["jobId"]
    run_job(job_id=Job.objects.get(pk=job_id).pk)
    job = api.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["done"], job["total"], job["result"]["repairedCount"]) == ("succeeded", 1, 1, 1)
    assert job["items"][0]["key"] == "anna"
    assert api.get("/tenants/anna").json()["team"] == "green"


def test_the_evaluation_keeps_since_and_forgets_what_is_mended(api: ApiClient, kubectl: Kubectl) -> None:
    fleet(api, "anna", "berta")
    kubectl.edit("anna", {"spec": {"team": "green"}})
    evaluate("Tenant")
    first = DriftFinding.objects.get()
    assert (first.name, first.fields, first.differences) == (
        "anna",
        ["team"],
        [{"field": "team", "row": "red", "cluster": "green"}],
    )
    evaluate("Tenant")
    second = DriftFinding.objects.get()
    assert second.since == first.since
    assert second.evaluated_at > first.evaluated_at
    kubectl.edit("anna", {"spec": {"team": "red"}})
    evaluate("Tenant")
    assert not DriftFinding.objects.exists()
    evaluation = DriftEvaluation.objects.get()
    assert (evaluation.drift_count, evaluation.source_count, evaluation.error) == (0, 2, "")


def test_comparing_costs_one_query_for_each_500_rows(kubectl: Kubectl, api: ApiClient) -> None:
    def queries(count: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            report = api.get("/tenants/drift").json()
        assert report["summary"] == {
            "sourceCount": count,
            "projectionCount": count,
            "driftCount": 0,
            "pendingCount": 0,
        }
        return len(captured)

    fill(0, 20)
    small = queries(20)
    fill(20, 480)
    medium = queries(480)
    fill(480, 1400)
    large = queries(1400)
    assert small == medium
    assert large == small + 2


def fill(start: int, end: int) -> None:
    """Tenants as a sync would have left them, without going through it one by one."""
    client, rows = cluster_client(), []
    for number in range(start, end):
        name, spec = f"t{number:05}", {"displayName": "T", "email": "t@example.com"}
        body = {"apiVersion": TENANTS.api_version, "kind": "Tenant", "metadata": {"name": name}, "spec": spec}
        _, live = client.request("POST", TENANTS.path(client.namespace), body=body)
        rows.append(
            Tenant(
                name=name,
                display_name="T",
                email="t@example.com",
                generation=1,
                observed_generation=1,
                confirmed_spec=live["spec"],
                cluster_uid=live["metadata"]["uid"],
            )
        )
    Tenant.objects.bulk_create(rows)


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "team": st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?", fullmatch=True),
            "monthlyBudgetUsd": st.decimals(0, 10**9, places=4).map(float) | st.integers(0, 10**9),
            "resources": st.fixed_dictionaries(
                {},
                optional={
                    "cpu": st.sampled_from(["1", "1000m", "0.5", "1e3"]),
                    "memory": st.sampled_from(["1Gi", "1024Mi"]),
                },
            ),
            "skillAllowlist": st.lists(text, max_size=4),
            "configOverrides": st.dictionaries(text, json_values, max_size=4),
            "mcpPolicy": st.fixed_dictionaries({}, optional={"allow": st.lists(text, max_size=3)}),
            "displayName": text.filter(lambda value: value.strip() != ""),
        },
    )
)
# What JSON may hold as it is and YAML may not.
@example(body={"displayName": "a\x7fb\ufeff", "configOverrides": {"k\x80\x85": ["\u2028\u2029", "\ufffe\U0001f600"]}})
def test_a_fresh_write_is_never_drifted(api: ApiClient, kubectl: Kubectl, body: dict[str, Any]) -> None:
    if not Tenant.objects.filter(name="anna").exists():
        fleet(api, "anna")
    answer = api.put("/tenants/anna", body)
    assert answer.status_code == 200, answer.content
    report = api.get("/tenants/drift").json()
    assert report["mismatches"] == []
    assert report["summary"]["pendingCount"] == 0
