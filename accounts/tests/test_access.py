"""Who gets in, as what, and for how long."""

import datetime
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AccessToken, Role, User
from accounts.permissions import READ, WRITE, allows
from accounts.services import issue_token, revoke_token
from conftest import API_TOKEN, ApiClient, issue
from opencrane.actor import SYSTEM, Actor
from opencrane.errors import ForbiddenError, InvalidError
from operations.models import AuditEntry

pytestmark = pytest.mark.django_db


def test_without_credentials_nothing_is_open(anonymous_api: ApiClient) -> None:
    response = anonymous_api.get("/audit")
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == "UNAUTHORIZED"
    assert anonymous_api.get("/auth/me").json() == {"mode": "none", "authenticated": False}


def test_the_static_token_is_an_admin_and_costs_no_query(api: ApiClient, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        me = api.get("/auth/me").json()
    assert me["authenticated"] is True
    assert me["role"] == "admin"


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer ", "Bearer", f"Basic {API_TOKEN}", API_TOKEN, "Bearer ocp_" + "0" * 48, "Bearer é"],
)
def test_a_bad_credential_is_a_401_everywhere(header: str) -> None:
    client = Client(headers={"Authorization": header})
    for path in ("/api/v1/auth/me", "/api/v1/audit"):
        response = client.get(path)
        assert response.status_code == 401, (header, path)
        assert response["WWW-Authenticate"] == "Bearer"


def test_no_static_token_configured_lets_nobody_in(settings: Any) -> None:
    settings.API_TOKEN = ""
    assert ApiClient("").get("/audit").status_code == 401
    assert Client(headers={"Authorization": "Bearer "}).get("/api/v1/audit").status_code == 401


def test_an_issued_token_costs_one_query_and_notes_its_use_once_a_minute(django_assert_num_queries: Any) -> None:
    client = ApiClient(issue(Role.VIEWER))
    with django_assert_num_queries(2):
        assert client.get("/auth/me").json()["role"] == "viewer"
    first = AccessToken.objects.get().last_used_at
    assert first is not None
    with django_assert_num_queries(1):
        client.get("/auth/me")
    assert AccessToken.objects.get().last_used_at == first
    AccessToken.objects.update(last_used_at=first - datetime.timedelta(seconds=61))
    client.get("/auth/me")
    assert (AccessToken.objects.get().last_used_at or first) > first - datetime.timedelta(seconds=61)


def test_a_token_is_stored_as_its_hash_only() -> None:
    secret = issue(Role.VIEWER)
    assert len(secret) == len("ocp_") + 48
    stored = AccessToken.objects.values().get()
    assert secret not in str(stored)
    assert stored["prefix"] == secret[:10]
    assert secret not in str(list(AuditEntry.objects.values()))


def test_a_revoked_token_is_refused_at_once() -> None:
    client = ApiClient(issue(Role.ADMIN))
    assert client.get("/audit").status_code == 200
    token_id = AccessToken.objects.get().pk
    for _ in range(2):
        revoke_token(token_id=token_id, actor=SYSTEM)
    assert client.get("/audit").status_code == 401
    assert AuditEntry.objects.filter(action="access_token.revoked").count() == 1


def test_an_expired_token_is_refused_at_once() -> None:
    client = ApiClient(issue(Role.ADMIN, expires_at=timezone.now() + datetime.timedelta(hours=1)))
    assert client.get("/audit").status_code == 200
    AccessToken.objects.update(expires_at=timezone.now() - datetime.timedelta(seconds=1))
    assert client.get("/audit").status_code == 401


def test_a_token_never_exceeds_its_creator() -> None:
    user = User.objects.create_user("olga", role=Role.OPERATOR)
    actor = Actor(kind="user", name="olga", user_id=user.pk)
    with pytest.raises(ForbiddenError):
        issue_token(name="x", role=Role.ADMIN, creator_role=Role.OPERATOR, actor=actor)
    client = ApiClient(issue_token(name="x", role=Role.OPERATOR, creator_role=Role.OPERATOR, actor=actor).secret)
    assert client.get("/auth/me").json()["role"] == "operator"
    assert client.get("/auth/me").json()["user"]["name"] == "olga"
    User.objects.update(role=Role.VIEWER)
    assert client.get("/auth/me").json()["role"] == "viewer"
    User.objects.update(is_active=False)
    assert client.get("/auth/me").status_code == 401


