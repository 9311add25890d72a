"""Signing in, contexts, and what happens where that fails."""

import datetime
import re
import socket
import stat
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AccessToken, DeviceGrant, Role
from accounts.services import devices
from accounts.tests.people import Browser, person
from cli.tests.conftest import Terminal
from conftest import issue


def test_a_person_signs_in_by_a_browser_and_out_again(
    away: Terminal, live_server: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.RATE_LIMIT_DEVICE = 0
    monkeypatch.setattr(devices, "INTERVAL_SECONDS", 0.6)
    browser = Browser(Role.VIEWER, "olga")
    for decision, status in (("deny", 3), ("approve", 0)):
        with away.start("login", "-v", "--server", live_server.url, "--name", "here") as login:
            assert login.stderr is not None
            shown = "".join(login.stderr.readline() for _ in range(3))
            assert shown.startswith("POST ")
            address = re.search(r"Open +(\S+)", shown)
            assert address is not None
            page = browser.open(address[1].removeprefix(live_server.url))
            code = address[1].partition("userCode=")[2]
            assert f"shows the code {code} " in shown
            assert code in page
            assert re.search(r"opencrane/\d", page), "the person does not see who asks"
            browser.press(page, decision)
            out, err = login.communicate(timeout=30)
            assert (login.returncode, out) == (status, ""), err
    assert "Signed in" in err
    assert set(re.findall(r"deviceCode=(\S+)", err)) == {"..."}, "the code is as good as the token"
    tokens = away.folder / "opencrane" / "tokens.yaml"
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    secret = re.search(r"ocp_\w+", tokens.read_text())
    assert secret is not None
    assert secret[0] not in (away.folder / "opencrane" / "config.yaml").read_text() + out + err

    who = away.ok("whoami")
    assert re.search(r"Name: +olga", who)
    assert re.search(r"Role: +viewer", who)
    assert "opencrane/" in who, "what the token is called"
    assert re.search(r"^\* +here +http", away.ok("context", "list"), re.MULTILINE)
    # Others may not read it; if they may, that is said.
    tokens.chmod(0o644)
    assert "others may read" in away("tenants", "list").err
    # A viewer may not write access tokens, and gives this one back all the same.
    assert "the token is revoked" in away("logout").err
    assert AccessToken.objects.get(prefix=secret[0][:10]).revoked_at is not None
    assert secret[0] not in tokens.read_text()
    assert (away("whoami").status, away("logout").status) == (3, 3)


def test_a_server_that_is_asked_too_often_is_asked_less_often(
    away: Terminal, live_server: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """RFC 8628, 3.5: five seconds more, from then on."""
    settings.RATE_LIMIT_DEVICE = 0
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            DeviceGrant.objects.update(
                state=DeviceGrant.State.APPROVED, decided_by=person(Role.VIEWER), role=Role.VIEWER
            )

    # The first poll is never too fast; nobody has waited before the second and the third.
    monkeypatch.setattr("cli.signin.time.sleep", sleep)
    away.ok("login", "--server", live_server.url)
    assert pauses == [5, 5, 10, 15]
    assert "viewer" in away.ok("whoami")


def test_tokens_go_to_their_own_server_only(
    away: Terminal, live_server: Any, monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    monkeypatch.setattr("cli.client.TRIES", 1)
    ours, theirs = issue(Role.OPERATOR), issue(Role.VIEWER)
    other = live_server.url.replace("localhost", "127.0.0.1")
    away.ok("login", "--server", live_server.url, "--with-token", "--name", "one", stdin=f"{ours}\n")
    away.ok("login", "--server", f"{other}/api/v1/", "--with-token", stdin=theirs)
    assert "token" in away("login", "--server", other, "--with-token", stdin="ocp_wrong").err
    two = next(line.split()[1] for line in away.ok("context", "list").splitlines() if line.startswith("*"))
    assert '"role": "viewer"' in away.ok("whoami", "-o", "json")
    assert '"role": "operator"' in away.ok("whoami", "-o", "json", "--context", "one")
    assert '"role": "operator"' in away.ok("--server", live_server.url, "whoami", "-o", "json")
    # A third name for the same machine has no token, whatever the current context has.
    stranger = Terminal(away.env | {"OPENCRANE_URL": live_server.url.replace("localhost", "a.localhost")})
    assert stranger("tenants", "list").status in (3, 6)
    away.ok("context", "use", "one")
    assert away("context", "delete", two).status == 2, "it asks, and there is nobody to ask"
    away.ok("context", "delete", two, "--yes")
    assert away.ok("context", "list", "-o", "name") == "one\n"
    assert away("context", "use", two).status == 4
    assert away("tenants", "list", "--context", two).status == 2
    # Signing in again replaces the token, and the old one ends.
    away.ok("login", "--with-token", stdin=issue(Role.OPERATOR))
    assert AccessToken.objects.get(prefix=ours[:10]).revoked_at is not None


def test_without_a_good_token_it_says_what_to_do(away: Terminal, live_server: Any, db: None) -> None:
    ran = away("tenants", "list")
    assert ran.status == 3
    assert "opencrane login" in ran.err
    away.env["OPENCRANE_URL"] = live_server.url
    assert away("tenants", "list").status == 3
    away.env["OPENCRANE_TOKEN"] = secret = issue(Role.ADMIN)
    assert away("tokens", "list").status == 0
    AccessToken.objects.update(expires_at=timezone.now() - datetime.timedelta(seconds=1))
    ran = away("tokens", "list")
    assert (ran.status, "UNAUTHORIZED" in ran.err, "opencrane login" in ran.err) == (3, True, True)
    assert secret not in ran.out + ran.err
    away.env["OPENCRANE_TOKEN"] = issue(Role.VIEWER)
    ran = away("groups", "create", "crew", "-v")
    assert (ran.status, "FORBIDDEN" in ran.err) == (3, True)
    assert "POST" in ran.err
    assert away.env["OPENCRANE_TOKEN"] not in ran.err


def test_a_server_that_is_away_or_no_server_is_told_apart(away: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.client.TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for argv, status, said in (
        (["--server", f"http://127.0.0.1:{port}"], 6, "cannot reach"),
        (["--server", f"https://127.0.0.1:{port}"], 6, "cannot reach"),
        (["--server", "http://opencrane.example.com"], 2, "--insecure-http"),
        (["--server", "ftp://opencrane.example.com"], 2, "no address"),
        (["--server", "https://user:word@example.com"], 2, "no user name"),
        (["--server", "https://example.com:99999"], 2, "no address"),
        (["--server", f"https://127.0.0.1:{port}", "--ca-file", "/nowhere/ca.pem"], 2, "/nowhere/ca.pem"),
    ):
        ran = away("tenants", "list", *argv)
        assert (ran.status, ran.out) == (status, ""), argv
        assert said in ran.err, argv
        assert "Traceback" not in ran.err
    (away.folder / "opencrane").mkdir()
    (away.folder / "opencrane" / "config.yaml").write_text("contexts: [")
    ran = away("tenants", "list")
    assert (ran.status, "config.yaml" in ran.err) == (1, True)
