"""Console pages of tenants, as a browser without scripts sees them."""

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Role
from accounts.tests.people import PASSWORD, person, signed_in
from cluster.models import DriftEvaluation, DriftFinding
from operations.models import AuditEntry
from tenants.models import Tenant

pytestmark = pytest.mark.django_db

NASTY = '<script>alert("x")</script>'


def make(name: str, **fields: Any) -> Tenant:
    values = {"display_name": name.title(), "email": f"{name}@example.com", "generation": 1, "observed_generation": 1}
    return Tenant.objects.create(name=name, **values | fields)


def fleet(count: int) -> None:
    Tenant.objects.bulk_create(
        Tenant(
            name=f"t{number:04}", display_name=f"T {number}", email=f"t{number}@example.com", generation=1,
            observed_generation=1, team=("red", "green")[number % 2],
        )
        for number in range(count)
    )  # fmt: skip


def drift(name: str, **fields: Any) -> None:
    now = timezone.now()
    values: dict[str, Any] = {
        "kind": "Tenant", "name": name, "issue": "field-mismatch", "fields": ["team"], "since": now,
        "evaluated_at": now, "differences": [{"field": "team", "cluster": "green", "row": "red"}],
        "managers": {"team": ["kubectl-edit (Update, 2026-01-01T00:00:00Z)"]},
    }  # fmt: skip
    DriftFinding.objects.create(**values | fields)
    DriftEvaluation.objects.update_or_create(
        kind="Tenant", defaults={"evaluated_at": now, "source_count": 1, "projection_count": 1}
    )


def listed(client: Client, query: str = "") -> list[str]:
    """Names of the rows of the list, all pages."""
    names: list[str] = []
    url: str | None = f"/admin/tenants/?{query}"
    while url:
        text = client.get(url).content.decode()
        names += re.findall(r'data-label="Name"><a href="/admin/tenants/([^/]+)/"', text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        url = html.unescape(following.group(1)) if following else None
    return names


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.ADMIN)


@pytest.fixture
def viewer() -> Client:
    return signed_in(Role.VIEWER)


# -- entering ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.VIEWER])
def test_people_with_a_role_sign_in_with_their_password(role: Role) -> None:
    client, user = Client(), person(role)
    answer = client.post("/admin/login/", {"username": user.username, "password": PASSWORD}, follow=True)
    assert answer.redirect_chain == [("/admin/", 302)]
    assert "Fleet at a glance" in answer.content.decode()


def test_members_and_switched_off_accounts_stay_out() -> None:
    member, gone = person(Role.MEMBER), person(Role.ADMIN, "gone")
    gone.is_active = False
    gone.save()
    for user in (member, gone):
        answer = Client().post("/admin/login/", {"username": user.username, "password": PASSWORD})
        assert answer.status_code == 200
        assert "_auth_user_id" not in Client().session


