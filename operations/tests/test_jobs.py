"""Jobs: progress, results, cancel, retry, and workers that die."""

import datetime
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from conftest import ApiClient
from opencrane.actor import SYSTEM, Actor
from opencrane.errors import UpstreamError
from operations import jobs
from operations.errors import JobConflictError
from operations.jobs import JobRun
from operations.models import AuditEntry, Job, JobItem
from operations.services.jobs import MAX_ATTEMPTS, cancel_job, retry_job, run_job, start_job, wait_for_job
from operations.tasks import sweep_jobs

EVA = Actor(kind="user", name="eva", user_id=3, request_id="r-9", address="192.0.2.1")
MISSING = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


@jobs.register("test.count")
def count(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Goes through `items`; those in `bad` fail."""
    keys = [key for key in params["items"] if job.only_keys is None or key in job.only_keys]
    for done, key in enumerate(keys, 1):
        bad = key in params.get("bad", [])
        job.item(key, "failed" if bad else "updated", "no" if bad else "", {"token": "t", "n": done})
        job.progress(done, len(keys))
        job.checkpoint()
    return {"count": len(keys), "by": actor.name}


@jobs.register("test.refused")
def refuse(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    raise UpstreamError("The cluster failed.", detail="Listing broke off.")


@jobs.register("test.crash")
def crash(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    job.item("first", "updated")
    raise RuntimeError("secret")


@jobs.register("test.gated")
def gated(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Says that it runs, and waits to be let go."""
    gate.entered.set()
    assert gate.leave.wait(20)
    job.flush()
    job.checkpoint()
    return {}


class Gate:
    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()


gate = Gate()


@pytest.fixture(autouse=True)
def _fresh_gate() -> Iterator[None]:
    gate.__init__()  # type: ignore[misc]
    yield
    gate.leave.set()


def finished(kind: str, **params: Any) -> Job:
    """A job of that kind, run to its end."""
    job = start_job(kind=kind, params=params, actor=EVA)
    run_job(job_id=job.pk)
    return Job.objects.get(pk=job.pk)


@pytest.mark.django_db
def test_a_job_runs_on_commit_and_reports(api: ApiClient, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = start_job(kind="test.count", params={"items": ["a", "b"]}, actor=EVA)
    shown = api.get(f"/jobs/{job.pk}").json()
    assert shown["status"] == "succeeded"
    assert (shown["done"], shown["total"]) == (2, 2)
    assert shown["result"] == {"count": 2, "by": "eva"}
    assert shown["createdBy"] == "eva"
    assert shown["startedAt"] <= shown["finishedAt"]
    assert [item["key"] for item in shown["items"]] == ["a", "b"]
    assert shown["items"][0]["detail"] == {"token": "***", "n": 1}
    assert set(AuditEntry.objects.values_list("action", "actor_name", "request_id")) == {
        ("job.started", "eva", "r-9"),
        ("job.succeeded", "eva", "r-9"),
    }


@pytest.mark.django_db
def test_a_refusal_fails_the_job_with_its_sentence() -> None:
    job = finished("test.refused")
    assert (job.status, job.error) == ("failed", "The cluster failed. Listing broke off.")
    assert job.result == {
        "error": "The cluster failed.",
        "code": "UPSTREAM_ERROR",
        "detail": "Listing broke off.",
        "status": 502,
    }


@pytest.mark.django_db
def test_a_crash_fails_the_job_keeps_its_items_and_tells_no_secret() -> None:
    job = finished("test.crash")
    assert job.status == "failed"
    assert "RuntimeError" in job.error
    assert "secret" not in job.error
    assert JobItem.objects.get(job=job).key == "first"


@pytest.mark.django_db
def test_an_unknown_kind_fails() -> None:
    assert finished("test.unheard").status == "failed"


@pytest.mark.django_db
def test_only_one_unfinished_job_has_an_exclusive_key(api: ApiClient) -> None:
    first = start_job(kind="test.count", params={"items": []}, actor=EVA, exclusive_key="k")
    with pytest.raises(JobConflictError) as refused:
        start_job(kind="test.count", params={"items": []}, actor=EVA, exclusive_key="k")
    assert str(first.pk) in refused.value.detail
    start_job(kind="test.count", params={"items": []}, actor=EVA, exclusive_key="other")
    run_job(job_id=first.pk)
    start_job(kind="test.count", params={"items": []}, actor=EVA, exclusive_key="k")


@pytest.mark.django_db
def test_a_queued_job_is_cancelled_at_once_and_never_runs(api: ApiClient) -> None:
    job = start_job(kind="test.count", params={"items": ["a"]}, actor=EVA)
    response = api.post(f"/jobs/{job.pk}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    run_job(job_id=job.pk)
    assert not JobItem.objects.exists()
    again = api.post(f"/jobs/{job.pk}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")


@pytest.mark.django_db
def test_retry_works_on_what_failed(api: ApiClient, django_capture_on_commit_callbacks: Any) -> None:
    job = finished("test.count", items=["a", "b", "c"], bad=["b"])
    assert job.status == "succeeded"
    with django_capture_on_commit_callbacks(execute=True):
        response = api.post(f"/jobs/{job.pk}/retry")
    assert response.status_code == 202
    again = api.get(f"/jobs/{response.json()['id']}").json()
    assert again["retryOf"] == str(job.pk)
    assert again["createdBy"] == "api-token"
    assert [item["key"] for item in again["items"]] == ["b"]


@pytest.mark.django_db
def test_what_went_well_or_still_runs_is_not_retried(api: ApiClient) -> None:
    assert api.post(f"/jobs/{finished('test.count', items=['a']).pk}/retry").status_code == 409
    queued = start_job(kind="test.count", params={"items": []}, actor=EVA)
    assert api.post(f"/jobs/{queued.pk}/retry").status_code == 409


@pytest.mark.django_db
@pytest.mark.parametrize("path", [f"/jobs/{MISSING}", "/jobs/nonsense"])
def test_an_unknown_job_is_a_404(api: ApiClient, path: str) -> None:
    for response in (api.get(path), api.post(f"{path}/cancel"), api.post(f"{path}/retry")):
        assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.django_db
def test_jobs_and_items_are_paged(api: ApiClient, django_assert_num_queries: Any) -> None:
    for _ in range(5):
        start_job(kind="test.count", params={"items": []}, actor=EVA)
    big = finished("test.count", items=[f"k{n:03}" for n in range(250)], bad=["k007"])

    def walk(path: str, pick: Any) -> list[Any]:
        found = []
        while path:
            response = api.get(path)
            assert response.status_code == 200
            found += pick(response.json())
            path = response.headers.get("Link", "").removeprefix("<").partition(">")[0]
        return found

    assert len({job["id"] for job in walk("/jobs?limit=2", lambda page: page)}) == 6
    assert len(walk("/jobs", lambda page: page)) == 6
    keys = [item["key"] for item in walk(f"/jobs/{big.pk}?limit=60", lambda page: page["items"])]
    assert keys == [f"k{n:03}" for n in range(250)]
    assert len(api.get(f"/jobs/{big.pk}").json()["items"]) == 100
    assert [item["key"] for item in api.get(f"/jobs/{big.pk}?outcome=failed").json()["items"]] == ["k007"]
    assert len(api.get("/jobs?status=succeeded").json()) == 1
    assert api.get("/jobs?status=done").status_code == 400
    with django_assert_num_queries(2):
        api.get(f"/jobs/{big.pk}")


def in_thread(job: Job) -> threading.Thread:
    def work() -> None:
        try:
            run_job(job_id=job.pk)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert gate.entered.wait(10)
    return thread


def queue(kind: str, **params: Any) -> Job:
    """A queued job whose message was lost."""
    return Job.objects.create(kind=kind, params=params, actor_kind="user", actor_name="eva")


@pytest.mark.django_db(transaction=True)
def test_a_running_job_stops_at_its_next_checkpoint() -> None:
    job = queue("test.gated")
    thread = in_thread(job)
    cancel_job(job_id=job.pk, actor=SYSTEM)
    assert Job.objects.get().status == "running"
    gate.leave.set()
    thread.join()
    assert Job.objects.get().status == "cancelled"


@pytest.mark.django_db(transaction=True)
def test_a_second_worker_leaves_a_running_job_alone() -> None:
    job = queue("test.gated")
    thread = in_thread(job)
    gate.entered.clear()
    run_job(job_id=job.pk)
    assert not gate.entered.is_set()
    gate.leave.set()
    thread.join()
    assert Job.objects.get().attempts == 1


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_worker_went_silent_is_taken_over_and_the_old_one_writes_nothing() -> None:
    job = queue("test.gated")
    thread = in_thread(job)
    Job.objects.update(heartbeat_at=timezone.now() - datetime.timedelta(seconds=60), kind="test.count")
    Job.objects.update(params={"items": ["a"]})
    sweep_jobs()
    assert (Job.objects.get().status, Job.objects.get().attempts) == ("succeeded", 2)
    gate.leave.set()
    thread.join()
    assert Job.objects.get().result == {"count": 1, "by": "eva"}


@pytest.mark.django_db(transaction=True)
def test_the_sweep_finds_what_the_broker_lost_and_gives_up_on_what_kills_its_worker() -> None:
    long_ago = timezone.now() - datetime.timedelta(seconds=60)
    young = queue("test.count", items=["a"])
    lost = queue("test.count", items=["a"])
    Job.objects.filter(pk=lost.pk).update(created_at=long_ago)
    deadly = queue("test.count", items=["a"])
    Job.objects.filter(pk=deadly.pk).update(status="running", heartbeat_at=long_ago, attempts=MAX_ATTEMPTS)
    unwanted = queue("test.count", items=["a"])
    Job.objects.filter(pk=unwanted.pk).update(status="running", heartbeat_at=long_ago, cancel_requested=True)
    sweep_jobs()
    states = dict(Job.objects.values_list("pk", "status"))
    assert states == {young.pk: "queued", lost.pk: "succeeded", deadly.pk: "failed", unwanted.pk: "cancelled"}


@pytest.mark.django_db(transaction=True)
def test_waiting_holds_no_connection_and_ends_with_the_job_or_the_time() -> None:
    job = queue("test.gated")
    assert wait_for_job(job.pk, 0.05).status == "queued"
    thread = in_thread(job)
    waited: list[Job] = []

    def wait() -> None:
        waited.append(wait_for_job(job.pk, 20))
        connection.close()

    waiter = threading.Thread(target=wait)
    waiter.start()
    gate.leave.set()
    thread.join()
    waiter.join()
    assert waited[0].status == "succeeded"


@pytest.mark.django_db
def test_retry_of_a_cancelled_job_starts_over() -> None:
    job = start_job(kind="test.count", params={"items": ["a"]}, actor=EVA)
    cancel_job(job_id=job.pk, actor=EVA)
    again = retry_job(job_id=job.pk, actor=EVA)
    run_job(job_id=again.pk)
    assert Job.objects.get(pk=again.pk).status == "succeeded"
    assert JobItem.objects.get().key == "a"
