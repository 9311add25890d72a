"""Console pages of operations: audit, jobs, health."""

import datetime
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Role
from accounts.tests.people import signed_in
from cluster.models import DriftEvaluation, DriftFinding
from operations.models import AuditEntry, Job, JobItem

pytestmark = pytest.mark.django_db


def entry(message: str, **fields: Any) -> AuditEntry:
    values = {"action": "tenant.updated", "resource": "Tenant/anna", "tenant": "anna", "actor_kind": "user",
              "actor_name": "ines", "request_id": "r1"}  # fmt: skip
    return AuditEntry.objects.create(message=message, **values | fields)


def job(**fields: Any) -> Job:
    values = {"kind": "cluster.repair", "params": {"kind": "Tenant"}, "actor_kind": "user", "actor_name": "ines"}
    return Job.objects.create(**values | fields)


def messages(client: Client, query: str) -> list[str]:
    answer = client.get(f"/admin/audit/?{query}")
    assert answer.status_code == 200
    return re.findall(r'<p class="oc-row"><span class="oc-strong">([^<]*)</span></p>', answer.content.decode())


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.ADMIN)


def test_audit_is_narrowed_by_each_facet(admin: Client) -> None:
    old = timezone.now() - datetime.timedelta(days=10)
    entry("one", timestamp=old)
    entry("two", action="job.started", resource="Job/1", tenant="", actor_name="otto", request_id="r2")
    entry("three is 100% done", request_id="r2")
    assert messages(admin, "") == ["three is 100% done", "two", "one"]
    assert messages(admin, "action=job.*") == ["two"]
    assert messages(admin, "kind=Job") == ["two"]
    assert messages(admin, "actor=otto") == ["two"]
    assert messages(admin, "tenant=anna") == ["three is 100% done", "one"]
    assert messages(admin, "request=r2") == ["three is 100% done", "two"]
    assert messages(admin, "q=100%25") == ["three is 100% done"]
    assert messages(admin, f"until={old:%Y-%m-%d}") == ["one"]
    assert messages(admin, f"since={old:%Y-%m-%d}&until={old:%Y-%m-%d}") == ["one"]
    assert messages(admin, "since=not-a-date&kind=nonsense") == ["three is 100% done", "two", "one"]


def test_audit_pages_go_on_where_the_last_one_ended(admin: Client) -> None:
    for number in range(60):
        entry(f"entry {number}")
    first = admin.get("/admin/audit/").content.decode()
    following = re.search(r'rel="next" href="\?*([^"]+)"', first)
    assert following
    seen = messages(admin, "") + messages(admin, following.group(1).partition("?")[2])
    assert seen == [f"entry {number}" for number in reversed(range(60))]


def test_one_entry_shows_what_changed(admin: Client) -> None:
    shown = entry("changed", before={"team": "red"}, after={"team": "green"})
    for path in (f"/admin/audit/{shown.pk}/", f"/admin/audit/{shown.pk}/?part=diff"):
        text = admin.get(path).content.decode()
        assert '<td class="oc-before">red</td><td class="oc-after">green</td>' in text
    assert admin.get("/admin/audit/999999/").status_code == 404


def test_a_job_shows_failures_first_and_follows_itself_until_it_ends(admin: Client) -> None:
    shown = job(status=Job.Status.RUNNING, done=1, total=4)
    JobItem.objects.create(job=shown, key="bert", outcome="updated")
    JobItem.objects.create(job=shown, key="anna", outcome="failed", message="no such field")
    part = admin.get(f"/admin/jobs/{shown.pk}/?part=progress")
    assert "every 1s" in part.content.decode()
    assert 'aria-valuenow="25"' in part.content.decode()
    assert "HX-Refresh" not in part
    Job.objects.update(status=Job.Status.FAILED, error="It went wrong.")
    part = admin.get(f"/admin/jobs/{shown.pk}/?part=progress")
    assert part["HX-Refresh"] == "true"
    text = admin.get(f"/admin/jobs/{shown.pk}/").content.decode()
    assert "every 1s" not in text
    assert text.index("no such field") < text.index("bert")
    assert "Retry 1 failed" in text
    assert "bert" not in admin.get(f"/admin/jobs/{shown.pk}/?outcome=failed").content.decode()


def test_a_queued_job_is_cancelled_and_a_finished_one_is_not(admin: Client) -> None:
    queued, done = job(), job(status=Job.Status.SUCCEEDED)
    answer = admin.post(f"/admin/jobs/{queued.pk}/cancel/", follow=True)
    assert "The job is cancelled." in answer.content.decode()
    queued.refresh_from_db()
    assert queued.status == Job.Status.CANCELLED
    answer = admin.post(f"/admin/jobs/{done.pk}/cancel/", follow=True)
    assert "The job is succeeded." in answer.content.decode()


def test_viewers_cannot_cancel_or_retry() -> None:
    viewer, shown = signed_in(Role.VIEWER), job()
    assert "Cancel" not in viewer.get(f"/admin/jobs/{shown.pk}/").content.decode()
    for action in ("cancel", "retry"):
        assert viewer.post(f"/admin/jobs/{shown.pk}/{action}/").status_code == 403
    shown.refresh_from_db()
    assert shown.status == Job.Status.QUEUED


@pytest.mark.parametrize(
    ("evaluation", "reason"),
    [
        ({"failed_at": timezone.now(), "error": "connection refused"}, "The last check failed"),
        ({"source_count": 0, "projection_count": 7}, "The cluster lists no resource at all, while 7 rows exist"),
        ({}, ""),
    ],
)
def test_repair_is_off_when_nobody_knows_what_is_missing(admin: Client, evaluation: Any, reason: str) -> None:
    now = timezone.now()
    DriftEvaluation.objects.create(**{"kind": "Tenant", "evaluated_at": now, "source_count": 7} | evaluation)
    DriftFinding.objects.create(kind="Tenant", name="anna", issue="missing-projection", since=now, evaluated_at=now)
    text = admin.get("/admin/drift/Tenant/").content.decode()
    button = re.search(r'<button type="submit" name="scope" value="all"[^>]*>', text)
    assert button
    assert ("disabled" in button.group()) == bool(reason)
    assert reason in text


def test_health_names_each_dependency(admin: Client) -> None:
    text = admin.get("/admin/health/").content.decode()
    for name in ("PostgreSQL", "Broker", "Kubernetes API server"):
        assert name in text
