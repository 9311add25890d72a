"""Console pages of skills: what strangers wrote is shown safely, and the life of a bundle by its buttons."""

import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Role
from accounts.tests.people import signed_in
from operations.models import AuditEntry
from policies.models import Grant
from policies.tests.factories import make_grant, make_group, make_tenant
from policies.tests.test_console import grant_row, text_of
from skills import rules
from skills.models import ScanFinding, SkillBundle, SkillPromotion
from skills.tests.factories import SKILL, make_bundle, make_published

pytestmark = pytest.mark.django_db

NASTY = """---
name: nasty
description: <b>x</b>
---
# Hello <script>alert(1)</script>

<img src=x onerror=alert(1)> ![pixel](https://evil.example/p.png?d=1) [run](javascript:alert(1))
[out](/admin/logout/) [data](data:text/html,x) [web](https://fine.example/a) say \u202eyes\u202c\U000e0041

```html"><script>alert(2)</script>
<script>alert(3)</script>
```
"""


def url_of(bundle: SkillBundle, rest: str = "") -> str:
    return f"/admin/skills/{bundle.pk}/{rest}"


def form_of(**values: Any) -> dict[str, Any]:
    text = SKILL.format(name="summarize").replace("\n", "\r\n")
    defaults = {"name": "summarize", "version": "1.0.0", "scope": "org", "contentType": "text/markdown"}
    return defaults | {"content": text} | values


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.OPERATOR)


@pytest.fixture
def viewer() -> Client:
    return signed_in(Role.VIEWER)


def find(bundle: SkillBundle, *lines: int, severity: str = "high", path: str = "") -> None:
    for position, line in enumerate(lines):
        ScanFinding.objects.create(
            bundle=bundle, position=position, scanner="shell", rule="eval", severity=severity, line=line, path=path,
            message=f"Found {'<i>something</i>'}.",
        )  # fmt: skip


@pytest.mark.parametrize("rest", ["", "?tab=source", "?tab=findings"])
def test_what_strangers_wrote_runs_nothing_and_loads_nothing(admin: Client, rest: str) -> None:
    bundle = make_bundle("nasty", content=NASTY.encode(), description="<script>alert(4)</script>")
    find(bundle, 5)
    page = text_of(admin, url_of(bundle, rest))
    inside = page.partition("<main")[2]
    assert inside
    forbidden = (
        "<script>alert", "<img", "onerror=alert(1)>", 'href="javascript:', 'href="/admin/logout/"', 'href="data:',
        "<i>something", "\u202e", "\U000e0041", "<b>x</b>",
    )  # fmt: skip
    for bad in forbidden:
        assert bad not in inside, bad
    if not rest:
        assert 'href="https://fine.example/a" rel="nofollow noopener noreferrer"' in inside
        assert "⟦U+202E⟧" in inside
        assert "https://evil.example/p.png?d=1" in inside  # its address, as text


def test_findings_lead_to_their_lines(admin: Client) -> None:
    bundle = make_bundle(scan_status="failed", severities={"high": 2})
    find(bundle, 3, 7)
    findings = text_of(admin, url_of(bundle, "?tab=findings"))
    assert re.findall(r'href="\?tab=source#(L\d+)"', findings) == ["L3", "L7"]
    source = text_of(admin, url_of(bundle, "?tab=source"))
    assert re.findall(r'<tr id="(L\d+)" class="oc-marked">', source) == ["L3", "L7"]
    assert "The scan failed: 2 high." in source
    long = make_bundle("long", content=("line\n" * 5000).encode())
    find(long, 4000)
    source = text_of(admin, url_of(long, "?tab=source"))
    assert 'id="L4000"' in source
    assert 'id="L2000"' not in source
    assert "3,896 lines not shown" in source
    archive = make_bundle("archive", content=b"PK\x03\x04\xff", content_type="application/zip")
    find(archive, 2, path="a/run.sh")
    assert "<code>a/run.sh</code>, line 2" in text_of(admin, url_of(archive, "?tab=findings"))
    assert "it is no text" in text_of(admin, url_of(archive, "?tab=source"))


@pytest.mark.parametrize("text", ["[" * 60_000, "* a\n" * 15_000, "*a_" * 20_000, "x" * 70_000])
def test_what_would_take_the_page_long_is_not_rendered(admin: Client, text: str) -> None:
    page = text_of(admin, url_of(make_bundle(content=text.encode())))
    assert "too intricate, to be shown as a page" in page
    assert 'data-testid="rendered"' not in page


