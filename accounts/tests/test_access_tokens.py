"""The access tokens API: who sees, makes and revokes which token."""

import datetime
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts.models import AccessToken, Role, User
from accounts.services import issue_token
from conftest import ApiClient
from opencrane.actor import SYSTEM, Actor
from operations.models import AuditEntry

pytestmark = pytest.mark.django_db


def token_of(role: Role, label: str, username: str = "") -> str:
    """A person of the role, and a token of theirs."""
    name = username or f"some-{role.value}"
    user = User.objects.create_user(name, f"{name}@example.com", role=role)
    actor = Actor("user", user.username, user.pk)
    return issue_token(name=label, role=role, creator_role=role, actor=actor).secret


def test_a_token_is_made_shown_once_listed_and_revoked(api: ApiClient) -> None:
    made = api.post("/access-tokens", {"name": " ci ", "owner": "build team"})
    assert made.status_code == 201
    secret, token_id = made.json()["plainTextToken"], made.json()["id"]
    assert len(secret) == len("ocp_") + 48
    assert made["Cache-Control"] == "no-store"
    assert ApiClient(secret).get("/auth/me").json()["role"] == "admin"
    listed = api.get("/access-tokens")
    (entry,) = listed.json()
    assert (entry["id"], entry["name"], entry["owner"], entry["role"]) == (token_id, "ci", "build team", "admin")
    assert (entry["prefix"], entry["status"], entry["createdBy"]) == (secret[:10], "active", "api-token")
    assert entry["lastUsedAt"]
    assert entry["expiresAt"] is None
    assert secret.encode() not in listed.content
    assert not AuditEntry.objects.filter(message__contains=secret).exists()

    assert api.delete(f"/access-tokens/{token_id}").status_code == 204
    assert ApiClient(secret).get("/auth/me").status_code == 401
    assert api.get("/access-tokens").json() == []
    (gone,) = api.get("/access-tokens?status=revoked").json()
    assert gone["revokedAt"]
    assert api.delete(f"/access-tokens/{token_id}").status_code == 204
    assert [entry.action for entry in AuditEntry.objects.order_by("id")] == [
        "access_token.created",
        "access_token.revoked",
    ]


def test_whoever_carries_a_token_can_give_it_back(api: ApiClient) -> None:
    """Whatever the role: members and viewers may not write access tokens."""
    for role in Role:
        secret = token_of(role, f"laptop of {role}")
        carrier = ApiClient(secret)
        assert carrier.post("/auth/revoke", {"token": "another"}).status_code == 400
        assert carrier.get("/auth/me").json()["authenticated"]
        assert carrier.post("/auth/revoke").status_code == 204
        assert carrier.get("/auth/me").status_code == carrier.post("/auth/revoke").status_code == 401
        token = AccessToken.objects.get(name=f"laptop of {role}")
        assert token.revoked_at is not None
        entry = AuditEntry.objects.get(action="access_token.revoked", resource=f"AccessToken/{token.pk}")
        assert entry.actor_name == f"some-{role.value}"
    # The token of the settings ends with them.
    assert (api.post("/auth/revoke").status_code, api.get("/auth/me").json()["authenticated"]) == (403, True)


def test_without_a_name_a_token_has_one(api: ApiClient) -> None:
    assert api.post("/access-tokens", {}).status_code == 201
    assert api.get("/access-tokens").json()[0]["name"] == "access token"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": 5}, "name"),
        ({"role": "root"}, "role"),
        ({"expiresAt": "soon"}, "expiresAt"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"nmae": "x"}, "nmae"),
    ],
)
def test_bad_bodies_name_the_field(api: ApiClient, body: dict[str, Any], field: str) -> None:
    response = api.post("/access-tokens", body)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert list(response.json()["fields"]) == [field]
    assert not AccessToken.objects.exists()


def test_an_expiry_ends_a_token(api: ApiClient) -> None:
    ends = (timezone.now() + datetime.timedelta(days=1)).isoformat()
    secret = api.post("/access-tokens", {"name": "x", "role": "viewer", "expiresAt": ends}).json()["plainTextToken"]
    assert ApiClient(secret).get("/auth/me").json()["role"] == "viewer"
    assert len(api.get("/access-tokens?status=active&role=viewer").json()) == 1
    AccessToken.objects.update(expires_at=timezone.now() - datetime.timedelta(seconds=1))
    assert ApiClient(secret).get("/auth/me").status_code == 401
    assert [each["status"] for each in api.get("/access-tokens").json()] == ["expired"]
    assert api.get("/access-tokens?status=active").json() == []


def test_no_token_exceeds_who_makes_it() -> None:
    operator = ApiClient(token_of(Role.OPERATOR, "own"))
    refused = operator.post("/access-tokens", {"name": "x", "role": "admin"})
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    made = operator.post("/access-tokens", {"name": "x"})
    assert (made.status_code, made.json()["role"]) == (201, "operator")


def test_operators_see_and_revoke_their_own_tokens_only(api: ApiClient) -> None:
    olga = ApiClient(token_of(Role.OPERATOR, "of olga", "olga"))
    token_of(Role.OPERATOR, "of oleg", "oleg")
    assert [each["name"] for each in olga.get("/access-tokens").json()] == ["of olga"]
    assert {each["name"] for each in api.get("/access-tokens").json()} == {"of olga", "of oleg"}
    others = AccessToken.objects.get(name="of oleg").pk
    answers = [olga.delete(f"/access-tokens/{each}") for each in (others, uuid4(), "nonsense")]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "TOKEN_NOT_FOUND")}
    assert len({answer.json()["error"] for answer in answers}) == 1
    assert AccessToken.objects.get(name="of oleg").revoked_at is None
    own = AccessToken.objects.get(name="of olga").pk
    assert olga.delete(f"/access-tokens/{own}").status_code == 204
    assert olga.get("/access-tokens").status_code == 401


def test_tokens_without_an_account_do_not_reach_above_themselves(operator_api: ApiClient) -> None:
    issue_token(name="bootstrap", role=Role.ADMIN, creator_role=Role.ADMIN, actor=SYSTEM)
    issue_token(name="other", role=Role.ADMIN, creator_role=Role.ADMIN, actor=Actor("system", "command line (root)"))
    assert [each["role"] for each in operator_api.get("/access-tokens").json()] == ["operator"]


def test_members_have_nothing_to_do_with_tokens() -> None:
    member = ApiClient(token_of(Role.MEMBER, "x"))
    assert member.get("/access-tokens").status_code == 403
    assert member.post("/access-tokens", {"name": "x"}).status_code == 403


def test_the_list_is_paged_and_searched_in_one_query(api: ApiClient, django_assert_num_queries: Any) -> None:
    for number in range(5):
        api.post("/access-tokens", {"name": f"token {number}"})
    first = api.get("/access-tokens?limit=2")
    assert [each["name"] for each in first.json()] == ["token 4", "token 3"]
    with django_assert_num_queries(1):
        rest = api.get(first["Link"].partition(">")[0].lstrip("<"))
    assert [each["name"] for each in rest.json()] == ["token 2", "token 1"]
    assert [each["name"] for each in api.get("/access-tokens?q=TOKEN 3").json()] == ["token 3"]
    assert api.get("/access-tokens?status=lost").status_code == 400