def test_an_expiry_in_the_past_is_refused() -> None:
    with pytest.raises(InvalidError):
        issue_token(name="x", role=Role.VIEWER, expires_at=timezone.now(), creator_role=Role.ADMIN, actor=SYSTEM)


@pytest.mark.parametrize("role", Role)
def test_roles(role: Role) -> None:
    assert allows(role, "tenants", READ) == (role is not Role.MEMBER)
    assert allows(role, "tenants", WRITE) == (role in (Role.ADMIN, Role.OPERATOR))
    assert allows(role, "provider-keys", WRITE) == (role is Role.ADMIN)
    assert allows(role, "auth", READ)


def test_an_unknown_role_may_nothing() -> None:
    assert not allows("root", "tenants", READ)


def test_a_viewer_reads_and_does_not_write(viewer_api: ApiClient) -> None:
    assert viewer_api.get("/jobs").status_code == 200
    response = viewer_api.post("/jobs/1b4e28ba-2fa1-11d2-883f-0016d3cca427/cancel")
    assert response.status_code == 403
    assert response.json()["code"] == "FORBIDDEN"


def test_a_member_sees_only_themself() -> None:
    client = ApiClient(issue(Role.MEMBER))
    assert client.get("/auth/me").status_code == 200
    assert client.get("/jobs").status_code == 403


def signed_in(role: Role = Role.ADMIN) -> Client:
    user = User.objects.create_user("eva", "eva@example.com", "a long enough password", role=role)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def test_a_session_reads_without_and_writes_with_a_csrf_token() -> None:
    client = signed_in()
    assert client.get("/api/v1/auth/me").json()["user"]["email"] == "eva@example.com"
    missing = "/api/v1/jobs/1b4e28ba-2fa1-11d2-883f-0016d3cca427/cancel"
    refused = client.post(missing)
    assert refused.status_code == 403
    assert refused.json()["code"] == "FORBIDDEN"
    assert "CSRF" in refused.json()["error"]
    client.cookies["csrftoken"] = "a" * 32
    assert client.post(missing, headers={"X-CSRFToken": "a" * 32}).status_code == 404
    assert client.post(missing, headers={"X-CSRFToken": "b" * 32}).status_code == 403


def test_a_session_of_a_deactivated_account_is_nobody() -> None:
    client = signed_in()
    User.objects.update(is_active=False)
    assert client.get("/api/v1/audit").status_code == 401


def test_a_junk_session_cookie_is_nobody() -> None:
    client = Client()
    client.cookies["sessionid"] = "junk"
    assert client.get("/api/v1/audit").status_code == 401


def test_signing_out_ends_the_session_and_is_always_204(anonymous_api: ApiClient) -> None:
    assert anonymous_api.post("/auth/logout").status_code == 204
    client = signed_in()
    client.cookies["csrftoken"] = "a" * 32
    response = client.post("/api/v1/auth/logout", headers={"X-CSRFToken": "a" * 32})
    assert (response.status_code, response.content) == (204, b"")
    assert client.get("/api/v1/audit").status_code == 401


def test_addresses_are_unique_ignoring_case() -> None:
    from django.db import IntegrityError, transaction

    User.objects.create_user("a", "Eva@example.com")
    User.objects.create_user("b", "")
    User.objects.create_user("c", "")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("d", "eva@EXAMPLE.com")


def test_what_is_known_of_the_caller_goes_into_the_audit_trail(api: ApiClient) -> None:
    from operations.services import jobs

    job = jobs.start_job(kind="nothing", params={}, actor=SYSTEM)
    response = api.post(f"/jobs/{job.pk}/cancel", headers={"X-Request-ID": "r-1"}, REMOTE_ADDR="192.0.2.7")
    assert response.status_code == 200
    entry = AuditEntry.objects.get(action="job.cancelled")
    assert (entry.actor_kind, entry.actor_name, entry.request_id, entry.address) == (
        "token",
        "api-token",
        "r-1",
        "192.0.2.7",
    )
