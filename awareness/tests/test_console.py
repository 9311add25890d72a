"""Console pages of awareness: the rollout board, participation, session scopes."""

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Role
from accounts.tests.people import signed_in
from awareness import selectors
from awareness.models import SessionScope
from awareness.services import rollouts
from awareness.tests.test_participation import seen
from opencrane.actor import SYSTEM
from operations.models import AuditEntry
from policies.tests.factories import make_tenant
from policies.tests.test_console import text_of
from tenants.models import Tenant

pytestmark = pytest.mark.django_db

WAVES = ["first", "second", "last"]


def define(**values: Any) -> None:
    wanted = {"target_version": "2.0.0", "stable_version": "1.0.0", "waves": WAVES}
    rollouts.define_rollout(values=wanted | values, actor=SYSTEM)


def fleet() -> None:
    """One tenant in each place of the board, and one that asks for no wave."""
    for name in ("silent", "unreported", "drifted", "on-target"):
        make_tenant(name, awareness_wave="first")
    make_tenant("on-stable", awareness_wave="second")
    make_tenant("stranger")
    seen(Tenant.objects.get(name="unreported"))
    seen(Tenant.objects.get(name="drifted"), version="1.0.0")
    seen(Tenant.objects.get(name="on-target"), version="2.0.0", violations=1)
    seen(Tenant.objects.get(name="on-stable"), version="1.0.0")


def names(text: str) -> list[str]:
    return re.findall(r'data-label="Tenant"><a href="/admin/tenants/([^/]+)/"', text)


def seen_in(text: str) -> str:
    """The state that a form was made from."""
    found = re.search(r'name="seen" value="([^"]+)"', text)
    assert found is not None
    return found.group(1)


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.OPERATOR)


@pytest.fixture
def viewer() -> Client:
    return signed_in(Role.VIEWER)


@pytest.mark.django_db(transaction=True)
def test_each_number_on_the_board_counts_exactly_the_tenants_it_leads_to(admin: Client) -> None:
    define()
    rollouts.promote(actor=SYSTEM)
    fleet()
    text = text_of(admin, "/admin/rollout/")
    links = re.findall(r'<a href="([^"]+)" data-testid="([^"]+)">.*?<strong>(\d+)</strong>', text)
    assert len(links) == 5 * len(WAVES)
    counted = {}
    for url, key, count in links:
        assert len(names(text_of(admin, html.unescape(url)))) == int(count), key
        counted[key] = int(count)
    assert {key: count for key, count in counted.items() if count} == {
        "first-silent": 1, "first-unreported": 1, "first-drifted": 1, "first-on_target": 1, "second-on_stable": 1,
        "last-silent": 1,
    }  # fmt: skip
    stats = re.findall(
        r'href="([^"]+)" data-testid="(critical|warning|ok)"><strong>(\d+)<', text_of(admin, "/admin/participation/")
    )
    assert {key: int(count) for _, key, count in stats} == {"critical": 1, "warning": 3, "ok": 2}
    for url, _, count in stats:
        assert len(names(text_of(admin, html.unescape(url)))) == int(count)


@pytest.mark.django_db(transaction=True)
def test_promoting_and_rolling_back_show_which_tenants_change_and_do_just_that(admin: Client) -> None:
    define()
    fleet()
    page = text_of(admin, "/admin/rollout/change/promote/?wave=second")
    assert "5 tenants will change version" in page
    assert "drifted, on-target, silent, unreported" in page
    assert selectors.current_rollout().frontier == 0
    form = {"seen": seen_in(page), "wave": "second"}
    assert admin.post("/admin/rollout/change/promote/", form)["Location"] == "/admin/rollout/"
    assert selectors.current_rollout().promoted_waves == ("first", "second")
    again = admin.post("/admin/rollout/change/promote/", form | {"wave": "last"})
    assert again.status_code == 412
    assert "Somebody else changed the rollout" in again.content.decode()

    page = text_of(admin, "/admin/rollout/change/rollback/")
    assert "5 tenants will change version" in page
    assert "2.0.0 → 1.0.0" in page
    admin.post("/admin/rollout/change/rollback/", {"seen": seen_in(page)})
    assert selectors.current_rollout().promoted_waves == ()
    assert "Nothing would change" in text_of(admin, "/admin/rollout/change/rollback/")
    assert admin.get("/admin/rollout/change/promote/?wave=none").status_code == 400
    assert set(AuditEntry.objects.values_list("actor_name", flat=True)) == {"system", "some-operator"}


