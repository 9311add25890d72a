"""The catalog by the API: contents and digests, the publish gate, immutability, grants and promotions."""

import base64
import hashlib
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import ApiClient
from operations.models import AuditEntry
from policies.models import Grant
from policies.tests.factories import make_grant, make_group, make_tenant
from skills import rules
from skills.models import ScanFinding, SkillBundle, SkillPromotion
from skills.tests.factories import SKILL, make_bundle, make_published

pytestmark = pytest.mark.django_db

TEXT = SKILL.format(name="summarize")
BODY: dict[str, Any] = {"name": "summarize", "version": "1.0.0", "scope": "org", "content": TEXT}


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def path_of(bundle: SkillBundle) -> str:
    return f"/skills/catalog/{bundle.pk}"


def test_a_bundle_by_the_api(api: ApiClient) -> None:
    make_tenant("anna")
    make_group("analysts")
    body = BODY | {
        "description": " Sums up. ",
        "tags": ["data", " data ", "", "tables"],
        "sourceName": "hub",
        "grants": [
            {"subjectType": "group", "subjectName": "analysts"},
            {"subjectType": "tenant", "subjectName": "anna", "access": "deny", "priority": 2},
        ],
        "promotions": [{"fromScope": "team", "toScope": "org", "promotedBy": "berta", "notes": "used by all"}],
    }
    made = api.post("/skills/catalog", body)
    assert made.status_code == 201, made.json()
    assert made.json() == {"id": made.json()["id"], "status": "created"}
    path = f"/skills/catalog/{made.json()['id']}"
    read = api.get(path)
    bundle = read.json()
    assert bundle["content"] == TEXT
    assert bundle["digest"] == digest(TEXT.encode())
    assert (bundle["description"], bundle["tags"], bundle["sourceName"]) == ("Sums up.", ["data", "tables"], "hub")
    assert (bundle["status"], bundle["scanStatus"], bundle["contentType"]) == ("draft", "pending", "text/markdown")
    assert [(g["subjectName"], g["access"], g["payloadId"]) for g in bundle["grants"]] == [
        ("anna", "deny", bundle["id"]),
        ("analysts", "allow", bundle["id"]),
    ]
    [promotion] = bundle["promotions"]
    assert (promotion["fromScope"], promotion["toScope"], promotion["status"]) == ("team", "org", "proposed")
    assert api.get(path, headers={"If-None-Match": read["ETag"]}).status_code == 304
    [item] = api.get("/skills/catalog").json()
    left_out = {"content", "contentBase64", "contentWithheld", "findings", "scanners"}
    assert item == {key: value for key, value in bundle.items() if key not in left_out}
    assert "content" not in api.get(f"{path}?content=false").json()

    writable = ("name", "version", "description", "scope", "status", "tags", "content", "contentType", "digest")
    back = {key: bundle[key] for key in (*writable, "sourceName", "grants", "promotions")}
    assert api.put(path, back).json() == {"id": bundle["id"], "status": "updated"}
    assert api.get(path).json() == bundle
    assert AuditEntry.objects.count() == 1

    assert api.put(path, {"grants": [], "tags": None, "scope": "team"}).status_code == 200
    changed = api.get(path).json()
    assert (changed["grants"], changed["tags"], changed["scope"]) == ([], [], "team")
    assert changed["promotions"] == bundle["promotions"]
    assert api.put(path, {"scope": "org"}, headers={"If-Match": read["ETag"]}).status_code == 412
    assert api.post("/skills/catalog", BODY).json()["code"] == "SKILL_BUNDLE_EXISTS"
    assert api.post("/skills/catalog", BODY | {"version": "1.0.1"}).status_code == 201

    make_grant("x@example.com", bundle["id"], payload_type="skill-bundle")
    assert api.delete(path).json() == {"id": bundle["id"], "status": "deleted"}
    assert api.get(path).json()["code"] == "SKILL_BUNDLE_NOT_FOUND"
    assert not Grant.objects.exists()
    assert not SkillPromotion.objects.exists()
    entries = AuditEntry.objects.order_by("id")
    assert list(entries.values_list("action", flat=True)) == [
        "skill_bundle.created", "skill_bundle.updated", "skill_bundle.created", "skill_bundle.deleted",
    ]  # fmt: skip
    assert "content" not in (entries[0].after or {})