def test_viewers_see_all_of_it_and_may_post_nothing(viewer: Client) -> None:
    bundle = make_bundle(status="review")
    make_grant(make_tenant("anna"), str(bundle.pk), payload_type="skill-bundle")
    SkillPromotion.objects.create(bundle=bundle, from_scope="team", to_scope="org")
    pages = ["/admin/skills/", "/admin/skill-reviews/", url_of(bundle, f"compare/?with={bundle.pk}")]
    pages += [
        url_of(bundle, f"?tab={tab}") for tab in ("", "source", "findings", "grants", "promotions", "versions", "audit")
    ]
    for page in pages:
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', text_of(viewer, page))
        assert forms == ["/admin/logout/"], page
    actions = ("scan", "push", "review", "publish", "deprecate", "return", "approve", "reject", "delete")
    for rest in ("edit/", "grants/", "promotions/", *(f"do/{action}/" for action in actions)):
        assert viewer.post(url_of(bundle, rest), {"generation": "1", "confirm": "summarize"}).status_code == 403
    assert viewer.post("/admin/new-skill/", form_of()).status_code == 403
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    "path",
    ["/admin/skills/", "/admin/skill-reviews/", "", "?tab=source", "?tab=findings", "?tab=grants", "?tab=promotions",
     "?tab=versions", "?tab=audit", "edit/"],
)  # fmt: skip
def test_queries_do_not_grow(admin: Client, path: str) -> None:
    counts = []
    for size in (2, 30):
        SkillBundle.objects.all().delete()
        Grant.objects.all().delete()
        bundles = []
        for number in range(size):
            values: dict[str, Any] = {"status": ("draft", "review")[number % 2], "tags": [f"t{number}"]}
            bundles.append(make_bundle("same", f"1.0.{number}", content=f"# {number}".encode(), **values))
            make_grant(f"p{number}@example.com", str(bundles[0].pk), payload_type="skill-bundle")
            SkillPromotion.objects.create(bundle=bundles[-1], from_scope="team", to_scope="org")
            SkillPromotion.objects.create(bundle=bundles[0], from_scope="team", to_scope="org")
        find(bundles[0], *range(1, size + 1))
        with CaptureQueriesContext(connection) as queries:
            text_of(admin, path if path.startswith("/") else url_of(bundles[0], path))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_the_catalog_is_searched_by_facets_with_counts(admin: Client) -> None:
    assert "No skills yet" in text_of(admin, "/admin/skills/")
    make_published("charts", tags=["data"])
    make_bundle("tables", tags=["data", "sql"], scope="team")
    make_bundle("broken", scan_status="failed", severities={"high": 1})

    def found(query: str) -> list[str]:
        text = text_of(admin, f"/admin/skills/?{query}")
        return sorted(re.findall(r'data-label="Name"><a href="[^"]+">([^<]+)</a>', text))

    assert found("status=published") == ["charts"]
    assert found("scanStatus=failed") == found("q=BROK") == ["broken"]
    assert found("scope=team") == found("tag=sql") == ["tables"]
    assert found("tag=data") == ["charts", "tables"]
    text = text_of(admin, "/admin/skills/")
    assert "Draft (2)" in text
    assert "data (2)" in text
    assert "1 high" in text


def test_the_life_of_a_bundle_by_its_buttons(admin: Client) -> None:
    wrong = admin.post("/admin/new-skill/", form_of(version="1.0", content=""))
    assert wrong.status_code == 400
    assert "Has to be a semantic version" in wrong.content.decode()
    assert admin.post("/admin/new-skill/", form_of(tags="data\n\nsql\n")).status_code == 302
    bundle = SkillBundle.objects.get()
    assert bundle.digest == rules.digest_of(SKILL.format(name="summarize").encode())
    assert bundle.tags == ["data", "sql"]
    again = admin.post("/admin/new-skill/", form_of())
    assert again.status_code == 409
    assert "There is a bundle of that name and version already." in again.content.decode()

    page = admin.get(url_of(bundle)).content.decode()
    assert 'hx-trigger="every 2s"' in page
    assert 'data-dialog="publish-dialog"' not in page
    refused = admin.post(url_of(bundle, "do/publish/"), {"generation": "1"}, follow=True)
    assert "Its scan has not ended yet." in refused.content.decode()
    SkillBundle.objects.update(scan_status="passed", is_cleared=True)
    ended = admin.get(url_of(bundle, "?part=header"))
    assert ended["HX-Refresh"] == "true"
    assert 'data-dialog="publish-dialog"' in ended.content.decode()

    assert "Ask for review" in text_of(admin, "/admin/skill-reviews/")
    admin.post(url_of(bundle, "do/review/"), {"generation": "1"})
    assert "Look and publish" in text_of(admin, "/admin/skill-reviews/")
    stale = admin.post(url_of(bundle, "do/publish/"), {"generation": "1"}, follow=True)
    assert "Somebody else changed it" in stale.content.decode()
    admin.post(url_of(bundle, "do/publish/"), {"generation": "2"})
    admin.post(url_of(bundle, "do/deprecate/"), {"generation": "3"})
    admin.post(url_of(bundle, "do/publish/"), {"generation": "4"})
    assert SkillBundle.objects.get().status == "published"
    assert "SKILL_OCI_REGISTRY_URL" in admin.post(url_of(bundle, "do/push/"), follow=True).content.decode()
    changed = form_of(generation="5", content="other", description="Better.")
    assert admin.post(url_of(bundle, "edit/"), changed).status_code == 409
    del changed["content"]
    assert admin.post(url_of(bundle, "edit/"), changed | {"tags": "data\nsql"}).status_code == 302
    assert SkillBundle.objects.get().description == "Better."

    admin.post(url_of(bundle, "do/delete/"), {"confirm": "sum", "generation": "6"})
    assert SkillBundle.objects.exists()
    assert admin.get("/admin/skill-named/summarize@1.0.0/")["Location"] == url_of(bundle)
    admin.post(url_of(bundle, "do/delete/"), {"confirm": "summarize", "generation": "6"})
    assert not SkillBundle.objects.exists()
    assert admin.get("/admin/skill-named/summarize@1.0.0/").status_code == 404


