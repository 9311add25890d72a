"""Signing in by OpenID Connect, at a provider that tells the truth and at one that does not."""

import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from django.contrib.sessions.models import Session
from django.test import Client

from accounts.models import Role, User
from accounts.oidc import provider as provider_module
from accounts.oidc.flow import local_path
from accounts.tests import openid
from accounts.tests.openid import CLIENT_ID, CLIENT_SECRET, Openid
from accounts.tests.people import signed_in
from opencrane import env
from operations.models import AuditEntry

pytestmark = pytest.mark.django_db

PAGE = {"Accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def provider(settings: Any) -> Iterator[Openid]:
    with openid.running() as running:
        settings.OIDC_ISSUER = running.issuer
        settings.OIDC_RP_CLIENT_ID, settings.OIDC_RP_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
        yield running


class Browser(Client):
    """A browser that goes where it is sent, and stands in for the provider's own pages."""

    def begin(self, return_to: str = "") -> dict[str, str]:
        """Off to the provider; the query it is sent with."""
        answer = self.get("/api/v1/auth/login", {"returnTo": return_to} if return_to else {})
        assert answer.status_code == 302, answer.content
        return {name: values[0] for name, values in parse_qs(urlsplit(answer["Location"]).query).items()}

    def sign_in(self, provider: Openid, return_to: str = "", **query: str) -> Any:
        """All the way; the answer of /auth/callback."""
        sent = self.begin(return_to)
        provider.nonce = sent["nonce"]
        return self.get("/api/v1/auth/callback", {"code": "a code", "state": sent["state"]} | query)

    def me(self) -> Any:
        return self.get("/api/v1/auth/me").json()


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# --- The way in ------------------------------------------------------------------------------------------------------


def test_a_person_signs_in_and_is_where_they_wanted_to_go(provider: Openid) -> None:
    browser = Browser()
    answer = browser.sign_in(provider, "/admin/tenants/anna/?tab=sync")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/tenants/anna/?tab=sync")
    assert browser.me() == {
        "mode": "oidc",
        "authenticated": True,
        "user": {"sub": "anna-at-provider", "email": "anna@example.com", "name": "Anna Arden"},
        "role": "member",
    }
    user = User.objects.get()
    assert (user.username, user.has_usable_password(), user.last_login is None) == ("anna@example.com", False, False)
    assert AuditEntry.objects.get().action == "user.created"
    assert Browser().me() == {"mode": "oidc", "authenticated": False}


def test_the_request_has_state_nonce_and_pkce_and_the_exchange_the_verifier(provider: Openid) -> None:
    browser = Browser()
    sent = browser.begin()
    assert (sent["response_type"], sent["client_id"], sent["scope"]) == ("code", CLIENT_ID, "openid email profile")
    assert sent["redirect_uri"] == "http://testserver/api/v1/auth/callback"
    assert sent["code_challenge_method"] == "S256"
    assert min(len(sent["state"]), len(sent["nonce"])) >= 32
    provider.nonce = sent["nonce"]
    assert browser.get("/api/v1/auth/callback", {"code": "c", "state": sent["state"]}).status_code == 302
    (form,) = provider.forms
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == sent["code_challenge"]
    assert (form["grant_type"], form["code"]) == ("authorization_code", "c")
    # HTTP Basic is what holds where the provider says nothing; both parts are form-encoded first.
    assert "client_secret" not in form
    credentials = base64.b64decode(provider.authorizations[0].removeprefix("Basic ")).decode()
    assert credentials == "opencrane:s3cret%2Bof+the%2Fclient"


def test_the_client_authenticates_in_the_form_where_the_provider_wants_that(provider: Openid) -> None:
    provider.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert Browser().sign_in(provider).status_code == 302
    assert (provider.forms[0]["client_secret"], provider.authorizations) == (CLIENT_SECRET, [""])


def test_an_endpoint_may_have_a_query_of_its_own(provider: Openid) -> None:
    provider.discovery = {"authorization_endpoint": f"{provider.issuer}/authorize?policy=staff"}
    location = Browser().get("/api/v1/auth/login")["Location"]
    assert location.count("?") == 1
    assert parse_qs(urlsplit(location).query)["policy"] == ["staff"]


def test_without_a_provider_there_is_no_sign_in(anonymous_api: Any) -> None:
    for path in ("/auth/login", "/auth/callback?code=x&state=y"):
        assert refusal(anonymous_api.get(path)) == (503, "OIDC_NOT_CONFIGURED")


@pytest.mark.parametrize(
    "bad",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "http:evil.example",
        "javascript:alert(1)",
        "evil.example",
        "/" + "x" * 3000,
        "/api/v1/auth/login?returnTo=/",
        "/admin/logout/",
    ],
)
def test_nobody_is_sent_to_another_site(provider: Openid, bad: str) -> None:
    assert local_path(bad) == "/"
    assert Browser().sign_in(provider, bad)["Location"] == "/"