def test_the_contract_s_required_fields_are_enough(api: ApiClient) -> None:
    """A digest alone makes a draft; without a store it cannot be scanned, and so not be published."""
    body = {"name": "remote", "version": "2.0.0-rc.1+build.5", "digest": digest(b"far away"), "scope": "project"}
    path = f"/skills/catalog/{api.post('/skills/catalog', body).json()['id']}"
    bundle = api.get(path).json()
    assert (bundle["scanStatus"], bundle["content"], bundle["contentSize"]) == ("unavailable", None, None)
    assert api.put(path, {"status": "published"}).json()["code"] == "SCAN_REQUIRED"
    assert api.put(path, {"content": "near"}).status_code == 200
    bundle = api.get(path).json()
    assert (bundle["digest"], bundle["content"], bundle["scanStatus"]) == (digest(b"near"), "near", "pending")
    assert list(api.put(path, {"digest": body["digest"]}).json()["fields"]) == ["digest"]
    assert api.put(path, {"content": None, "digest": body["digest"]}).status_code == 200
    assert api.get(path).json()["scanStatus"] == "unavailable"


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"version": "1.0"}, 400, "version"),
        ({"version": "01.0.0"}, 400, "version"),
        ({"version": "1.0.0\n2"}, 400, "version"),
        ({"name": " "}, 400, "name"),
        ({"scope": "world"}, 400, "scope"),
        ({"status": "deprecated"}, 400, "status"),
        ({"status": "live"}, 400, "status"),
        ({"digest": "sha256:" + "0" * 64}, 400, "digest"),
        ({"digest": "md5:abc"}, 400, "digest"),
        ({"digest": "sha256:" + "A" * 64}, 400, "digest"),
        ({"content": " \n"}, 400, "content"),
        ({"content": ""}, 400, "content"),
        ({"content": 5}, 400, "content"),
        ({"content": None}, 400, "content"),
        ({"contentBase64": "aGk="}, 400, "contentBase64"),
        ({"content": None, "contentBase64": "a"}, 400, "contentBase64"),
        ({"content": None, "contentBase64": "é"}, 400, "contentBase64"),
        ({"content": None, "contentBase64": base64.b64encode(b"\xff\xfe").decode()}, 400, "content"),
        ({"content": None, "contentBase64": base64.b64encode(b"a\0b").decode()}, 400, "content"),
        ({"contentType": "markdown"}, 400, "contentType"),
        ({"contentType": "text/markdown\r\nX: y"}, 400, "contentType"),
        ({"tags": ["x" * 65]}, 400, "tags.0"),
        ({"tags": "data"}, 400, "tags"),
        ({"promotions": [{"fromScope": "org"}]}, 400, "promotions.0.toScope"),
        ({"promotions": [{"toScope": "org"}]}, 400, "promotions.0.toScope"),
        ({"grants": [{"subjectType": "group", "subjectName": "no"}]}, 422, "grants.0.subjectName"),
        ({"contents": "x"}, 400, "contents"),
        ({"publishedAt": "2026-01-01T00:00:00Z"}, 400, "publishedAt"),
    ],
)
def test_bad_input_is_named(api: ApiClient, change: Any, status: int, field: str) -> None:
    answer = api.post("/skills/catalog", BODY | change)
    assert (answer.status_code, list(answer.json()["fields"])) == (status, [field]), answer.json()
    assert not SkillBundle.objects.exists()


@pytest.mark.parametrize("missing", ["name", "version", "scope", "content"])
def test_what_is_missing_is_named(api: ApiClient, missing: str) -> None:
    answer = api.post("/skills/catalog", {key: value for key, value in BODY.items() if key != missing})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, [missing])


