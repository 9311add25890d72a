"""The audit trail as a file: complete, filtered, whatever its size; for those who may read it."""

import csv
import datetime
import io
import json
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Role, User
from accounts.services import issue_token
from conftest import ApiClient, issue
from opencrane.actor import SYSTEM, Actor
from operations import audit_export, job_files
from operations.models import AuditEntry, Job, JobChunk
from operations.services import jobs
from operations.tasks import purge_old

pytestmark = pytest.mark.django_db(transaction=True)


def write(count: int, **values: Any) -> None:
    entry = {
        "action": "tenant.updated",
        "resource": "Tenant/a",
        "message": "m",
        "actor_kind": "user",
        "actor_name": "eva",
    }
    AuditEntry.objects.bulk_create(AuditEntry(**entry | values) for _ in range(count))


def content_of(response: Any) -> bytes:
    """All of a streamed file."""
    return b"".join(response.streaming_content)


def export(client: ApiClient, query: str = "") -> tuple[dict[str, Any], bytes]:
    """The finished job, and its file."""
    response = client.post(f"/audit/export{query}")
    assert response.status_code == 202, response.content
    job = client.get(f"/jobs/{response.json()['id']}").json()
    assert job["status"] == "succeeded", job
    file = client.get(f"/jobs/{job['id']}/file")
    assert file.status_code == 200
    assert file["Content-Disposition"] == f'attachment; filename="{job["result"]["file"]}"'
    body = content_of(file)
    assert len(body) == job["result"]["bytes"]
    return job, body


def test_every_entry_is_in_the_file_as_the_api_shows_it(api: ApiClient, operator_api: ApiClient) -> None:
    write(2300)
    before = api.get("/audit?limit=1000").json()["data"]
    job, body = export(operator_api)
    lines = [json.loads(line) for line in body.decode().splitlines()]
    # That the job has ended is told after it has.
    written = AuditEntry.objects.exclude(action="job.succeeded").order_by("-timestamp", "-id")
    expected = [str(pk) for pk in written.values_list("pk", flat=True)]
    assert [line["id"] for line in lines] == expected
    assert job["result"]["rows"] == len(lines) > 2300
    assert before[5] in lines


def test_filters_of_the_list_are_those_of_the_file(operator_api: ApiClient) -> None:
    old = timezone.now() - datetime.timedelta(days=2)
    write(3, tenant="anna", timestamp=old)
    write(2, tenant="anna")
    write(4, tenant="berta")
    _, body = export(operator_api, "?tenant=anna")
    assert len(body.splitlines()) == 5
    _, body = export(operator_api, f"?tenant=anna&until={(old + datetime.timedelta(days=1)).strftime('%Y-%m-%d')}")
    assert len(body.splitlines()) == 3
    _, body = export(operator_api, "?q=nothing-has-this")
    assert body == b""


def test_csv_is_flat_and_starts_no_formula(operator_api: ApiClient) -> None:
    write(1, message="=cmd|' /C calc'!A0", before={"a": [1, "x,y"]}, actor_token="ci", actor_kind="token")
    _, body = export(operator_api, "?format=csv&action=tenant.updated")
    header, row = csv.reader(io.StringIO(body.decode()))
    entry = dict(zip(header, row, strict=True))
    assert tuple(header) == audit_export.COLUMNS
    assert entry["message"] == "'=cmd|' /C calc'!A0"
    assert json.loads(entry["before"]) == {"a": [1, "x,y"]}
    assert (entry["actorKind"], entry["actorName"], entry["actorToken"], entry["after"]) == ("token", "eva", "ci", "")


def test_bad_parameters_are_named(operator_api: ApiClient) -> None:
    for query, field in (("format=xml", "format"), ("since=yesterday", "since"), ("tenantId=x", "tenantId")):
        response = operator_api.post(f"/audit/export?{query}")
        assert response.status_code == 400
        assert list(response.json()["fields"]) == [field]


def test_readers_may_have_the_file_but_not_start_an_export(operator_api: ApiClient, viewer_api: ApiClient) -> None:
    job, body = export(operator_api)
    assert viewer_api.post("/audit/export").status_code == 403
    assert content_of(viewer_api.get(f"/jobs/{job['id']}/file")) == body
    member = ApiClient(issue(Role.MEMBER))
    assert member.get(f"/jobs/{job['id']}/file").status_code == 403


def test_other_jobs_have_no_file_and_old_files_go(operator_api: ApiClient) -> None:
    job, _ = export(operator_api)
    other = jobs.start_job(kind="nothing", params={}, actor=SYSTEM)
    for missing in (str(other.pk), "00000000-0000-4000-8000-000000000000", "x"):
        assert operator_api.get(f"/jobs/{missing}/file").status_code == 404
    purge_old.delay()
    assert JobChunk.objects.exists()
    JobChunk.objects.update(created_at=timezone.now() - job_files.KEPT - datetime.timedelta(minutes=1))
    purge_old.delay()
    response = operator_api.get(f"/jobs/{job['id']}/file")
    assert response.status_code == 404
    assert "7 days" in response.json()["detail"]


def test_a_run_that_starts_over_leaves_one_file(operator_api: ApiClient) -> None:
    write(1500)
    job, body = export(operator_api, "?action=tenant.updated")
    Job.objects.filter(pk=job["id"]).update(status="queued")
    jobs.run_job(job_id=UUID(job["id"]))
    assert content_of(operator_api.get(f"/jobs/{job['id']}/file")) == body


def test_an_operator_exports_from_the_page_what_it_shows() -> None:
    write(3, tenant="anna")
    write(1, tenant="berta")
    client = Client()
    client.force_login(User.objects.create_user("olga", role=Role.OPERATOR))
    page = client.get("/admin/audit/?tenant=anna").content.decode()
    assert 'action="/admin/audit/export/"' in page
    assert '<input type="hidden" name="tenant" value="anna">' in page
    started = client.post("/admin/audit/export/", {"tenant": "anna", "format": "jsonl"})
    job_page = client.get(started["Location"]).content.decode()
    job = Job.objects.get(kind="audit.export")
    assert f'href="/admin/jobs/{job.pk}/file/"' in job_page
    file = client.get(f"/admin/jobs/{job.pk}/file/")
    assert len(content_of(file).splitlines()) == 3
    refused = client.post("/admin/audit/export/", {"format": "exe"}, follow=True)
    assert "jsonl or csv" in refused.content.decode()


def test_the_trail_names_the_token_that_was_used(api: ApiClient) -> None:
    person = User.objects.create_user("eva", role=Role.OPERATOR)
    actor = Actor(kind="user", name="eva", user_id=person.pk)
    secret = issue_token(name="nightly", role=Role.OPERATOR, creator_role=Role.OPERATOR, actor=actor).secret
    ApiClient(secret).post("/audit/export")
    (entry,) = api.get("/audit?action=job.started").json()["data"]
    assert entry["actor"] == {"kind": "token", "name": "eva", "token": "nightly"}
    with_token = api.get("/audit?action=access_token.created").json()["data"][0]
    assert with_token["actor"] == {"kind": "user", "name": "eva"}