def test_two_tabs_go_each_where_they_wanted(provider: Openid) -> None:
    browser = Browser()
    first, second = browser.begin("/admin/one/"), browser.begin("/admin/two/")
    for sent, path in ((first, "/admin/one/"), (second, "/admin/two/")):
        provider.nonce = sent["nonce"]
        answer = browser.get("/api/v1/auth/callback", {"code": "c", "state": sent["state"]})
        if path == "/admin/one/":
            assert answer["Location"] == path
        else:
            # The session is a new one since: nothing of before counts in it.
            assert refusal(answer) == (400, "VALIDATION_ERROR")


# --- The session -----------------------------------------------------------------------------------------------------


def test_a_session_that_was_planted_is_of_no_use(provider: Openid) -> None:
    browser = Browser()
    sent = browser.begin()
    planted = browser.cookies["sessionid"].value
    provider.nonce = sent["nonce"]
    answer = browser.get("/api/v1/auth/callback", {"code": "c", "state": sent["state"]})
    assert browser.cookies["sessionid"].value != planted
    assert not Session.objects.filter(session_key=planted).exists()
    cookie = answer.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Lax", 12 * 3600)
    other = Browser()
    other.cookies["sessionid"] = planted
    assert other.me()["authenticated"] is False


def test_a_sign_in_that_is_not_finished_is_forgotten_in_minutes(provider: Openid) -> None:
    browser = Browser()
    browser.begin()
    assert int(browser.cookies["sessionid"]["max-age"]) <= 600


def test_another_persons_session_does_not_go_on(provider: Openid) -> None:
    browser = Browser()
    browser.force_login(User.objects.create_user("root", role=Role.ADMIN))
    browser.sign_in(provider)
    assert browser.me()["role"] == "member"


# --- State -----------------------------------------------------------------------------------------------------------


def test_an_answer_counts_once_in_the_browser_that_asked(provider: Openid) -> None:
    browser = Browser()
    sent = browser.begin()
    provider.nonce = sent["nonce"]
    answer = {"code": "c", "state": sent["state"]}
    assert refusal(Browser().get("/api/v1/auth/callback", answer)) == (400, "VALIDATION_ERROR")
    for query in ({}, {"code": "c"}, {"code": "c", "state": "x" * 32}):
        assert refusal(browser.get("/api/v1/auth/callback", query)) == (400, "VALIDATION_ERROR")
    assert browser.get("/api/v1/auth/callback", answer).status_code == 302
    assert refusal(browser.get("/api/v1/auth/callback", answer)) == (400, "VALIDATION_ERROR")
    assert len(provider.forms) == 1


def test_an_answer_that_comes_too_late_does_not_count(provider: Openid) -> None:
    browser = Browser()
    sent = browser.begin()
    session = browser.session
    session["oidc_states"][sent["state"]]["added_on"] = time.time() - 601
    session.save()
    assert refusal(browser.get("/api/v1/auth/callback", {"code": "c", "state": sent["state"]})) == (
        400,
        "VALIDATION_ERROR",
    )
    assert provider.forms == []


def test_a_failed_attempt_uses_the_state_up(provider: Openid) -> None:
    browser = Browser()
    sent = browser.begin()
    query = {"code": "c", "state": sent["state"]}
    provider.nonce = "another"
    assert refusal(browser.get("/api/v1/auth/callback", query)) == (401, "UNAUTHORIZED")
    provider.nonce = sent["nonce"]
    assert refusal(browser.get("/api/v1/auth/callback", query)) == (400, "VALIDATION_ERROR")


