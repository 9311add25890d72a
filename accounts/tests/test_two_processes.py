"""Two web processes are one server: sessions, device grants, tokens and limits are in PostgreSQL and Valkey."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection
from django.test import Client

from accounts.models import Role, User
from conftest import ApiClient
from devstack.folder import free_port

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[httpx.Client]:
    """A second web process on this test's database, with a browser at it."""
    port = free_port("127.0.0.1")
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    env = os.environ | {
        "DATABASE_URL": database.geturl(),
        "OPENCRANE_DATABASE_POOL": "0",
        "OPENCRANE_ALLOWED_HOSTS": "127.0.0.1",
        "OPENCRANE_ENVIRONMENT": "development",
        "OPENCRANE_RATE_LIMIT_DEVICE": "2",
    }
    argv = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--workers", "1", "--blocking-threads", "2", "--no-ws", "--log-level", "warning"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen([*argv, "opencrane.wsgi:application"], env=env, cwd=ROOT, stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            deadline = time.monotonic() + 90
            while True:
                try:
                    assert client.get("/healthz").status_code == 200
                    break
                except httpx.TransportError:
                    assert server.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
            yield client
    finally:
        server.terminate()
        server.wait(30)


def test_sessions_grants_tokens_and_limits_are_shared(other: httpx.Client, settings: Any) -> None:
    here = Client(REMOTE_ADDR="127.0.0.1")
    here.force_login(User.objects.create_user("olga", "olga@example.com", role=Role.OPERATOR))
    other.cookies.set("sessionid", here.cookies["sessionid"].value)

    # Asked for here, approved there with the session of here, fetched here.
    device = ApiClient()
    said = device.post("/auth/device").json()
    query = {"deviceCode": said["deviceCode"]}
    assert device.get("/auth/device/token", query).status_code == 202
    assert other.get("/api/v1/auth/device/token", params=query).status_code == 429
    page = other.get(said["verificationUri"])
    assert page.status_code == 200, page.text
    form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)) | {"decision": "approve"}
    done = other.post("/api/v1/auth/device/activate", data=form)
    assert done.status_code == 200, done.text
    answer = device.get("/auth/device/token", query)
    assert answer.status_code == 200
    assert other.get("/api/v1/auth/device/token", params=query).status_code == 410

    # Revoked here, refused there at once.
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert other.get("/api/v1/auth/me", headers=headers).json()["user"]["email"] == "olga@example.com"
    User.objects.update(is_active=False)
    assert other.get("/api/v1/auth/me", headers=headers).status_code == 401
    assert other.get("/api/v1/auth/me").json()["authenticated"] is False

    # Two may be asked for in a minute, wherever. The minute may end in between, so the count may begin anew once.
    settings.RATE_LIMIT_DEVICE = 2
    address = "127.0.0.1"
    statuses = [
        status
        for _ in range(4)
        for status in (
            device.post("/auth/device", REMOTE_ADDR=address).status_code,
            other.post("/api/v1/auth/device").status_code,
        )
    ]
    assert statuses.count(200) <= 4
    assert statuses[-1] == 429 or statuses[-2] == 429
