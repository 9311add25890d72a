"""The console's pages of accounts: the login page, people and their roles, access tokens."""

import datetime
import re
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.test import Client
from django.utils import timezone

from accounts.models import AccessToken, Role, User
from accounts.services import issue_token
from accounts.tests.people import PASSWORD, person
from conftest import ApiClient
from opencrane.actor import Actor
from operations.models import AuditEntry

pytestmark = pytest.mark.django_db


def somebody(role: Role, name: str = "") -> User:
    """An account without a password, which takes long to hash."""
    name = name or f"some-{role.value}"
    return User.objects.create_user(name, f"{name}@example.com", role=role)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def token_of(user: User, label: str, **options: Any) -> AccessToken:
    role = Role(user.role)
    actor = Actor("user", user.username, user.pk)
    return issue_token(name=label, role=role, creator_role=role, actor=actor, **options).token


# --- The login page --------------------------------------------------------------------------------------------------


def test_the_login_page_offers_the_provider_when_there_is_one_and_always_a_password(settings: Any) -> None:
    deep = "/admin/login/?next=/admin/tenants/anna/%3Ftab%3Dsync"
    page = Client().get(deep).content.decode()
    assert "Sign in with your organization" not in page
    assert 'name="password"' in page
    settings.OIDC_ISSUER = "https://id.example.com"
    page = Client().get(deep).content.decode()
    assert 'href="/api/v1/auth/login?returnTo=%2Fadmin%2Ftenants%2Fanna%2F%3Ftab%3Dsync"' in page
    assert 'name="password"' in page
    assert 'href="/api/v1/auth/login?returnTo=%2Fadmin%2F"' in Client().get("/admin/login/").content.decode()


def test_a_member_is_told_why_the_console_is_closed_and_can_sign_out() -> None:
    client = signed_in(somebody(Role.MEMBER))
    answer = client.get("/admin/", follow=True)
    page = answer.content.decode()
    assert answer.redirect_chain == [("/admin/login/?next=/admin/", 302)]
    assert "You are signed in as some-member, with the role member." in page
    assert 'action="/admin/logout/"' in page
    assert client.get("/admin/tenants/").status_code == 302


def test_wrong_passwords_lock_a_name_for_an_address_and_for_no_other(settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 2
    user = person(Role.ADMIN, "root")

    def attempt(password: str, name: str = "root", address: str = "192.0.2.1") -> Any:
        return Client(REMOTE_ADDR=address).post("/admin/login/?next=/admin/", {"username": name, "password": password})

    assert attempt("wrong").status_code == 200
    locked = attempt("wrong again", "ROOT")
    assert (locked.status_code, locked["Retry-After"]) == (429, "900")
    assert "Too many wrong passwords" in locked.content.decode()
    assert attempt(PASSWORD).status_code == 429, "the right password opens a locked name"
    assert attempt(PASSWORD, address="192.0.2.2").status_code == 302
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.resource, entry.address) == ("user.locked_out", "User/root", "192.0.2.1")
    AccessAttempt.objects.update(attempt_time=timezone.now() - datetime.timedelta(minutes=16))
    assert attempt(PASSWORD).status_code == 302
    assert not AccessAttempt.objects.filter(username="root").exists()
    assert user.username == "root"


def test_names_that_nobody_has_are_locked_too_and_never_audited(settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 2
    secret = "a password typed as the name" + "x" * 400
    form = {"username": secret, "password": "wrong"}
    statuses = [Client(REMOTE_ADDR="192.0.2.1").post("/admin/login/", form).status_code for _ in range(3)]
    assert statuses == [200, 429, 429]
    assert not AuditEntry.objects.exists()


def test_passwords_are_kept_in_no_attempt() -> None:
    Client(REMOTE_ADDR="not an address").post("/admin/login/", {"username": "root", "password": "hunter2 hunter2"})
    assert "hunter2" not in str(list(AccessAttempt.objects.values()))
    assert AccessAttempt.objects.count() == 1


# --- People ----------------------------------------------------------------------------------------------------------


def form_of(page: str) -> dict[str, str]:
    """The values of a page's fields, as far as the tests need them."""
    found = dict(re.findall(r'<input type="(?:text|email)" name="(\w+)" value="([^"]*)"', page))
    return {name: found.get(name, "") for name in ("username", "email", "first_name", "last_name")}


def test_an_administrator_changes_a_role_and_it_stays() -> None:
    admin = signed_in(somebody(Role.ADMIN))
    anna = somebody(Role.MEMBER, "anna")
    User.objects.filter(pk=anna.pk).update(oidc_issuer="https://id.example.com", oidc_subject="a-1")
    listed = admin.get("/admin/accounts/user/").content.decode()
    for shown in ("anna@example.com", "OpenID Connect", "groups and address"):
        assert shown in listed
    url = f"/admin/accounts/user/{anna.pk}/change/"
    page = admin.get(url).content.decode()
    assert "https://id.example.com" in page
    form = {"username": "anna", "email": "anna@example.com", "role": "operator", "is_active": "on"}
    assert admin.post(url, form).status_code == 302
    anna.refresh_from_db()
    assert (anna.role, anna.role_pinned, anna.is_staff) == ("operator", True, True)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor_name) == ("user.changed", "some-admin")
    assert entry.after == {"role": "operator", "role_pinned": True}
    assert admin.post(url, form).status_code == 302
    anna.refresh_from_db()
    assert anna.role_pinned is False, "unticking the box lets the role follow the provider again"