@pytest.mark.django_db(transaction=True)
def test_a_definition_is_reviewed_with_the_tenants_that_change_at_once(admin: Client) -> None:
    define()
    rollouts.promote(wave="last", actor=SYSTEM)
    fleet()
    form = {"seen": seen_in(text_of(admin, "/admin/rollout/define/")), "targetVersion": "new",
            "stableVersion": "1.0.0", "waves": "first\nfirst", "shadowMode": ""}  # fmt: skip
    wrong = admin.post("/admin/rollout/define/", form)
    assert wrong.status_code == 400
    assert "Has to be a semantic version" in wrong.content.decode()
    assert "Has to name each wave once" in wrong.content.decode()
    form |= {"targetVersion": "3.0.0", "waves": "first\nlast", "step": "review"}
    review = admin.post("/admin/rollout/define/", form).content.decode()
    assert "<strong>6 tenants</strong> will change from 2.0.0 to 1.0.0 at once" in review
    assert selectors.current_rollout().target_version == "2.0.0"
    assert admin.post("/admin/rollout/define/", form | {"step": "save"})["Location"] == "/admin/rollout/"
    state = selectors.current_rollout()
    assert (state.target_version, state.waves, state.frontier) == ("3.0.0", ("first", "last"), 0)
    assert admin.post("/admin/rollout/define/", form | {"step": "save"}).status_code == 412


def test_pages_of_participants_have_every_tenant_once(admin: Client) -> None:
    for number in range(120):
        make_tenant(f"t{number:03}")
    found: list[str] = []
    url: str | None = "/admin/participation/?severity=warning"
    while url:
        text = text_of(admin, url)
        found += names(text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        url = html.unescape(following.group(1)) if following else None
    assert found == [f"t{number:03}" for number in range(120)]
    assert names(text_of(admin, "/admin/participation/?q=T01%25")) == []
    assert names(text_of(admin, "/admin/participation/?q=T11")) == [f"t11{digit}" for digit in range(10)]


@pytest.mark.django_db(transaction=True)
def test_a_session_is_found_and_cleared(admin: Client) -> None:
    anna = make_tenant("anna")
    key = "chat/<b>1</b>"
    scopes = [{"scope": "org", "payloadId": "handbook"}]
    SessionScope.objects.create(session_key=key, principal="anna", tenant=anna, scopes=scopes)
    SessionScope.objects.create(session_key="chat/2", principal="bert@example.com", scopes=scopes)
    text = text_of(admin, "/admin/sessions/?q=ANNA")
    assert "handbook" in text
    assert "chat/2" not in text
    assert key not in text
    assert admin.post("/admin/sessions/clear/", {"session": key})["Location"] == "/admin/sessions/"
    assert list(SessionScope.objects.values_list("session_key", flat=True)) == ["chat/2"]
    gone = admin.post("/admin/sessions/clear/", {"session": key}, follow=True)
    assert "There is no scope for that session." in gone.content.decode()


def test_viewers_see_all_of_it_and_may_post_nothing(viewer: Client) -> None:
    anna = make_tenant("anna")
    SessionScope.objects.create(session_key="chat/1", principal="anna", tenant=anna, scopes=[])
    for path in ("/admin/rollout/", "/admin/participation/", "/admin/sessions/", "/admin/rollout/change/promote/"):
        text = text_of(viewer, path)
        assert re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', text) == ["/admin/logout/"], path
    for path in ("/admin/rollout/define/", "/admin/rollout/change/promote/", "/admin/rollout/change/rollback/",
                 "/admin/sessions/clear/"):  # fmt: skip
        assert viewer.post(path, {"session": "chat/1"}).status_code == 403
    assert SessionScope.objects.exists()


@pytest.mark.parametrize(
    "path",
    [
        "/admin/rollout/",
        "/admin/rollout/change/promote/",
        "/admin/rollout/define/",
        "/admin/participation/",
        "/admin/participation/?wave=org",
        "/admin/sessions/",
    ],
)
def test_queries_do_not_grow(admin: Client, path: str) -> None:
    counts = []
    for size in (2, 60):
        Tenant.objects.all().delete()
        for number in range(size):
            tenant = make_tenant(f"t{number}")
            seen(tenant, version="9.9.9")
            SessionScope.objects.create(session_key=f"chat/{number}", principal=tenant.name, tenant=tenant, scopes=[])
        with CaptureQueriesContext(connection) as queries:
            text_of(admin, path)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12