def test_what_the_provider_refuses_is_told_without_its_words(provider: Openid) -> None:
    browser = Browser()
    sent = browser.begin()
    query = {"error": "access_denied", "error_description": "call +1 555 0100", "state": sent["state"]}
    answer = browser.get("/api/v1/auth/callback", query)
    assert refusal(answer) == (403, "FORBIDDEN")
    assert "access_denied" in answer.json()["detail"]
    assert b"555" not in answer.content
    sent = browser.begin()
    page = browser.get("/api/v1/auth/callback", {"error": "<b>x", "state": sent["state"]}, headers=PAGE)
    assert (page.status_code, page["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert b"<b>x" not in page.content
    assert b"/admin/login/" in page.content


def test_an_answer_of_another_issuer_is_refused(provider: Openid) -> None:
    assert refusal(Browser().sign_in(provider, iss="https://other.example")) == (401, "UNAUTHORIZED")
    assert Browser().sign_in(provider, iss=provider.issuer).status_code == 302


def test_a_provider_that_names_itself_always_does(provider: Openid) -> None:
    provider.discovery = {"authorization_response_iss_parameter_supported": True}
    assert refusal(Browser().sign_in(provider)) == (401, "UNAUTHORIZED")
    assert Browser().sign_in(provider, iss=provider.issuer).status_code == 302


# --- The ID token ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "somebody-else"},
        {"aud": None},
        {"aud": []},
        {"aud": [CLIENT_ID, "other"]},
        {"aud": [CLIENT_ID, "other"], "azp": "other"},
        {"azp": "other"},
        {"iss": "https://other.example"},
        {"iss": None},
        {"exp": -61},
        {"exp": None},
        {"iat": None},
        {"iat": 120},
        {"nbf": 120},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 300},
        {"at_hash": "another"},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(provider: Openid, claims: dict[str, Any]) -> None:
    """Times are seconds from now."""
    now = int(time.time())
    provider.claims = {
        name: now + value if name in {"exp", "iat", "nbf"} and value is not None else value
        for name, value in claims.items()
    }
    browser = Browser()
    assert refusal(browser.sign_in(provider)) == (401, "UNAUTHORIZED")
    assert not User.objects.exists()
    assert browser.me()["authenticated"] is False


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [CLIENT_ID]},
        {"aud": [CLIENT_ID, "other"], "azp": CLIENT_ID},
        {"exp": -30},
        {"iat": 30},
        {"at_hash": base64.urlsafe_b64encode(hashlib.sha256(b"an access token").digest()[:16]).rstrip(b"=").decode()},
    ],
    ids=str,
)
def test_a_token_may_be_for_several_and_clocks_may_differ(provider: Openid, claims: dict[str, Any]) -> None:
    now = int(time.time())
    provider.claims = {name: now + value if name in {"exp", "iat"} else value for name, value in claims.items()}
    assert Browser().sign_in(provider).status_code == 302