@pytest.mark.parametrize(
    "path", ["/admin/", "/admin/tenants/", "/admin/tenants/anna/", "/admin/new-tenant/", "/admin/drift/",
             "/admin/jobs/", "/admin/audit/", "/admin/health/", "/admin/accounts/user/"],
)  # fmt: skip
def test_strangers_are_sent_to_the_login(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 302
    assert answer["Location"] == f"/admin/login/?next={path}"


def test_forms_without_a_csrf_token_are_refused() -> None:
    make("anna")
    client = Client(enforce_csrf_checks=True)
    client.force_login(person(Role.ADMIN))
    for path in ("/admin/tenants/anna/do/suspend/", "/admin/tenants-bulk/", "/admin/new-tenant/"):
        assert client.post(path, {"generation": "1"}).status_code == 403
    assert not Tenant.objects.get().suspended


def test_pages_come_under_a_policy_without_foreign_hosts(admin: Client) -> None:
    fleet(3)
    for path in ("/admin/", "/admin/tenants/"):
        answer = admin.get(path)
        assert "script-src 'self' 'unsafe-eval'" in answer["Content-Security-Policy"]
        text = answer.content.decode()
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
        assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>\s*\S", text)
        assert not re.findall(r"\son[a-z]+=", text)


# -- roles ------------------------------------------------------------------------------------------------------------


def test_viewers_see_everything_and_no_buttons(viewer: Client) -> None:
    make("anna", generation=2, sync_failing_since=timezone.now())
    drift("anna")
    for path in (
        "/admin/",
        "/admin/tenants/",
        "/admin/tenants/anna/",
        "/admin/tenants/anna/?tab=sync",
        "/admin/drift/",
    ):
        text = viewer.get(path).content.decode()
        assert "anna" in text
        posts = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', text)
        assert posts == ["/admin/logout/"]


@pytest.mark.parametrize(
    "path", ["/admin/tenants/anna/do/suspend/", "/admin/tenants/anna/do/delete/", "/admin/tenants-bulk/",
             "/admin/new-tenant/", "/admin/tenants/anna/edit/", "/admin/tenants/anna/datasets/",
             "/admin/drift/Tenant/check/", "/admin/drift/Tenant/repair/"],
)  # fmt: skip
def test_viewers_may_post_nothing(viewer: Client, path: str) -> None:
    make("anna")
    answer = viewer.post(
        path, {"generation": "1", "confirm": "anna", "action": "delete", "name": "anna", "scope": "all"}
    )
    assert answer.status_code == 403
    assert "Your role does not allow this." in answer.content.decode()
    assert Tenant.objects.get().generation == 1
    assert not AuditEntry.objects.exists()


# -- dashboard --------------------------------------------------------------------------------------------------------


def test_each_number_counts_exactly_the_rows_it_leads_to(admin: Client) -> None:
    make("well", status_phase="Running")
    make("slept", suspended=True)
    make("broken", status_phase="Error")
    make("late", generation=2)
    make("stuck", generation=2, sync_failing_since=timezone.now(), sync_error="no such field")
    make("going", generation=2, deleting=True)
    make("changed", status_phase="Running")
    drift("changed")
    text = admin.get("/admin/").content.decode()
    stats = re.findall(r'<a class="oc-stat" href="([^"]+)" data-testid="[^"]+"><strong>([^<]+)</strong>', text)
    assert len(stats) == 9
    assert {html.unescape(url): int(count) for url, count in stats} == {
        html.unescape(url): len(listed(admin, html.unescape(url).partition("?")[2])) for url, _ in stats
    }
    assert dict(stats)["/admin/tenants/?sync=synced"] == "3"
    assert "no such field" in text


# -- list -------------------------------------------------------------------------------------------------------------


def test_pages_show_each_tenant_once_in_both_orders(admin: Client) -> None:
    fleet(120)
    names = [f"t{number:04}" for number in range(120)]
    assert sorted(listed(admin)) == names
    assert listed(admin, "sort=name") == names


def test_filters_and_search_narrow_the_list(admin: Client) -> None:
    fleet(4)
    make("anna", team="red", email="someone@else.example", generation=2)
    assert listed(admin, "team=green&sort=name") == ["t0001", "t0003"]
    assert listed(admin, "q=ELSE.example") == ["anna"]
    assert listed(admin, "sync=waiting") == ["anna"]
    assert listed(admin, "q=100%25") == []
    assert listed(admin, "phase=nonsense&sync=nonsense&sort=name") == ["anna", "t0000", "t0001", "t0002", "t0003"]


def test_a_cursor_of_another_list_is_refused_with_the_request_id(admin: Client) -> None:
    answer = admin.get("/admin/tenants/?cursor=made-up", headers={"X-Request-ID": "find-me"})
    assert answer.status_code == 400
    assert "INVALID_CURSOR" in answer.content.decode()
    assert "find-me" in answer.content.decode()


def test_an_empty_list_teaches(admin: Client) -> None:
    text = admin.get("/admin/tenants/").content.decode()
    for lesson in (
        "No tenants yet",
        "/admin/new-tenant/",
        "curl -X POST http://testserver/api/v1/tenants",
        "kubectl apply",
    ):
        assert lesson in text


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/admin/", 12),
        ("/admin/tenants/", 6),
        ("/admin/tenants/t0001/", 7),
        ("/admin/tenants/t0001/?tab=spec", 6),
        ("/admin/tenants/t0001/?tab=contract", 14),
        ("/admin/tenants/t0001/?tab=sync", 8),
        ("/admin/tenants/t0001/?tab=audit", 7),
        ("/admin/tenants/t0001/edit/", 4),
        ("/admin/drift/", 8),
    ],
)
def test_queries_do_not_grow_with_the_fleet(admin: Client, path: str, limit: int) -> None:
    """One of them counts the notices that the sidebar tells of."""
    counts = []
    for size in (2, 80):
        Tenant.objects.all().delete()
        DriftFinding.objects.all().delete()
        fleet(size)
        for number in range(size):
            drift(f"t{number:04}")
        with CaptureQueriesContext(connection) as queries:
            answer = admin.get(path)
        assert answer.status_code == 200
        assert len(answer.content) < 200_000
        counts.append(len(queries))
    assert counts[0] == counts[1] <= limit


