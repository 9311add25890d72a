"""Every page of the console for every role, with and without the token against forged forms."""

from typing import Any

import pytest
from django.test import Client

from accounts.models import Role, User
from conftest import API_TOKEN
from tests.roles import expected
from tests.roles.routes import Route, all_routes

ROUTES = [route for route in all_routes() if route.kind in {"page", "other"}]
PAGES = [route for route in ROUTES if route.kind == "page"]
IN, LOGIN, REFUSED = "let in", "asked to sign in", "refused"
CSRF = "c" * 32


def test_every_page_is_expected() -> None:
    """A new page needs a line in tests/roles/expected.py, if its resource has none yet; this says which."""
    missing = [
        f'{route}: add `"{route.resource}": (…)` to RESOURCES'
        for route in PAGES
        if route.resource not in expected.RESOURCES
    ]
    missing += [
        f'{route}: make it a ConsolePage or ApiViewSet with a `resource`, or add `"{route}": …` to OTHERS'
        for route in ROUTES
        if route.kind == "other" and str(route) not in expected.OTHERS
    ]
    assert missing == [], "tests/roles/expected.py does not know what these are for:\n" + "\n".join(missing)
    assert set(expected.OTHERS) <= {str(route) for route in ROUTES}


@pytest.fixture
def callers(db: None) -> dict[str, Client]:
    """Browsers: signed in with each role, not signed in, and one that only has an API token."""
    clients = {
        "nobody": Client(enforce_csrf_checks=True),
        "token": Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {API_TOKEN}"}),
    }
    for role in Role:
        person = User.objects.create_user(f"{role}-person", f"{role}@example.com", role=role)
        clients[role.value] = Client(enforce_csrf_checks=True)
        clients[role.value].force_login(person)
    return clients


def got(client: Client, route: Route) -> str:
    """Ask for a page, or send its form empty."""
    if route.method == "POST":
        client.cookies["csrftoken"] = CSRF
        response: Any = client.post(route.path, {}, headers={"X-CSRFToken": CSRF})
    else:
        response = client.get(route.path)
    if response.status_code in {301, 302} and response["Location"].startswith(("/admin/login/", "/auth/login")):
        return LOGIN
    assert response.status_code < 500 or response.status_code == 503, response.content
    return REFUSED if response.status_code == 403 else IN


def wanted(route: Route, caller: str) -> str:
    rule = expected.OTHERS.get(str(route), "") if route.kind == "other" else route.resource
    if rule == "open":
        return IN
    if caller in {"nobody", "token", "member"}:
        return LOGIN
    if rule == "console":
        return IN
    if rule == "nobody":
        return REFUSED
    resource, _, only = rule.partition(":")
    return IN if expected.may(caller, resource, write=route.method == "POST" and only != "read") else REFUSED


@pytest.mark.parametrize("resource", sorted({route.resource for route in PAGES}))
def test_each_role_gets_in_or_not(resource: str, callers: dict[str, Client]) -> None:
    wrong = []
    for route in PAGES:
        if route.resource != resource:
            continue
        if resource not in expected.RESOURCES:
            pytest.fail(f"{route}: add its resource {resource!r} to RESOURCES in tests/roles/expected.py")
        for name, client in callers.items():
            answer = got(client, route)
            if answer != wanted(route, name):
                wrong.append(f"{route} by {name}: {answer}, but expected was {wanted(route, name)}")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("rule", sorted(set(expected.OTHERS.values())))
def test_plain_functions_let_in_whom_they_should(rule: str, callers: dict[str, Client]) -> None:
    wrong = []
    # Signing out comes last: it works.
    for route in sorted(ROUTES, key=lambda each: "logout" in each.pattern):
        if route.kind == "other" and expected.OTHERS.get(str(route)) == rule:
            for name, client in callers.items():
                answer = got(client, route)
                if answer != wanted(route, name):
                    wrong.append(f"{route} by {name}: {answer}, but expected was {wanted(route, name)}")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.django_db
def test_no_form_is_accepted_without_its_token(callers: dict[str, Client]) -> None:
    for route in PAGES:
        if route.method == "POST":
            response = callers["admin"].post(route.path, {})
            assert response.status_code == 403, route
            assert "CSRF" in response.content.decode(), route