def test_es256_is_as_good_as_rs256(provider: Openid) -> None:
    provider.key = provider.other_key
    assert Browser().sign_in(provider).status_code == 302


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS256 with the public key", "RS512", "no token", "junk"])
def test_other_algorithms_prove_nothing(provider: Openid, algorithm: str) -> None:
    browser = Browser()
    sent = browser.begin()
    provider.nonce = sent["nonce"]
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    match algorithm:
        case "none":
            token = jwt.encode(claims, "", "none", headers={"kid": "one"})
        case "HS256":
            token = jwt.encode(claims, CLIENT_SECRET + " " * 32, "HS256", headers={"kid": "one"})
        case "HS256 with the public key":
            # PyJWT would not sign with such a key, an attacker does.
            parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "one"}, claims)]
            signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
            mac = hashlib.sha256(json.dumps(provider.key.jwk).encode() + signed).digest()
            token = (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
        case "RS512":
            token = jwt.encode(claims, provider.key.private, "RS512", headers={"kid": "one"})
        case "no token":
            provider.answers["/token"] = (200, b'{"access_token": "a", "token_type": "Bearer"}')
            token = "x"
        case _:
            token = "not.a.token"
    provider.id_token = token
    assert refusal(browser.get("/api/v1/auth/callback", {"code": "c", "state": sent["state"]})) == (401, "UNAUTHORIZED")


def test_a_signature_by_another_key_of_the_same_name_is_refused(provider: Openid) -> None:
    provider.published = [openid.Key("one")]
    assert refusal(Browser().sign_in(provider)) == (401, "UNAUTHORIZED")


def test_a_key_for_encryption_signs_nothing(provider: Openid) -> None:
    provider.answers["/keys"] = (200, json.dumps({"keys": [provider.key.jwk | {"use": "enc"}]}).encode())
    assert refusal(Browser().sign_in(provider)) == (401, "UNAUTHORIZED")


def test_a_provider_may_change_its_keys(provider: Openid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "PAUSE_SECONDS", 0.0)
    assert Browser().sign_in(provider).status_code == 302
    assert Browser().sign_in(provider).status_code == 302
    assert provider.asked.count("/keys") == 1
    provider.key = provider.other_key
    assert Browser().sign_in(provider).status_code == 302
    assert provider.asked.count("/keys") == 2
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_a_key_without_a_name_has_to_be_the_only_one(provider: Openid) -> None:
    provider.header = {"kid": None}
    assert Browser().sign_in(provider).status_code == 302
    provider.published = [provider.key, openid.Key("three")]
    provider_module.forget_provider()
    assert refusal(Browser().sign_in(provider)) == (401, "UNAUTHORIZED")


# --- The way out -----------------------------------------------------------------------------------------------------

ANNA_IS_VIEWER = {"anna@example.com": "viewer"}


@pytest.fixture
def ending(provider: Openid, settings: Any) -> Openid:
    """A provider whose sessions end with ours."""
    settings.OIDC_END_SESSION = True
    settings.OIDC_EMAIL_ROLES = ANNA_IS_VIEWER
    provider.discovery = {"end_session_endpoint": f"{provider.issuer}/end"}
    return provider


def onward(answer: Any) -> str:
    """Where the page after signing out leads: by itself, and by its button."""
    by_itself, by_button = (
        re.search(r'url=([^"]*)"', answer.text),
        re.search(r'href="([^"]*)" data-testid', answer.text),
    )
    assert by_itself is not None
    assert by_button is not None
    assert by_itself[1] == by_button[1]
    return html.unescape(by_itself[1])


@pytest.mark.parametrize("query", ["", "?tenant=a"])
def test_signing_out_ends_the_session_at_the_provider(ending: Openid, query: str) -> None:
    endpoint = f"{ending.issuer}/end"
    ending.discovery = {"end_session_endpoint": endpoint + query}
    browser = Browser()
    assert browser.sign_in(ending).status_code == 302
    kept = str(dict(browser.session))
    answer = browser.post("/admin/logout/")
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    assert not browser.me()["authenticated"]
    url = onward(answer)
    assert url.startswith(f"{endpoint}{query}&" if query else f"{endpoint}?")
    sent = {name: values for name, (values,) in parse_qs(urlsplit(url).query).items()}
    hint = sent.pop("id_token_hint")
    assert jwt.decode(hint, options={"verify_signature": False})["sub"] == "anna-at-provider"
    assert hint not in kept, "who reads sessions does not read who people are"
    assert sent == {
        "client_id": CLIENT_ID, "post_logout_redirect_uri": "http://testserver/admin/login/",
    } | ({"tenant": "a"} if query else {})  # fmt: skip


def test_only_what_is_wanted_and_known_is_ended(ending: Openid, settings: Any) -> None:
    def leads_nowhere(browser: Client) -> bool:
        answer = browser.post("/admin/logout/")
        assert not browser.get("/api/v1/auth/me").json()["authenticated"]
        return "id_token_hint" not in answer.text and "http-equiv" not in answer.text

    by_password = signed_in(Role.VIEWER)
    assert leads_nowhere(by_password)
    unwanted, unsealed = Browser(), Browser()
    for browser in (unwanted, unsealed):
        assert browser.sign_in(ending).status_code == 302
    settings.OIDC_END_SESSION = False
    assert leads_nowhere(unwanted)
    settings.OIDC_END_SESSION = True
    settings.ENCRYPTION_KEYS = (b"x" * 32,)
    assert leads_nowhere(unsealed)
    ending.discovery = {}
    provider_module.forget_provider()
    without = Browser()
    assert without.sign_in(ending).status_code == 302
    assert leads_nowhere(without)


def test_a_provider_that_is_away_keeps_nobody_signed_in(ending: Openid) -> None:
    browser = Browser()
    assert browser.sign_in(ending).status_code == 302
    provider_module.forget_provider()
    ending.answers["/.well-known/openid-configuration"] = (500, b"")
    assert "http-equiv" not in browser.post("/admin/logout/").text
    assert not browser.me()["authenticated"]


# --- Who may come in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "false"},
        {"email_verified": 1.5},
        {"email": None},
        {"email": "not an address"},
        {"email": ["anna@example.com"]},
    ],
    ids=str,
)
def test_only_a_verified_address_counts(provider: Openid, claims: dict[str, Any]) -> None:
    provider.claims = claims
    answer = Browser().sign_in(provider)
    assert refusal(answer) == (403, "FORBIDDEN")
    assert not User.objects.exists()


