"""Third-party sources: the API, sync as a job, the inventory, and imports."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from conftest import ApiClient
from mcpservers.models import McpServer
from opencrane.actor import SYSTEM
from opencrane.addresses import parse_networks
from opencrane.celery import app as celery_app
from operations.models import AuditEntry, Job
from skills import tasks
from skills.models import SkillBundle, SourceItem, ThirdPartySource
from skills.oci.artifact import digest_of
from skills.tests.upstream import Repository, Upstream, entry, registry_of, upstream_in

WEATHER = "---\nname: weather\ndescription: Tells it\nversion: 1.4.0\n---\n# Weather\n"
BODY = {"name": "ours", "type": "git-repository", "url": "https://git.example.com/skills.git"}


@pytest.fixture
def served(tmp_path: Path, settings: Any) -> Iterator[tuple[Upstream, Repository]]:
    settings.OUTBOUND_ALLOW = parse_networks(["127.0.0.0/8"])
    with upstream_in(tmp_path) as both:
        yield both


@pytest.fixture
def no_worker() -> Iterator[None]:
    """Messages wait in the broker."""
    celery_app.conf.task_always_eager = False
    yield
    celery_app.conf.task_always_eager = True


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def make_source(api: ApiClient, **values: Any) -> str:
    """An approved source; returns its id."""
    answer = api.post("/third-party-sources", BODY | values)
    assert answer.status_code == 201, answer.content
    source_id = str(answer.json()["id"])
    assert api.post(f"/third-party-sources/{source_id}/approve").status_code == 200
    return source_id


def sync(api: ApiClient, source_id: str) -> dict[str, Any]:
    answer = api.post(f"/third-party-sources/{source_id}/sync")
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return {key: value for key, value in found.items() if value and key not in ("sourceId", "revision")}


def items(api: ApiClient, source_id: str, query: str = "") -> dict[str, dict[str, Any]]:
    answer = api.get(f"/third-party-sources/{source_id}/items{query}")
    assert answer.status_code == 200, answer.content
    return {each["upstreamId"]: each for each in answer.json()}


def take(api: ApiClient, source_id: str, upstream_id: str, **body: Any) -> Any:
    """Import an item; what is made of it is not scanned here."""
    item = items(api, source_id)[upstream_id]
    celery_app.conf.task_always_eager = False
    try:
        return _taken(api, source_id, item, body)
    finally:
        celery_app.conf.task_always_eager = True


def _taken(api: ApiClient, source_id: str, item: dict[str, Any], body: dict[str, Any]) -> Any:
    return api.post(f"/third-party-sources/{source_id}/items/{item['id']}/import", body)


# --- The API ---------------------------------------------------------------------------------------------------------


def test_a_source_is_made_changed_and_deleted(api: ApiClient, db: None) -> None:
    made = api.post("/third-party-sources", BODY | {"ref": "main", "syncMode": "scheduled"})
    assert made.status_code == 201
    source = made.json()
    assert source == source | BODY | {
        "ref": "main", "syncMode": "scheduled", "syncStatus": "pending-approval", "lastSyncedAt": None, "itemCount": 0,
        "syncError": None, "approvedBy": None, "nextSyncAt": None,
    }  # fmt: skip
    path = f"/third-party-sources/{source['id']}"
    read = api.get(path)
    assert (read.json(), read["ETag"]) == (source, made["ETag"])
    assert api.get(path, headers={"If-None-Match": read["ETag"]}).status_code == 304
    assert [each["id"] for each in api.get("/third-party-sources").json()] == [source["id"]]
    changed = api.put(path, {"name": "theirs", "ref": None}, headers={"If-Match": read["ETag"]})
    assert (changed.status_code, changed.json()["name"], changed.json()["ref"]) == (200, "theirs", None)
    assert refusal(api.put(path, {"name": "x"}, headers={"If-Match": read["ETag"]})) == (412, "PRECONDITION_FAILED")
    count = AuditEntry.objects.count()
    assert api.put(path, {"name": "theirs"}).status_code == 200
    assert AuditEntry.objects.count() == count
    gone = api.delete(path)
    assert (gone.status_code, gone.json()) == (200, {"id": source["id"], "status": "deleted"})
    assert refusal(api.get(path)) == (404, "THIRD_PARTY_SOURCE_NOT_FOUND")
    assert [each.action for each in AuditEntry.objects.order_by("id")] == [
        "third_party_source.created", "third_party_source.updated", "third_party_source.deleted",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"), ({"name": "x" * 254}, "name"), ({"type": "svn"}, "type"), ({"url": "nonsense"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"), ({"url": "ext::sh -c id"}, "url"), ({"url": "ssh://git@host/x"}, "url"),
        ({"url": "https://user:secret@git.example.com/x"}, "url"), ({"url": "https://git.example.com/x#y"}, "url"),
        ({"url": "https://" + "x" * 2100}, "url"), ({"url": 5}, "url"), ({"ref": "--upload-pack=x"}, "ref"),
        ({"ref": "a b"}, "ref"), ({"type": "mcp-registry", "ref": "main"}, "ref"), ({"syncMode": "often"}, "syncMode"),
        ({"type": "manual-upload", "syncMode": "scheduled"}, "syncMode"), ({"syncStatus": "healthy"}, "syncStatus"),
        ({"more": 1}, "more"),
    ],
)  # fmt: skip
def test_bad_fields_are_named(api: ApiClient, db: None, change: dict[str, Any], field: str) -> None:
    answer = api.post("/third-party-sources", BODY | change)
    assert refusal(answer) == (400, "VALIDATION_ERROR")
    assert list(answer.json()["fields"]) == [field]
    assert b"secret" not in answer.content
    assert not ThirdPartySource.objects.exists()


def test_what_is_missing_or_taken_is_refused(api: ApiClient, db: None) -> None:
    assert sorted(api.post("/third-party-sources", {}).json()["fields"]) == ["name", "type", "url"]
    source_id = make_source(api)
    assert refusal(api.post("/third-party-sources", BODY)) == (409, "THIRD_PARTY_SOURCE_EXISTS")
    other = api.post("/third-party-sources", BODY | {"name": "other"}).json()["id"]
    assert refusal(api.put(f"/third-party-sources/{other}", {"name": "ours"})) == (409, "THIRD_PARTY_SOURCE_EXISTS")
    for path in ("nonsense", "0" * 32):
        for verb in ("", "/items", "/sync", "/approve"):
            call = api.get if verb in ("", "/items") else api.post
            assert refusal(call(f"/third-party-sources/{path}{verb}")) == (404, "THIRD_PARTY_SOURCE_NOT_FOUND")
    bad = api.post(f"/third-party-sources/{source_id}/items/{other}/import")
    assert refusal(bad) == (404, "SOURCE_ITEM_NOT_FOUND")


def test_lists_are_filtered_and_paged(api: ApiClient, db: None, django_assert_num_queries: Any) -> None:
    for number in range(5):
        api.post("/third-party-sources", BODY | {"name": f"s{number}"})
    registry = make_source(api, name="registry", type="mcp-registry", url="https://registry.example.com")
    first = api.get("/third-party-sources?limit=4")
    assert [each["name"] for each in first.json()] == ["registry", "s4", "s3", "s2"]
    rest = api.get(first["Link"].split(">")[0][1:])
    assert [each["name"] for each in rest.json()] == ["s1", "s0"]
    assert [each["id"] for each in api.get("/third-party-sources?type=mcp-registry").json()] == [registry]
    assert [each["id"] for each in api.get("/third-party-sources?syncStatus=healthy").json()] == [registry]
    assert len(api.get("/third-party-sources?q=GIT.example").json()) == 5
    assert refusal(api.get("/third-party-sources?type=x")) == (400, "VALIDATION_ERROR")
    with django_assert_num_queries(1):
        api.get("/third-party-sources")


def test_viewers_read_and_nothing_more(api: ApiClient, viewer_api: ApiClient, db: None) -> None:
    source_id = make_source(api)
    assert viewer_api.get(f"/third-party-sources/{source_id}").status_code == 200
    assert viewer_api.get(f"/third-party-sources/{source_id}/items").status_code == 200
    for verb in ("approve", "sync", f"items/{source_id}/import"):
        assert viewer_api.post(f"/third-party-sources/{source_id}/{verb}").status_code == 403
    assert viewer_api.put(f"/third-party-sources/{source_id}", {"name": "x"}).status_code == 403


def test_nothing_is_read_before_approval_and_another_address_asks_for_it_again(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, repository = served
    repository.commit({"weather/SKILL.md": WEATHER})
    url = f"{server.url}/git/skills.git"
    source_id = api.post("/third-party-sources", BODY | {"url": url, "syncMode": "scheduled"}).json()["id"]
    path = f"/third-party-sources/{source_id}"
    assert refusal(api.post(f"{path}/sync")) == (409, "CONFLICT")
    tasks.sync_due.delay()
    assert server.asked == []
    approved = api.post(f"{path}/approve").json()
    assert (approved["syncStatus"], approved["approvedBy"]) == ("healthy", "api-token")
    assert api.post(f"{path}/approve").json() == approved
    assert sync(api, source_id) == {"added": 1}
    changed = api.put(path, {"url": f"{url}/"}).json()
    assert (changed["syncStatus"], changed["approvedAt"], changed["revision"]) == ("pending-approval", None, None)
    assert refusal(api.post(f"{path}/sync")) == (409, "CONFLICT")
    assert refusal(take(api, source_id, "weather")) == (409, "CONFLICT")


# --- Sync ------------------------------------------------------------------------------------------------------------


def test_a_repository_becomes_an_inventory_that_follows_it(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, repository = served
    commit = repository.commit({"weather/SKILL.md": WEATHER, "tides/SKILL.md": "# Tides", "bad/SKILL.md": b"\xff"})
    source_id = make_source(api, type="anthropic-skills", url=f"{server.url}/git/skills.git")
    assert sync(api, source_id) == {"added": 2, "failed": 1}
    source = api.get(f"/third-party-sources/{source_id}").json()
    assert (source["syncStatus"], source["revision"], source["itemCount"]) == ("healthy", commit, 3)
    assert source["lastSyncedAt"]
    found = items(api, source_id)
    assert {key: each["state"] for key, each in found.items()} == {
        "weather": "new", "tides": "new", "bad": "unusable",
    }  # fmt: skip
    weather = found["weather"]
    assert (weather["kind"], weather["name"], weather["version"], weather["digest"]) == (
        "skill", "weather", "1.4.0", digest_of(WEATHER.encode()),
    )  # fmt: skip
    assert weather["details"]["commit"] == commit
    assert "content" not in weather
    job = Job.objects.get()
    shown = {item["key"]: item["outcome"] for item in api.get(f"/jobs/{job.pk}").json()["items"]}
    assert shown == {"weather": "added", "tides": "added", "bad": "failed"}
    assert sync(api, source_id) == {"unchanged": 2, "failed": 1}

    repository.commit(
        {"weather/SKILL.md": WEATHER.replace("1.4.0", "1.5.0"), "tides/SKILL.md": None, "bad/SKILL.md": "x"}
    )
    assert sync(api, source_id) == {"changed": 2, "gone": 1}
    after = items(api, source_id)
    assert (after["weather"]["version"], after["weather"]["id"]) == ("1.5.0", weather["id"])
    assert {key: each["state"] for key, each in after.items()} == {"weather": "new", "tides": "gone", "bad": "new"}
    repository.commit({"tides/SKILL.md": "# Tides"})
    assert sync(api, source_id) == {"changed": 1, "unchanged": 2}
    assert items(api, source_id, "?state=new&q=TID").keys() == {"tides"}


def test_a_source_that_cannot_be_read_keeps_its_inventory(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, repository = served
    repository.commit({"weather/SKILL.md": WEATHER})
    source_id = make_source(api, url=f"{server.url}/git/skills.git")
    sync(api, source_id)
    server.twist = lambda path: (500, {}, b"")
    answer = api.post(f"/third-party-sources/{source_id}/sync")
    assert refusal(answer) == (502, "UPSTREAM_ERROR")
    assert answer.json()["detail"]
    source = api.get(f"/third-party-sources/{source_id}").json()
    assert (source["syncStatus"], source["syncError"], source["itemCount"]) == ("error", answer.json()["detail"], 1)
    assert items(api, source_id)["weather"]["state"] == "new"
    server.twist = lambda path: None
    assert sync(api, source_id) == {"unchanged": 1}
    assert api.get(f"/third-party-sources/{source_id}").json()["syncStatus"] == "healthy"
    actions = list(AuditEntry.objects.filter(action__startswith="third_party_source.sync").order_by("id"))
    assert [entry.action.rpartition(".")[2] for entry in actions] == ["synced", "sync_failed", "synced"]


def test_private_addresses_are_refused_as_for_probes(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository], settings: Any
) -> None:
    server, _ = served
    settings.OUTBOUND_ALLOW = ()
    for kind, url in (("git-repository", f"{server.url}/git/skills.git"), ("mcp-registry", server.url)):
        source_id = make_source(api, name=kind, type=kind, url=url)
        answer = api.post(f"/third-party-sources/{source_id}/sync")
        assert refusal(answer) == (502, "UPSTREAM_ERROR")
        assert "loopback" in answer.json()["detail"]
    assert server.asked == []


def test_scheduled_sources_are_synced_by_themselves_and_others_are_not(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, repository = served
    repository.commit({"weather/SKILL.md": WEATHER})
    url = f"{server.url}/git/skills.git"
    scheduled = make_source(api, name="scheduled", url=url, syncMode="scheduled")
    make_source(api, name="manual", url=url)
    make_source(api, name="by hand", type="manual-upload", url="our wiki")
    tasks.sync_due.delay()
    assert [job.params["sourceId"] for job in Job.objects.all()] == [scheduled]
    assert Job.objects.get().actor_name == SYSTEM.name
    assert items(api, scheduled).keys() == {"weather"}
    tasks.sync_due.delay()
    assert Job.objects.count() == 1
    ThirdPartySource.objects.update(next_sync_at=timezone.now() - timedelta(seconds=1))
    tasks.sync_due.delay()
    assert Job.objects.count() == 2


def test_while_a_sync_is_under_way_the_source_says_so_and_no_other_begins(
    api: ApiClient, transactional_db: None, settings: Any, no_worker: None
) -> None:
    settings.REPAIR_WAIT_SECONDS = 0
    source_id = make_source(api)
    begun = api.post(f"/third-party-sources/{source_id}/sync")
    assert (begun.status_code, begun.json()["status"]) == (202, "queued")
    assert api.get(f"/third-party-sources/{source_id}").json()["syncStatus"] == "syncing"
    assert len(api.get("/third-party-sources?syncStatus=syncing").json()) == 1
    assert refusal(api.post(f"/third-party-sources/{source_id}/sync")) == (409, "CONFLICT")
    api.post(f"/jobs/{begun.json()['jobId']}/cancel")
    assert api.get(f"/third-party-sources/{source_id}").json()["syncStatus"] == "healthy"


def test_what_is_uploaded_by_hand_is_not_synced(api: ApiClient, db: None) -> None:
    source_id = make_source(api, type="manual-upload", url="the wiki of the weather people")
    assert refusal(api.post(f"/third-party-sources/{source_id}/sync")) == (409, "CONFLICT")


# --- Import ----------------------------------------------------------------------------------------------------------


def test_an_item_becomes_a_draft_and_a_later_version_another_one(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, repository = served
    repository.commit({"weather/SKILL.md": WEATHER})
    source_id = make_source(api, url=f"{server.url}/git/skills.git")
    sync(api, source_id)
    made = take(api, source_id, "weather", scope="team")
    assert made.status_code == 201, made.content
    bundle = SkillBundle.objects.get(pk=made.json()["bundleId"])
    assert (bundle.name, bundle.version, bundle.status, bundle.scope, bundle.source_name) == (
        "weather", "1.4.0", "draft", "team", "ours",
    )  # fmt: skip
    assert (bundle.digest, bytes(bundle.content or b"")) == (digest_of(WEATHER.encode()), WEATHER.encode())
    assert take(api, source_id, "weather").json() == made.json()
    imported = items(api, source_id)["weather"]
    assert (imported["state"], imported["imported"]["bundleId"]) == ("imported", str(bundle.pk))

    repository.commit({"weather/SKILL.md": WEATHER.replace("1.4.0", "1.5.0")})
    sync(api, source_id)
    offered = items(api, source_id)["weather"]
    assert (offered["state"], offered["version"], offered["imported"]["version"]) == ("update", "1.5.0", "1.4.0")
    later = take(api, source_id, "weather").json()
    assert later["bundleId"] != str(bundle.pk)
    # Other content under the same version still is another bundle.
    repository.commit({"weather/SKILL.md": WEATHER.replace("1.4.0", "1.5.0") + "more"})
    sync(api, source_id)
    again = take(api, source_id, "weather").json()
    versions = {str(each.pk): each.version for each in SkillBundle.objects.all()}
    assert versions[str(bundle.pk)] == "1.4.0"
    assert versions[later["bundleId"]] == "1.5.0"
    assert versions[again["bundleId"]].startswith("1.5.0+sha")
    untouched = SkillBundle.objects.get(pk=bundle.pk)
    assert (untouched.generation, bytes(untouched.content or b"")) == (bundle.generation, WEATHER.encode())


def test_an_mcp_server_becomes_a_draft_and_a_later_version_another_one(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, _ = served
    server.answers = registry_of([entry("io.example/weather", "1.0.0"), entry("io.example/local", remotes=[])])
    source_id = make_source(api, type="mcp-registry", url=server.url)
    assert sync(api, source_id) == {"added": 1, "skipped": 1}
    assert refusal(take(api, source_id, "io.example/local")) == (409, "CONFLICT")
    made = take(api, source_id, "io.example/weather")
    assert made.status_code == 201, made.content
    row = McpServer.objects.get(pk=made.json()["serverId"])
    assert (row.name, row.status, row.endpoint, row.source_id) == (
        "io.example/weather", "draft", "https://weather.example.com/mcp", source_id,
    )  # fmt: skip
    server.answers = registry_of([entry("io.example/weather", "1.1.0")])
    assert sync(api, source_id) == {"changed": 1, "gone": 1}
    assert items(api, source_id)["io.example/weather"]["state"] == "update"
    later = take(api, source_id, "io.example/weather").json()
    assert McpServer.objects.get(pk=later["serverId"]).name == "io.example/weather@1-1-0"
    row.refresh_from_db()
    assert (row.generation, row.endpoint) == (1, "https://weather.example.com/mcp")


def test_an_import_does_not_take_over_what_others_have(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, repository = served
    repository.commit({"weather/SKILL.md": WEATHER})
    api.post("/mcp-servers", {"name": "io.example/weather", "endpoint": "https://x.example/", "transport": "sse"})
    mine = {"name": "weather", "version": "1.4.0", "scope": "org", "digest": digest_of(b"mine"), "content": "mine"}
    assert api.post("/skills/catalog", mine).status_code == 201
    source_id = make_source(api, url=f"{server.url}/git/skills.git")
    sync(api, source_id)
    assert refusal(take(api, source_id, "weather")) == (409, "SKILL_BUNDLE_EXISTS")
    server.answers = registry_of([entry("io.example/weather")])
    registry = make_source(api, name="registry", type="mcp-registry", url=server.url)
    sync(api, registry)
    assert refusal(take(api, registry, "io.example/weather")) == (409, "MCP_SERVER_EXISTS")
    bad = take(api, registry, "io.example/weather", scope="team")
    assert (refusal(bad), list(bad.json()["fields"])) == ((400, "VALIDATION_ERROR"), ["scope"])


def test_deleting_a_source_leaves_what_was_imported(
    api: ApiClient, transactional_db: None, served: tuple[Upstream, Repository]
) -> None:
    server, repository = served
    repository.commit({"weather/SKILL.md": WEATHER})
    source_id = make_source(api, url=f"{server.url}/git/skills.git")
    sync(api, source_id)
    bundle_id = take(api, source_id, "weather").json()["bundleId"]
    assert api.delete(f"/third-party-sources/{source_id}").status_code == 200
    assert not SourceItem.objects.exists()
    assert SkillBundle.objects.get(pk=bundle_id).source_name == "ours"
    # And the other way round: an item whose bundle was deleted can be imported anew.
    again = make_source(api, url=f"{server.url}/git/skills.git")
    sync(api, again)
    SkillBundle.objects.all().delete()
    first = take(api, again, "weather").json()["bundleId"]
    assert api.delete(f"/skills/catalog/{first}").status_code == 200
    assert items(api, again)["weather"]["state"] == "new"
    assert take(api, again, "weather").status_code == 201
