"""What every answer tells browsers, and what is believed of proxies."""

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client

from accounts.models import Role, User
from conftest import API_TOKEN, ApiClient
from opencrane.addresses import parse_networks
from opencrane.api import bodies

pytestmark = pytest.mark.django_db


def policy(response: Any) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in response["Content-Security-Policy"].split(";"))
    return {name: sources for name, _, sources in parts}


def pages() -> dict[str, Any]:
    client = Client()
    client.force_login(User.objects.create_user("vera", role=Role.VIEWER))
    api = ApiClient(API_TOKEN)
    return {
        "list": api.get("/tenants"),
        "refusal": api.get("/nothing"),
        "health": Client().get("/healthz"),
        "metrics": api.get("/metrics"),
        "docs": Client().get("/api/docs"),
        "login": Client().get("/admin/login/"),
        "console": client.get("/admin/audit/"),
        "missing": client.get("/admin/audit/999999999/"),
        "root": Client().get("/"),
        "unknown": Client().get("/unknown"),
    }


def test_nothing_may_be_framed_sniffed_or_loaded_from_elsewhere() -> None:
    for name, response in pages().items():
        allowed = policy(response)
        assert allowed["default-src"] == "'none'", name
        assert allowed["frame-ancestors"] == "'none'", name
        assert response["X-Content-Type-Options"] == "nosniff", name
        assert response["X-Frame-Options"] == "DENY", name
        assert response["Referrer-Policy"] in {"no-referrer", "same-origin"}, name
        for directive, sources in allowed.items():
            assert "*" not in sources, name
            assert "http" not in sources, name
            if directive == "script-src":
                assert "'unsafe-inline'" not in sources, name
                assert ("'unsafe-eval'" in sources) == (name in {"login", "console", "missing"}), name
            if directive == "style-src":
                assert ("'unsafe-inline'" in sources) == (name in {"login", "console", "missing", "docs"}), name


@pytest.mark.parametrize(
    ("peer", "scheme", "is_sent"),
    [("10.0.0.1", "https", True), ("10.0.0.1", "http", False), ("192.0.2.1", "https", False)],
)
def test_hsts_goes_with_what_came_by_tls(settings: Any, peer: str, scheme: str, is_sent: bool) -> None:
    settings.SECURE_HSTS_SECONDS = 600
    settings.TRUSTED_PROXIES = parse_networks(["10.0.0.0/8"])
    headers = {"X-Forwarded-Proto": scheme}
    for path in ("/healthz", "/api/v1/auth/me", "/admin/login/"):
        response = Client(REMOTE_ADDR=peer).get(path, headers=headers)
        assert response.get("Strict-Transport-Security") == ("max-age=600" if is_sent else None), path
    assert "Strict-Transport-Security" in Client().get("/healthz", secure=True)


def test_cookies_are_closed_to_script_and_to_other_sites(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    User.objects.create_user("eva", password="a long enough password", role=Role.VIEWER)
    client = Client()
    client.get("/admin/login/")
    response = client.post("/admin/login/", {"username": "eva", "password": "a long enough password"})
    session = response.cookies["sessionid"]
    assert (session["secure"], session["httponly"], session["samesite"]) == (True, True, "Lax")
    assert client.cookies["csrftoken"]["samesite"] == "Lax"
    assert django_settings.SESSION_COOKIE_AGE <= 12 * 3600


def test_a_host_that_a_proxy_forwards_is_not_believed() -> None:
    response = Client().get("/admin/audit", headers={"X-Forwarded-Host": "evil.example"})
    assert "evil.example" not in response.get("Location", "")


def test_a_body_that_trickles_in_is_given_up(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", -1.0)
    response = api.post("/tenants", {"name": "anna"})
    assert response.status_code == 408
    assert response.json()["code"] == "REQUEST_TIMEOUT"