def test_address_and_verification_come_from_the_same_document(provider: Openid) -> None:
    provider.claims = {"email": "boss@example.com", "email_verified": None}
    provider.userinfo = {"email": "anna@example.com", "email_verified": True}
    browser = Browser()
    assert browser.sign_in(provider).status_code == 302
    assert browser.me()["user"]["email"] == "anna@example.com"


def test_userinfo_of_somebody_else_is_refused(provider: Openid) -> None:
    provider.userinfo = {"sub": "bert", "email": "bert@example.com", "email_verified": True}
    assert refusal(Browser().sign_in(provider)) == (401, "UNAUTHORIZED")


def test_a_provider_may_have_no_userinfo(provider: Openid) -> None:
    provider.discovery = {"userinfo_endpoint": None}
    assert Browser().sign_in(provider).status_code == 302
    assert "/userinfo" not in provider.asked


@pytest.mark.parametrize(
    ("domains", "addresses", "comes_in"),
    [
        (["example.com"], [], True),
        (["example.org"], [], False),
        (["ample.com"], [], False),
        ([], ["anna@example.com"], True),
        ([], ["bert@example.com"], False),
        (["example.org"], ["anna@example.com"], True),
    ],
)
def test_allow_lists(provider: Openid, settings: Any, domains: list[str], addresses: list[str], comes_in: bool) -> None:
    settings.OIDC_ALLOWED_DOMAINS, settings.OIDC_ALLOWED_EMAILS = frozenset(domains), frozenset(addresses)
    provider.claims = {"email": "Anna@Example.com"}
    assert (Browser().sign_in(provider).status_code == 302) is comes_in
    assert User.objects.exists() is comes_in


# --- Roles -----------------------------------------------------------------------------------------------------------


def test_roles_come_from_groups_and_addresses_and_follow_them(provider: Openid, settings: Any) -> None:
    settings.OIDC_GROUP_ROLES = {"crane-admins": "admin", "staff": "viewer"}
    settings.OIDC_EMAIL_ROLES = {"ANNA@example.com": "operator"}
    browser = Browser()
    for groups, role in (
        (["staff"], "operator"),
        (["staff", "crane-admins"], "admin"),
        ("staff", "operator"),
        (7, "operator"),
    ):
        provider.claims = {"groups": groups}
        if groups == 7:
            provider.claims = {}
        assert browser.sign_in(provider).status_code == 302
        assert browser.me()["role"] == role
    settings.OIDC_EMAIL_ROLES = {}
    provider.claims, provider.userinfo = {}, {"groups": ["staff"]}
    browser.sign_in(provider)
    assert browser.me()["role"] == "viewer"
    assert "role" in str(AuditEntry.objects.filter(action="user.changed").last().after)  # type: ignore[union-attr]


def test_a_role_that_was_set_by_hand_stays(provider: Openid, settings: Any) -> None:
    Browser().sign_in(provider)
    User.objects.update(role=Role.OPERATOR, role_pinned=True)
    browser = Browser()
    browser.sign_in(provider)
    assert browser.me()["role"] == "operator"