def test_a_new_account_keeps_the_role_it_was_made_with() -> None:
    admin = signed_in(somebody(Role.ADMIN))
    form = {"username": "bert", "email": "bert@example.com", "role": "viewer", "usable_password": "false"}
    answer = admin.post("/admin/accounts/user/add/", form)
    assert answer.status_code == 302, answer.content
    bert = User.objects.get(username="bert")
    assert (bert.role, bert.role_pinned, bert.has_usable_password()) == ("viewer", True, False)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.VIEWER])
def test_others_see_people_and_change_nothing(role: Role) -> None:
    anna = somebody(Role.MEMBER, "anna")
    client = signed_in(somebody(role))
    assert "anna@example.com" in client.get("/admin/accounts/user/").content.decode()
    answer = client.post(f"/admin/accounts/user/{anna.pk}/change/", {"username": "anna", "role": "admin"})
    assert answer.status_code == 403
    assert User.objects.get(pk=anna.pk).role == Role.MEMBER


# --- Access tokens ---------------------------------------------------------------------------------------------------


def test_a_token_is_made_shown_once_and_revoked() -> None:
    olga = somebody(Role.OPERATOR, "olga")
    client = signed_in(olga)
    assert "No access tokens of yours" in client.get("/admin/access-tokens/").content.decode()
    page = client.get("/admin/new-access-token/").content.decode()
    assert 'value="operator"' in page
    assert 'value="admin"' not in page
    form = {"name": "deploys", "owner": "team", "role": "viewer", "days": "30"}
    made = client.post("/admin/new-access-token/", form)
    assert made.status_code == 200
    assert "no-store" in made["Cache-Control"]
    match = re.search(r'data-testid="secret">(ocp_[0-9a-f]{48})<', made.content.decode())
    assert match is not None
    assert ApiClient(match[1]).get("/auth/me").json()["role"] == "viewer"
    token = AccessToken.objects.get()
    assert (token.created_by, token.owner) == (olga, "team")
    assert token.expires_at is not None
    assert datetime.timedelta(days=29) < token.expires_at - timezone.now() <= datetime.timedelta(days=30)
    listed = client.get("/admin/access-tokens/").content.decode()
    assert token.prefix in listed
    assert match[1] not in listed
    answer = client.post(f"/admin/access-tokens/{token.pk}/revoke/", {"next": "https://evil.example/"})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/access-tokens/")
    assert ApiClient(match[1]).get("/auth/me").status_code == 401
    assert "Revoked" in client.get("/admin/access-tokens/?status=revoked").content.decode()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": " "}, 400),
        ({"name": "x" * 201}, 400),
        ({"role": "root"}, 400),
        ({"role": "admin"}, 403),
        ({"days": "-1"}, 400),
    ],
    ids=str,
)
def test_a_form_that_makes_no_sense_makes_no_token(change: dict[str, str], status: int) -> None:
    client = signed_in(somebody(Role.OPERATOR))
    form = {"name": "x", "owner": "", "role": "viewer", "days": ""} | change
    assert client.post("/admin/new-access-token/", form).status_code == status
    assert not AccessToken.objects.exists()


def test_operators_see_their_own_tokens_and_administrators_all() -> None:
    olga, oleg = somebody(Role.OPERATOR, "olga"), somebody(Role.OPERATOR, "oleg")
    token_of(olga, "of-olga")
    others = token_of(oleg, "of-oleg")
    client = signed_in(olga)
    page = client.get("/admin/access-tokens/").content.decode()
    assert "of-olga" in page
    assert "of-oleg" not in page
    answer = client.post(f"/admin/access-tokens/{others.pk}/revoke/", follow=True)
    assert "There is no such access token." in answer.content.decode()
    assert AccessToken.objects.get(pk=others.pk).revoked_at is None
    page = signed_in(somebody(Role.ADMIN)).get("/admin/access-tokens/").content.decode()
    assert "of-olga" in page
    assert "of-oleg" in page


def test_a_viewer_reads_and_makes_none() -> None:
    client = signed_in(somebody(Role.VIEWER))
    assert client.get("/admin/access-tokens/").status_code == 200
    assert client.post("/admin/new-access-token/", {"name": "x"}).status_code == 403


def test_what_ends_soon_is_on_the_dashboard() -> None:
    olga = somebody(Role.OPERATOR, "olga")
    now = timezone.now()
    token_of(olga, "ends-in-a-week", expires_at=now + datetime.timedelta(days=7))
    token_of(olga, "ends-next-year", expires_at=now + datetime.timedelta(days=300))
    token_of(somebody(Role.OPERATOR, "oleg"), "of-somebody-else", expires_at=now + datetime.timedelta(days=7))
    page = signed_in(olga).get("/admin/").content.decode()
    card = page.partition('data-testid="expiring"')[2].partition("</section>")[0]
    assert "ends-in-a-week" in card
    assert "ends-next-year" not in card
    assert "of-somebody-else" not in card
    assert "data-testid" in page
    AccessToken.objects.update(revoked_at=now)
    assert 'data-testid="expiring"' not in signed_in(olga).get("/admin/").content.decode()