def test_ten_mib_and_not_a_byte_more(api: ApiClient) -> None:
    largest = "x" * rules.CONTENT_MAX_BYTES
    made = api.post("/skills/catalog", BODY | {"content": largest})
    assert made.status_code == 201
    assert SkillBundle.objects.get().content_size == rules.CONTENT_MAX_BYTES
    over = base64.b64encode(largest.encode() + b"x").decode()
    refused = api.post("/skills/catalog", BODY | {"version": "2.0.0", "content": None, "contentBase64": over})
    assert (refused.status_code, refused.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert list(refused.json()["fields"]) == ["contentBase64"]
    beyond = api.post("/skills/catalog", b'{"content": "' + b"x" * (16 * 1024 * 1024) + b'"}')
    assert (beyond.status_code, beyond.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_binary_content_comes_back_in_base64(api: ApiClient) -> None:
    data = b"PK\x05\x06" + bytes(18)
    lines = base64.encodebytes(data).decode()
    body = BODY | {"content": None, "contentBase64": lines, "contentType": "application/zip", "digest": digest(data)}
    bundle = api.get(f"/skills/catalog/{api.post('/skills/catalog', body).json()['id']}").json()
    assert bundle["content"] is None
    assert base64.b64decode(bundle["contentBase64"]) == data
    wrong = api.put(f"/skills/catalog/{bundle['id']}", {"contentType": "text/markdown"})
    assert (wrong.status_code, list(wrong.json()["fields"])) == (400, ["content"])


@pytest.mark.parametrize("scan_status", ["pending", "scanning", "failed", "unavailable"])
def test_publishing_needs_a_pass(api: ApiClient, scan_status: str) -> None:
    bundle = make_bundle(scan_status=scan_status)
    refused = api.put(path_of(bundle), {"status": "published"})
    assert (refused.status_code, refused.json()["code"]) == (422, "SCAN_REQUIRED")
    assert refused.json()["detail"]
    SkillBundle.objects.update(scan_status="passed")
    assert api.put(path_of(bundle), {"status": "published"}).status_code == 200
    published = api.get(path_of(bundle)).json()
    assert published["status"] == "published"
    assert published["publishedAt"]
    assert published["oci"]["state"] == "none"
    assert AuditEntry.objects.latest("id").action == "skill_bundle.published"


def test_creating_as_published_is_refused_whatever_the_scan_would_say(api: ApiClient) -> None:
    refused = api.post("/skills/catalog", BODY | {"status": "published"})
    assert (refused.status_code, refused.json()["code"]) == (422, "SCAN_REQUIRED")
    assert not SkillBundle.objects.exists()


def test_new_content_cannot_be_published_on_the_old_one_s_pass(api: ApiClient) -> None:
    bundle = make_bundle()
    ScanFinding.objects.create(bundle=bundle, position=0, scanner="x", rule="x", severity="low", message="x")
    refused = api.put(path_of(bundle), {"status": "published", "content": "other"})
    assert refused.json()["code"] == "SCAN_REQUIRED"
    assert api.get(path_of(bundle)).json()["content"] == SKILL.format(name="summarize")
    assert api.put(path_of(bundle), {"content": "other"}).status_code == 200
    bundle.refresh_from_db()
    assert (bundle.scan_status, bundle.is_cleared, bundle.findings.count()) == ("pending", False, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"content": "other"}, {"contentBase64": "aGk="}, {"content": None}, {"contentType": "text/plain"},
        {"version": "1.0.1"}, {"name": "other"}, {"status": "draft"}, {"status": "review"},
        {"status": None, "content": "x"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", ["published", "deprecated"])
def test_what_has_been_published_never_changes(api: ApiClient, change: Any, status: str) -> None:
    bundle = make_published(status=status)
    before = api.get(path_of(bundle)).json()
    refused = api.put(path_of(bundle), change)
    assert (refused.status_code, refused.json()["code"]) == (409, "BUNDLE_IMMUTABLE"), refused.json()
    assert api.get(path_of(bundle)).json() == before


def test_what_may_change_after_publishing(api: ApiClient) -> None:
    bundle = make_published()
    since = api.get(path_of(bundle)).json()["publishedAt"]
    same = {"content": SKILL.format(name="summarize"), "digest": bundle.digest, "version": "1.0.0"}
    assert (
        api.put(path_of(bundle), same | {"description": "Better.", "tags": ["new"], "scope": "team"}).status_code == 200
    )
    assert api.put(path_of(bundle), {"status": "deprecated"}).status_code == 200
    assert AuditEntry.objects.latest("id").action == "skill_bundle.deprecated"
    assert api.put(path_of(bundle), {"status": "published"}).status_code == 200
    assert api.get(path_of(bundle)).json()["publishedAt"] == since
    SkillBundle.objects.update(status="deprecated", scan_status="failed")
    assert api.put(path_of(bundle), {"status": "published"}).json()["code"] == "SCAN_REQUIRED"
    assert api.delete(path_of(bundle)).status_code == 200


def test_a_scan_can_be_asked_for(api: ApiClient) -> None:
    bundle = make_published()
    asked = api.post(f"{path_of(bundle)}/scan")
    assert (asked.status_code, asked.json()) == (202, {"id": str(bundle.pk), "status": "queued"})
    bundle.refresh_from_db()
    assert (bundle.scan_status, bundle.is_cleared) == ("pending", True)
    for nobody in (uuid4(), "nonsense", "backfil"):
        assert api.post(f"/skills/catalog/{nobody}/scan").json()["code"] == "SKILL_BUNDLE_NOT_FOUND"
        assert api.get(f"/skills/catalog/{nobody}").json()["code"] == "SKILL_BUNDLE_NOT_FOUND"
        assert api.put(f"/skills/catalog/{nobody}", {}).json()["code"] == "SKILL_BUNDLE_NOT_FOUND"
        assert api.delete(f"/skills/catalog/{nobody}").json()["code"] == "SKILL_BUNDLE_NOT_FOUND"


def test_the_list_is_filtered_paged_and_one_query(api: ApiClient) -> None:
    group = make_group("g")
    for number in range(6):
        content = f"number {number}".encode()
        bundle = make_bundle(f"s{number}", content=content, tags=["even"] if number % 2 == 0 else ["100%"])
        make_grant(group, str(bundle.pk), payload_type="skill-bundle")
        SkillPromotion.objects.create(bundle=bundle, from_scope="team", to_scope="org")
    SkillBundle.objects.filter(name="s1").update(status="published", scope="team", scan_status="failed")
    make_bundle("s1", "1.1.0", content=b"newer")
    for query, names in (
        ("", ["s1", "s5", "s4", "s3", "s2", "s1", "s0"]),
        ("?limit=2", ["s1", "s5"]),
        ("?tag=even", ["s4", "s2", "s0"]),
        ("?tag=eve", []),
        ("?q=S5", ["s5"]),
        ("?q=100%25", ["s5", "s3", "s1"]),
        ("?status=published", ["s1"]),
        ("?scope=team", ["s1"]),
        ("?scanStatus=failed", ["s1"]),
        ("?name=s1", ["s1", "s1"]),
    ):
        with CaptureQueriesContext(connection) as captured:
            found = api.get(f"/skills/catalog{query}")
        assert [bundle["name"] for bundle in found.json()] == names, query
        assert len(captured) == 1
        assert b"number" not in found.content
        assert b'"content"' not in found.content
    first = api.get("/skills/catalog?limit=4")
    rest = api.get(first["Link"].partition("<")[2].partition(">")[0])
    assert [bundle["name"] for bundle in rest.json()] == ["s2", "s1", "s0"]
    assert "Link" not in rest
    for query in ("scope=world", "status=live", "scanStatus=good", "limit=0", "cursor=x"):
        assert api.get(f"/skills/catalog?{query}").status_code == 400


def test_roles(viewer_api: ApiClient, operator_api: ApiClient) -> None:
    assert viewer_api.get("/skills/catalog").status_code == 200
    assert viewer_api.post("/skills/catalog", BODY).status_code == 403
    made = operator_api.post("/skills/catalog", BODY).json()["id"]
    assert viewer_api.get(f"/skills/catalog/{made}").status_code == 200
    for refused in (
        viewer_api.put(f"/skills/catalog/{made}", {}),
        viewer_api.delete(f"/skills/catalog/{made}"),
        viewer_api.post(f"/skills/catalog/{made}/scan"),
    ):
        assert refused.status_code == 403


def test_versions_are_ordered_as_semver_says() -> None:
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
               "1.0.0-rc.1", "1.0.0", "1.0.0+build", "1.2.0", "1.10.0", "2.0.0"]  # fmt: skip
    assert sorted(ordered[6:] + ordered[:6], key=rules.version_key) == ordered