def test_a_change_of_role_counts_in_open_sessions(provider: Openid) -> None:
    browser = Browser()
    browser.sign_in(provider)
    assert browser.get("/api/v1/audit").status_code == 403
    User.objects.update(role=Role.VIEWER)
    assert browser.get("/api/v1/audit").status_code == 200
    User.objects.update(is_active=False)
    assert browser.get("/api/v1/audit").status_code == 401


# --- Accounts --------------------------------------------------------------------------------------------------------


def test_people_are_known_by_issuer_and_subject(provider: Openid) -> None:
    Browser().sign_in(provider)
    provider.claims = {"email": "anna.arden@example.com", "given_name": "Anne"}
    browser = Browser()
    browser.sign_in(provider)
    user = User.objects.get()
    assert (user.email, user.first_name, user.username) == ("anna.arden@example.com", "Anne", "anna@example.com")
    provider.claims = {"sub": "anna-of-another-account", "email": "another@example.com"}
    Browser().sign_in(provider)
    assert User.objects.count() == 2


def test_an_address_that_changed_hands_opens_nobodys_account(provider: Openid) -> None:
    Browser().sign_in(provider)
    User.objects.update(role=Role.ADMIN, role_pinned=True)
    provider.claims = {"sub": "the-next-anna"}
    assert refusal(Browser().sign_in(provider)) == (403, "FORBIDDEN")
    assert User.objects.count() == 1


def test_an_account_with_a_password_is_not_taken_over(provider: Openid) -> None:
    User.objects.create_user("root", "Anna@Example.com", "a long enough passphrase", role=Role.ADMIN)
    answer = Browser().sign_in(provider)
    assert refusal(answer) == (403, "FORBIDDEN")
    assert "administrator" in answer.json()["detail"]


def test_an_account_that_was_made_for_the_address_becomes_theirs(provider: Openid) -> None:
    User.objects.create_user("anna", "Anna@Example.com", role=Role.VIEWER, role_pinned=True)
    browser = Browser()
    assert browser.sign_in(provider).status_code == 302
    user = User.objects.get()
    assert (user.username, user.role, user.oidc_subject) == ("anna", "viewer", "anna-at-provider")


def test_an_account_that_is_switched_off_stays_out(provider: Openid) -> None:
    Browser().sign_in(provider)
    User.objects.update(is_active=False)
    browser = Browser()
    assert refusal(browser.sign_in(provider)) == (403, "FORBIDDEN")
    assert browser.me()["authenticated"] is False


def test_a_taken_username_is_told_apart(provider: Openid) -> None:
    User.objects.create_user("anna@example.com", "somebody@example.com")
    Browser().sign_in(provider)
    assert User.objects.filter(email="anna@example.com", username__startswith="anna@example.com-").count() == 1


# --- The provider's failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "answer", "expected"),
    [
        ("/.well-known/openid-configuration", (500, b"{}"), (502, "UPSTREAM_ERROR")),
        ("/.well-known/openid-configuration", (200, b"<html>"), (502, "UPSTREAM_ERROR")),
        ("/.well-known/openid-configuration", (200, b'{"issuer": "https://other.example"}'), (502, "UPSTREAM_ERROR")),
        ("/.well-known/openid-configuration", (302, b""), (502, "UPSTREAM_ERROR")),
        ("/token", (400, b'{"error": "invalid_grant"}'), (401, "UNAUTHORIZED")),
        ("/token", (401, b'{"error": "invalid_client"}'), (502, "UPSTREAM_ERROR")),
        ("/token", (500, b"oops"), (502, "UPSTREAM_ERROR")),
        ("/token", (200, b"[]"), (502, "UPSTREAM_ERROR")),
        ("/token", (200, b"{}"), (401, "UNAUTHORIZED")),
        ("/token", (200, b"x" * 1_100_000), (502, "UPSTREAM_ERROR")),
        ("/keys", (200, b"{}"), (502, "UPSTREAM_ERROR")),
        ("/keys", (200, b'{"keys": [{"kid": "one", "kty": "RSA"}, 5]}'), (401, "UNAUTHORIZED")),
        ("/userinfo", (403, b"{}"), (502, "UPSTREAM_ERROR")),
    ],
    ids=str,
)
def test_failures_name_the_provider(
    provider: Openid, path: str, answer: tuple[int, bytes], expected: tuple[int, str]
) -> None:
    provider.answers[path] = answer
    browser = Browser()
    failed = browser.get("/api/v1/auth/login") if "well-known" in path else browser.sign_in(provider)
    assert refusal(failed) == expected
    if expected[0] == 502:
        assert "OpenID provider" in failed.json()["error"]
    assert browser.me()["authenticated"] is False
    # It is well again: so are sign-ins.
    provider.answers.clear()
    assert Browser().sign_in(provider).status_code in {302, 401}