def test_a_file_goes_before_the_text_and_comes_back_as_it_was(admin: Client) -> None:
    data = b"PK\x05\x06" + bytes(18)
    upload = SimpleUploadedFile("skill.zip", data)
    assert admin.post("/admin/new-skill/", form_of(contentType="application/zip", file=upload)).status_code == 302
    bundle = SkillBundle.objects.get()
    download = admin.get(url_of(bundle, "content/"))
    assert download.content == data
    assert download["Content-Type"] == "application/octet-stream"
    assert download["Content-Disposition"] == 'attachment; filename="summarize-1.0.0.zip"'
    edit = text_of(admin, url_of(bundle, "edit/"))
    assert '<textarea id="f-content"' not in edit
    kept = {key: value for key, value in form_of(contentType="application/zip").items() if key != "content"}
    assert admin.post(url_of(bundle, "edit/"), kept | {"generation": "1", "description": "x"}).status_code == 302
    assert SkillBundle.objects.get().digest == bundle.digest
    large = SimpleUploadedFile("large.zip", b"x" * (rules.CONTENT_MAX_BYTES + 1))
    refused = admin.post("/admin/new-skill/", form_of(version="2.0.0", file=large))
    assert refused.status_code == 400
    assert "at most 10485760 bytes" in refused.content.decode()


def test_versions_are_compared_and_carried_on(admin: Client) -> None:
    old = make_published("tables", "1.9.0", content=b"one\ntwo\nthree\n<b>four</b>\n")
    new = make_bundle("tables", "1.10.0", content=b"one\n2\nthree\n<b>four</b>\nfive\n", tags=["x"])
    versions = text_of(admin, url_of(new, "?tab=versions"))
    assert versions.index("1.10.0</strong>") < versions.index(">1.9.0</a>")
    page = text_of(admin, url_of(new, f"compare/?with={old.pk}"))
    lines = re.findall(r'<tr class="oc-(gone|new)">.*?</span>. (.*?)</code>', page)
    assert lines == [("gone", "two"), ("new", "2"), ("new", "five")]
    assert "<b>four" not in page
    assert admin.get(url_of(new, "compare/?with=nonsense")).status_code == 404
    form = text_of(admin, f"/admin/new-skill/?from={old.pk}")
    assert 'name="version" value="1.9.1"' in form
    assert "three" in form


def test_grants_and_promotions(admin: Client) -> None:
    bundle = make_bundle(scope="team")
    make_group("analysts")
    rows = [grant_row(subjectType="group", subjectName="analysts"), grant_row(subjectType="tenant", subjectName="no")]
    form = {name: [row[name] for row in rows] for name in rows[0]} | {"generation": ["1"]}
    refused = admin.post(url_of(bundle, "grants/"), form)
    assert refused.status_code == 422
    assert "There is no tenant no." in refused.content.decode()
    form = {name: [value[0]] for name, value in form.items()} | {"grant.scope": ["team"]}
    assert admin.post(url_of(bundle, "grants/"), form).status_code == 302
    grant = Grant.objects.get()
    assert (grant.payload_type, grant.payload_id, grant.scope) == ("skill-bundle", str(bundle.pk), "team")
    group_page = text_of(admin, f"/admin/groups/{grant.group_id}/?tab=uses")
    assert "summarize@1.0.0" in group_page

    assert admin.post(url_of(bundle, "promotions/"), {"toScope": "team"}).status_code == 400
    admin.post(url_of(bundle, "promotions/"), {"toScope": "org", "notes": "all need it"})
    promotion = SkillPromotion.objects.get()
    assert (promotion.promoted_by, promotion.status) == ("some-operator", "proposed")
    assert "all need it" in text_of(admin, "/admin/skill-reviews/")
    admin.post(url_of(bundle, "do/approve/"), {"promotion": str(promotion.pk)})
    bundle.refresh_from_db()
    assert bundle.scope == "org"
    twice = admin.post(url_of(bundle, "do/reject/"), {"promotion": str(promotion.pk)}, follow=True)
    assert "has been decided" in twice.content.decode()


def test_a_tenant_s_skills_and_why(admin: Client) -> None:
    anna = make_tenant("anna")
    bundle = make_published("tables", "1.0.0")
    make_grant(anna, str(bundle.pk), payload_type="skill-bundle")
    contract = text_of(admin, "/admin/tenants/anna/?tab=contract")
    assert "tables 1.0.0" in contract.partition('data-testid="skills"')[2].partition("</dd>")[0]
    why = text_of(admin, "/admin/why/?tenant=anna&type=skill-bundle&payload=tables")
    assert "/admin/skill-named/tables@1.0.0/" in why
    assert "Allowed by a grant for the tenant" in why