# -- tenant page ------------------------------------------------------------------------------------------------------


def test_what_people_wrote_is_never_markup(admin: Client) -> None:
    make(
        "anna",
        display_name=NASTY,
        config_overrides={"note": NASTY},
        sync_error=NASTY,
        status_message=NASTY,
        generation=2,
    )
    drift("anna", differences=[{"field": "team", "cluster": NASTY, "row": NASTY}], managers={"team": [NASTY]})
    AuditEntry.objects.create(
        tenant="anna", tenant_id=Tenant.objects.get().pk, action="tenant.updated", resource="Tenant/anna",
        message=NASTY, actor_kind="user", actor_name=NASTY, before={"a": NASTY}, after={NASTY: 1},
    )  # fmt: skip
    tabs = [f"/admin/tenants/anna/?tab={tab}" for tab in ("overview", "spec", "contract", "sync", "audit")]
    entry = f"/admin/audit/{AuditEntry.objects.get().pk}/"
    for path in ("/admin/", "/admin/tenants/", "/admin/drift/", "/admin/audit/", entry, f"{entry}?part=diff",
                 "/admin/tenants/anna/edit/", "/admin/tenants/anna/?part=header", *tabs):  # fmt: skip
        text = admin.get(path).content.decode()
        assert NASTY not in text
        assert "&lt;script&gt;alert(" in text or path == tabs[2]


def test_a_name_nobody_has_is_a_page_that_says_so(admin: Client) -> None:
    answer = admin.get("/admin/tenants/nobody/")
    assert answer.status_code == 404
    assert "There is no tenant named nobody." in answer.content.decode()


def test_a_tenant_in_flight_keeps_its_header_up_to_date(admin: Client) -> None:
    tenant = make("anna", generation=2)
    assert 'hx-trigger="every 2s"' in admin.get("/admin/tenants/anna/?part=header").content.decode()
    Tenant.objects.update(observed_generation=2)
    assert "hx-trigger" not in admin.get("/admin/tenants/anna/?part=header").content.decode()
    tenant.delete()
    assert admin.get("/admin/tenants/anna/?part=header")["HX-Redirect"] == "/admin/tenants/"
    assert "Tenant anna is gone" in admin.get("/admin/tenants/").content.decode()


def test_tenants_may_be_called_like_pages(admin: Client) -> None:
    for name in ("new", "bulk", "edit", "do"):
        make(name)
        assert admin.get(f"/admin/tenants/{name}/").status_code == 200
    assert admin.get("/admin/tenants")["Location"] == "/admin/tenants/"
