"""Console pages of third-party sources and of the OCI store."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Role
from accounts.tests.people import signed_in
from opencrane.addresses import parse_networks
from opencrane.celery import app as celery_app
from operations.models import AuditEntry, Job
from policies.tests.test_console import text_of
from skills.models import SkillBundle, SourceImport, SourceItem, ThirdPartySource
from skills.oci.artifact import digest_of
from skills.services import backfill
from skills.tests.upstream import Repository, Upstream, upstream_in

pytestmark = pytest.mark.django_db

NASTY = '<script>alert("x")</script>'
ADDRESS = "https://git.example.com/x.git"
FORM = {"name": "ours", "type": "git-repository", "url": ADDRESS, "ref": "", "syncMode": "manual"}
TABS = ("", "?tab=imports", "?tab=syncs", "?tab=audit", "?state=new&q=w")


@pytest.fixture
def operator() -> Client:
    return signed_in(Role.OPERATOR)


@pytest.fixture
def viewer() -> Client:
    return signed_in(Role.VIEWER)


@pytest.fixture
def no_worker() -> Iterator[None]:
    """Messages wait in the broker."""
    celery_app.conf.task_always_eager = False
    yield
    celery_app.conf.task_always_eager = True


def make_source(name: str = "ours", **values: Any) -> ThirdPartySource:
    defaults = {"type": "git-repository", "url": ADDRESS, "state": "healthy"}
    return ThirdPartySource.objects.create(name=name, **defaults | values)


def make_item(source: ThirdPartySource, name: str, **values: Any) -> SourceItem:
    content = f"# {name}".encode()
    defaults: dict[str, Any] = {
        "kind": "skill", "upstream_id": f"skills/{name}", "version": "1.0.0", "digest": digest_of(content),
        "content": content, "content_type": "text/markdown", "details": {"folder": f"skills/{name}"},
    }  # fmt: skip
    return SourceItem.objects.create(source=source, name=name, **defaults | values)


def make_bundle(name: str, **values: Any) -> SkillBundle:
    content = f"# {name}".encode()
    defaults: dict[str, Any] = {
        "version": "1.0.0", "scope": "org", "status": "published", "published_at": timezone.now(), "content": content,
        "content_size": len(content), "digest": digest_of(content), "scan_status": "passed", "is_cleared": True,
    }  # fmt: skip
    return SkillBundle.objects.create(name=name, **defaults | values)


def url_of(source: ThirdPartySource, rest: str = "") -> str:
    return f"/admin/sources/{source.pk}/{rest}"


def test_viewers_see_all_of_it_and_may_post_nothing(viewer: Client, settings: Any) -> None:
    settings.SKILL_OCI_REGISTRY_URL = "https://registry.example.com"
    source = make_source()
    item = make_item(source, "weather")
    bundle = make_bundle("x", oci_state="failed", oci_error="no", source_name="ours")
    pages = ["/admin/sources/", "/admin/skill-store/", *(url_of(source, tab) for tab in TABS)]
    for page in pages:
        assert re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', text_of(viewer, page)) == ["/admin/logout/"]
    posts = [url_of(source, f"do/{action}/") for action in ("approve", "sync", "import", "delete")]
    posts += [url_of(source, "edit/"), "/admin/new-source/", "/admin/skill-store/backfill/"]
    for page in [*posts, f"/admin/skill-store/push/{bundle.pk}/"]:
        answer = viewer.post(page, FORM | {"generation": "1", "confirm": "ours", "item": str(item.pk)})
        assert answer.status_code == 403, page
    assert not AuditEntry.objects.exists()
    assert not Job.objects.exists()


@pytest.mark.parametrize("path", ["/admin/sources/", "/admin/skill-store/", *TABS])
def test_queries_do_not_grow(operator: Client, path: str) -> None:
    counts = []
    source = make_source()
    for size in (2, 40):
        for number in range(size):
            make_source(f"s{size}-{number}")
            item = make_item(source, f"w{size}-{number}")
            bundle = make_bundle(f"b{size}-{number}", source_name="ours", oci_state="pending")
            SourceImport.objects.create(item=item, bundle=bundle, version="1", digest=item.digest)
        page = path if path.startswith("/") else url_of(source, path)
        operator.get(page)
        with CaptureQueriesContext(connection) as captured:
            assert operator.get(page).status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 12, counts


def test_what_others_wrote_is_escaped(operator: Client) -> None:
    source = make_source(NASTY, sync_error=NASTY)
    make_item(source, NASTY, description=NASTY, upstream_id=NASTY, problem=NASTY, details={"endpoint": NASTY})
    make_bundle(NASTY, source_name=NASTY, oci_error=NASTY)
    for page in [
        "/admin/sources/",
        "/admin/skill-store/",
        *(url_of(source, tab) for tab in TABS),
        url_of(source, "edit/"),
    ]:
        assert "<script>alert" not in text_of(operator, page), page


def test_a_source_is_made_approved_changed_and_deleted(operator: Client) -> None:
    assert "No third-party sources yet" in text_of(operator, "/admin/sources/")
    bad = operator.post("/admin/new-source/", FORM | {"url": "ssh://x"})
    assert bad.status_code == 400
    assert "Has to start with http:// or https://." in bad.content.decode()
    made = operator.post("/admin/new-source/", FORM)
    source = ThirdPartySource.objects.get()
    assert made["Location"] == f"/admin/sources/{source.pk}/"
    again = operator.post("/admin/new-source/", FORM)
    assert (again.status_code, "ours already" in again.content.decode()) == (409, True)
    shown = text_of(operator, url_of(source))
    assert "Waits for approval" in shown
    assert "Sync now" not in shown.replace("“Sync now”", "")
    operator.post(url_of(source, "do/approve/"), {"generation": "1"})
    source.refresh_from_db()
    assert (source.state, source.generation) == ("healthy", 2)
    assert operator.get(f"/admin/source-named/{source.name}/")["Location"] == url_of(source)
    stale = operator.post(url_of(source, "edit/"), FORM | {"generation": "1", "name": "theirs"})
    assert stale.status_code == 412
    moved = operator.post(url_of(source, "edit/"), FORM | {"generation": "2", "url": "https://other.example.com/x"})
    assert moved.status_code == 302
    source.refresh_from_db()
    assert source.state == "pending-approval"
    operator.post(url_of(source, "do/delete/"), {"generation": "3", "confirm": "other"})
    assert ThirdPartySource.objects.exists()
    gone = operator.post(url_of(source, "do/delete/"), {"generation": "3", "confirm": "ours"})
    assert gone["Location"] == "/admin/sources/"
    assert not ThirdPartySource.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_sync_shows_its_progress_and_each_result(operator: Client, tmp_path: Path, settings: Any) -> None:
    settings.OUTBOUND_ALLOW = parse_networks(["127.0.0.0/8"])
    both: tuple[Upstream, Repository]
    with upstream_in(tmp_path) as both:
        server, repository = both
        repository.commit({"weather/SKILL.md": "# Weather", "bad/SKILL.md": b"\xff"})
        source = make_source(url=f"{server.url}/git/skills.git")
        celery_app.conf.task_always_eager = False
        try:
            operator.post(url_of(source, "do/sync/"))
        finally:
            celery_app.conf.task_always_eager = True
        job = Job.objects.get()
        waiting = text_of(operator, url_of(source))
        assert "A sync is under way" in waiting
        assert f'hx-get="/admin/jobs/{job.pk}/?part=progress"' in waiting
        from operations.services.jobs import run_job

        run_job(job_id=job.pk)
    results = text_of(operator, f"/admin/jobs/{job.pk}/")
    assert "Sync of a source: ours" in results
    assert "is not UTF-8" in results
    assert "1 added" in text_of(operator, url_of(source, "?tab=syncs"))
    shown = text_of(operator, url_of(source))
    assert "A sync is under way" not in shown
    assert re.findall(r'data-testid="state-(\w+)"', shown) == ["new", "unusable"]


@pytest.mark.django_db(transaction=True)
def test_selected_items_become_drafts_and_each_refusal_is_told(operator: Client, no_worker: None) -> None:
    source = make_source()
    chosen = [make_item(source, name) for name in ("one", "two", "taken")]
    make_bundle("taken")
    shown = text_of(operator, url_of(source))
    assert all(f'value="{item.pk}"' in shown for item in chosen)
    answer = operator.post(
        url_of(source, "do/import/"), {"item": [str(item.pk) for item in chosen], "scope": "team"}, follow=True
    )
    told = answer.content.decode()
    assert "2 items are drafts now" in told
    assert "Not imported, taken 1.0.0: There is a bundle of that name and version already." in told
    assert set(SkillBundle.objects.filter(source_name="ours").values_list("name", "scope", "status")) == {
        ("one", "team", "draft"), ("two", "team", "draft"),
    }  # fmt: skip
    assert re.findall(r'data-testid="state-(\w+)"', text_of(operator, url_of(source))) == ["new", "imported"]
    none = operator.post(url_of(source, "do/import/"), {"scope": "team"}, follow=True)
    assert "no item is selected" in none.content.decode()


@pytest.mark.django_db(transaction=True)
def test_the_store_shows_what_is_missing_and_starts_a_backfill(
    operator: Client, settings: Any, no_worker: None
) -> None:
    for state in ("none", "pending", "pushed"):
        make_bundle(state, oci_state=state)
    failed = make_bundle("refused", oci_state="failed", oci_error="The registry does not allow this.", oci_attempts=1)
    page = "/admin/skill-store/"
    without = text_of(operator, page)
    assert "SKILL_OCI_REGISTRY_URL" in without
    assert "Backfill" not in without
    settings.SKILL_OCI_REGISTRY_URL = "https://registry.example.com"
    shown = text_of(operator, page)
    assert "Push 4 published bundles to the store?" in shown
    assert "The registry does not allow this." in shown
    assert "pushed 1.0.0" not in shown
    assert "pushed 1.0.0" in text_of(operator, f"{page}?state=pushed")
    operator.post(f"{page}push/{failed.pk}/")
    failed.refresh_from_db()
    assert (failed.oci_state, failed.oci_attempts) == ("pending", 0)
    assert operator.post(f"{page}backfill/")["Location"] == page
    assert Job.objects.get().kind == backfill.KIND
    running = text_of(operator, page)
    assert "A backfill is under way" in running
    again = operator.post(f"{page}backfill/", follow=True)
    assert "under way" in again.content.decode()
    Job.objects.update(status="succeeded", result={"total": 4, "pushed": 3, "skipped": 0, "failed": 1, "results": []})
    assert "3 pushed, 0 skipped, 1 failed" in text_of(operator, page)
