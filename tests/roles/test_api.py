"""Every operation of the API for every kind of caller: who is refused, how, and who gets in."""

import datetime
import itertools
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AccessToken, Role, User
from accounts.permissions import READ, TABLE, WRITE, allows
from conftest import API_TOKEN, ApiClient, issue
from tests.roles import expected
from tests.roles.routes import UNSAFE, Route, all_routes

ROUTES = [route for route in all_routes() if route.kind in {"api", "public", "internal"}]
IN = "let in"
# Views of these give their database connection back while they wait, which the transaction of a test cannot live with.
WAITING = {"metrics"}


def test_every_resource_is_expected() -> None:
    """A new view needs a line in tests/roles/expected.py; this says which."""
    missing = [
        f'{route}: add `"{route.resource}": (…)` to RESOURCES'
        for route in ROUTES
        if route.kind == "api" and route.resource not in expected.RESOURCES
    ]
    missing += [f"{route}: add it to PUBLIC" for route in ROUTES if route.kind == "public"
                and str(route) not in expected.PUBLIC]  # fmt: skip
    assert missing == [], "tests/roles/expected.py does not know what these are for:\n" + "\n".join(missing)


def test_what_is_expected_is_served() -> None:
    served = {str(route) for route in ROUTES}
    assert served >= expected.PUBLIC
    assert set(expected.API_EXCEPTIONS) <= served


def test_the_table_says_what_is_expected() -> None:
    for resource in expected.RESOURCES:
        for role in Role:
            for access in (READ, WRITE):
                wanted = expected.may(role, resource, write=access == WRITE)
                # What nothing asks for need not be written down twice.
                if resource == "accounts" and access == WRITE:
                    continue
                assert allows(role, resource, access) == wanted, (role, resource, access)


def test_a_higher_role_may_all_that_a_lower_one_may() -> None:
    resources = {"anything", *expected.RESOURCES, *(name for row in TABLE.values() for name in row)}
    order = list(reversed(Role))
    for lower, higher in itertools.pairwise(order):
        for resource in resources - {"*"}:
            for access in (READ, WRITE):
                assert not allows(lower, resource, access) or allows(higher, resource, access), (lower, resource)


@pytest.fixture
def callers(db: None) -> dict[str, Client]:
    """A client for each kind of caller."""
    clients: dict[str, Client] = {
        "none": ApiClient(),
        "bad": ApiClient("ocp_" + "0" * 48),
        "expired": ApiClient(issue(Role.ADMIN, name="expired")),
        "revoked": ApiClient(issue(Role.ADMIN, name="revoked")),
        "static": ApiClient(API_TOKEN),
    }
    AccessToken.objects.filter(name="expired").update(expires_at=timezone.now() - datetime.timedelta(seconds=1))
    AccessToken.objects.filter(name="revoked").update(revoked_at=timezone.now())
    for role in Role:
        clients[role.value] = ApiClient(issue(role))
        person = User.objects.create_user(f"{role}-person", f"{role}@example.com", role=role)
        clients[f"{role}-session"] = session = ApiClient()
        session.force_login(person)
    return clients


def wanted(route: Route, caller: str) -> int | str:
    """What the caller should get: a status, or IN."""
    exception = expected.API_EXCEPTIONS.get(str(route), {}).get(caller)
    if exception is not None:
        return exception
    if route.kind == "internal" or caller in {"bad", "expired", "revoked"}:
        return 401
    role = {"static": "admin"}.get(caller, caller.removesuffix("-session"))
    # Cookies are sent by browsers whoever asks them to; no client here has the token against that.
    if caller.endswith("-session") and route.method in UNSAFE:
        return 403
    if route.kind == "public":
        return IN
    if caller == "none":
        return 401
    return IN if expected.may(role, route.resource, write=route.method in UNSAFE) else 403


def got(response: Any) -> int | str:
    """What the caller got. Beyond the door a view may refuse for reasons of its own, with another code."""
    if response.status_code in {401, 403}:
        code = response.json()["code"]
        if code in {"UNAUTHORIZED", "FORBIDDEN"}:
            assert (response.status_code == 401) == ("WWW-Authenticate" in response)
            return int(response.status_code)
    assert response.status_code != 500, response.content
    if response.status_code == 503:
        assert b"PostgreSQL" not in response.content, "a view closed the connection: put its resource into WAITING"
    return IN


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(name, marks=[pytest.mark.django_db(transaction=True)] if name in WAITING else [])
        for name in sorted({route.resource for route in ROUTES})
    ],
)
def test_each_caller_gets_in_or_not(resource: str, callers: dict[str, Client]) -> None:
    wrong = []
    for route in ROUTES:
        if route.resource != resource:
            continue
        if route.kind == "api" and resource not in expected.RESOURCES:
            pytest.fail(f"{route}: add its resource {resource!r} to RESOURCES in tests/roles/expected.py")
        # Nobody gets as far as doing something: the body is none.
        body = {"data": '{"', "content_type": "application/json"} if route.method in UNSAFE else {}
        for name, client in callers.items():
            answer = got(client.generic(route.method, route.path, **body))  # type: ignore[arg-type]
            if answer != wanted(route, name):
                wrong.append(f"{route} by {name}: {answer}, but expected was {wanted(route, name)}")
    assert wrong == [], "\n".join(wrong)
