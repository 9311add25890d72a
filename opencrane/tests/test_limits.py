"""Limits: who is refused, for how long, and what holds while Valkey is away."""

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.models import Role
from conftest import API_TOKEN, ApiClient, issue
from opencrane import limits
from opencrane.api.errors import RateLimitedError
from opencrane.errors import DependencyUnavailableError


@pytest.fixture
def address() -> str:
    """An address that nobody else's count knows."""
    number = uuid.uuid4().int
    return f"10.{number % 256}.{number // 256 % 256}.{number // 65536 % 256}"


@pytest.fixture
def valkey_away(settings: Any) -> Iterator[None]:
    """A broker URL behind which nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://127.0.0.1:{closed.getsockname()[1]}/0"
        yield


def bad(address: str) -> Any:
    return ApiClient("ocp_bad", REMOTE_ADDR=address).get("/tenants")


def test_the_defaults_are_as_documented() -> None:
    names = ("RATE_LIMIT", "RATE_LIMIT_BAD_CREDENTIALS", "RATE_LIMIT_DEVICE")
    code = f"from django.conf import settings; print(*(getattr(settings, name) for name in {names}))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENCRANE_RATE")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env | {"DJANGO_SETTINGS_MODULE": "opencrane.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "60", "30"]


@pytest.mark.django_db
def test_bad_credentials_are_refused_by_address_and_good_ones_never(settings: Any, address: str) -> None:
    settings.RATE_LIMIT_BAD_CREDENTIALS = 3
    assert [bad(address).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    refused = bad(address)
    assert refused.json()["code"] == "RATE_LIMITED"
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert address not in refused.content.decode()
    for token in (API_TOKEN, issue(Role.VIEWER)):
        assert ApiClient(token, REMOTE_ADDR=address).get("/tenants").status_code == 200
    assert ApiClient(REMOTE_ADDR=address).get("/tenants").status_code == 401, "no credential is no bad one"
    other_scheme = {"Authorization": "Basic YTpi"}
    assert ApiClient(REMOTE_ADDR=address).get("/tenants", headers=other_scheme).status_code == 429
    elsewhere = f"11{address[2:]}"
    assert bad(elsewhere).status_code == 401
    internal = ApiClient("a.b.c", REMOTE_ADDR=address).get("/api/internal/contract/anna")
    assert internal.status_code == 429, "pods' tokens share the count"


@pytest.mark.django_db
def test_the_count_is_by_the_client_behind_a_trusted_proxy(settings: Any, address: str) -> None:
    from opencrane.addresses import parse_networks

    settings.RATE_LIMIT_BAD_CREDENTIALS = 1
    settings.TRUSTED_PROXIES = parse_networks(["127.0.0.1"])

    def ask(forwarded: str) -> int:
        client = ApiClient("ocp_bad", REMOTE_ADDR="127.0.0.1")
        return client.get("/tenants", headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask(address), ask(address), ask(f"198.51.100.9, {address}")] == [401, 429, 429]


@pytest.mark.django_db
def test_a_credential_is_limited_only_when_asked_for(settings: Any) -> None:
    token, other = issue(Role.VIEWER), issue(Role.VIEWER)
    assert [ApiClient(token).get("/tenants").status_code for _ in range(3)] == [200, 200, 200]
    settings.RATE_LIMIT = 2
    assert [ApiClient(token).get("/tenants").status_code for _ in range(3)] == [200, 200, 429]
    assert ApiClient(other).get("/tenants").status_code == 200, "each token has a count of its own"


@pytest.mark.django_db
@pytest.mark.usefixtures("valkey_away")
def test_without_valkey_open_limits_let_pass_and_closed_ones_refuse(settings: Any, address: str) -> None:
    settings.RATE_LIMIT_BAD_CREDENTIALS = settings.RATE_LIMIT = settings.RATE_LIMIT_DEVICE = 1
    assert [bad(address).status_code for _ in range(3)] == [401, 401, 401]
    assert [ApiClient(API_TOKEN).get("/tenants").status_code for _ in range(3)] == [200, 200, 200]
    with pytest.raises(DependencyUnavailableError, match="Valkey") as caught:
        limits.hit(limits.DEVICE, address)
    assert caught.value.headers["Retry-After"]


def test_what_is_off_asks_nobody(settings: Any, valkey_away: None, address: str) -> None:
    settings.RATE_LIMIT_DEVICE = 0
    limits.hit(limits.DEVICE, address)


def test_a_device_limit_is_by_the_minute(settings: Any, address: str) -> None:
    settings.RATE_LIMIT_DEVICE = 2
    limits.hit(limits.DEVICE, address)
    limits.hit(limits.DEVICE, address)
    with pytest.raises(RateLimitedError) as caught:
        limits.hit(limits.DEVICE, address)
    assert 1 <= int(caught.value.headers["Retry-After"]) <= limits.WINDOW_SECONDS


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
    ],
)
def test_addresses_are_counted_by_subscriber(address: str, counted: str) -> None:
    assert limits.address_of(SimpleNamespace(client_address=address)) == counted


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("redis://:pw@host:6379/1", "redis://:pw@host:6379/1"),
        ("redis+socket://:pw@/run/valkey.sock?virtual_host=2", "unix://:pw@/run/valkey.sock?db=2"),
        ("redis+socket:///run/valkey.sock", "unix:///run/valkey.sock?db=0"),
    ],
)
def test_the_brokers_url_serves_for_limits_too(url: str, plain: str) -> None:
    assert limits._plain_url(url) == plain
