"""The first start, and tokens from a shell."""

import json
import stat
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import Role, User
from conftest import ApiClient

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_the_first_start_makes_an_admin_and_a_token_once(settings: Any, tmp_path: Path) -> None:
    settings.API_TOKEN = ""
    file = tmp_path / "credentials.json"
    file.write_text('{"url": "http://127.0.0.1:8000"}')
    said = run("bootstrap", "--admin-user", "root", "--credentials", str(file))
    kept = json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kept["url"] == "http://127.0.0.1:8000"
    assert kept["adminPassword"] in said
    assert kept["token"] in said
    assert Client().login(username="root", password=kept["adminPassword"])
    assert ApiClient(kept["token"]).get("/auth/me").json()["role"] == "admin"

    again = run("bootstrap", "--admin-user", "root", "--credentials", str(file))
    assert again == ""
    assert json.loads(file.read_text()) == kept


def test_a_given_password_is_taken_and_never_shown(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text("given by the operator\n")
    monkeypatch.setenv("OPENCRANE_BOOTSTRAP_ADMIN_PASSWORD", f"file://{secret}")
    file = tmp_path / "credentials.json"
    assert "given" not in run("bootstrap", "--credentials", str(file))
    assert not file.exists()
    assert Client().login(username="admin", password="given by the operator")


def test_an_existing_account_keeps_its_password_and_role() -> None:
    User.objects.create_user("admin", password="the person's own", role=Role.MEMBER)
    run("bootstrap")
    assert Client().login(username="admin", password="the person's own")
    assert User.objects.get().role == Role.MEMBER


def test_a_token_from_the_shell_works() -> None:
    token = run("create_token", "--name", "ci", "--role", "viewer", "--expires-in", "2h").strip()
    me = ApiClient(token).get("/auth/me").json()
    assert me["role"] == "viewer"


@pytest.mark.parametrize("lifetime", ["0h", "2", "-1d", "soon"])
def test_a_lifetime_that_makes_no_sense_is_refused(lifetime: str) -> None:
    with pytest.raises(CommandError):
        run("create_token", "--name", "ci", "--role", "viewer", f"--expires-in={lifetime}")