def test_a_provider_that_is_away_takes_nothing_else_along(settings: Any) -> None:
    settings.OIDC_ISSUER = "http://127.0.0.1:9"
    settings.OIDC_RP_CLIENT_ID, settings.OIDC_RP_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
    browser = Browser()
    assert refusal(browser.get("/api/v1/auth/login")) == (503, "DEPENDENCY_UNAVAILABLE")
    assert browser.me() == {"mode": "oidc", "authenticated": False}
    browser.force_login(User.objects.create_user("root", role=Role.ADMIN))
    assert browser.get("/api/v1/audit").status_code == 200


def test_secrets_and_tokens_are_in_no_log(provider: Openid, caplog: pytest.LogCaptureFixture) -> None:
    Browser().sign_in(provider)
    provider.claims = {"aud": "other"}
    Browser().sign_in(provider)
    provider.answers["/token"] = (400, b'{"error": "invalid_client"}')
    Browser().sign_in(provider)
    told = caplog.text
    assert "ID token was refused" in told
    for secret in (CLIENT_SECRET, "an access token", "a code", provider.token().partition(".")[2][:40]):
        assert secret not in told


# --- Settings --------------------------------------------------------------------------------------------------------


def test_a_part_of_the_configuration_stops_the_start() -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENCRANE_OIDC_")}
    command = [sys.executable, "-c", "import opencrane.settings"]

    def start(**given: str) -> str:
        done = subprocess.run(command, env=kept | given, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1, done.stderr
        return done.stderr.strip().splitlines()[-1]

    said = start(OPENCRANE_OIDC_ISSUER="https://id.example.com")
    assert "OPENCRANE_OIDC_CLIENT_ID and OPENCRANE_OIDC_CLIENT_SECRET are not set" in said


def test_groups_of_settings_are_whole_or_absent() -> None:
    assert env.together({"A": "", "B": ""}, {"C": ""}) is False
    assert env.together({"A": "x", "B": "y"}, {"C": ""}) is True
    with pytest.raises(env.ConfigurationError, match="B is not set, but A is"):
        env.together({"A": "x", "B": ""}, {})
    with pytest.raises(env.ConfigurationError, match="A and B are not set, but C is"):
        env.together({"A": "", "B": ""}, {"C": {"x": "admin"}})


def test_role_mappings_are_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(text: str) -> dict[str, str]:
        monkeypatch.setenv("MAPPING", text)
        return env.pairs("MAPPING", ("admin", "viewer"))

    assert read("a=admin, cn=b=viewer") == {"a": "admin", "cn=b": "viewer"}
    assert read('{"cn=a,dc=b": "admin"}') == {"cn=a,dc=b": "admin"}
    for bad in ("a", "a=root", "=admin", "a=admin,a=viewer", "{", '{"a": 5}'):
        with pytest.raises(env.ConfigurationError, match="MAPPING"):
            read(bad)


@pytest.mark.parametrize(
    ("issuer", "good"),
    [
        ("https://id.example.com/realms/crane", True),
        ("http://127.0.0.1:8080", True),
        ("http://id.example.com", False),
        ("id.example.com", False),
        ("https://id.example.com?x=1", False),
        ("https://", False),
    ],
)
def test_an_issuer_is_a_url_by_tls(issuer: str, good: bool) -> None:
    if good:
        env.check_issuer("ISSUER", issuer, needs_tls=True)
        return
    with pytest.raises(env.ConfigurationError, match="ISSUER"):
        env.check_issuer("ISSUER", issuer, needs_tls=True)
