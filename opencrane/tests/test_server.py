"""What only shows with a real server: bodies that are chunked, too long, or never read, and broken requests."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import API_TOKEN
from devstack.folder import free_port

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
AUTH = {"Authorization": f"Bearer {API_TOKEN}"}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Granian as in production, with a database and a broker that do not exist: nothing here needs them."""
    number = free_port("127.0.0.1")
    env = os.environ | {
        "OPENCRANE_API_TOKEN": API_TOKEN,
        "OPENCRANE_ALLOWED_HOSTS": "127.0.0.1",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "OPENCRANE_DATABASE_POOL": "0",
    }
    log = tmp_path_factory.mktemp("granian") / "log"
    argv = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(number)]
    argv += ["--workers", "1", "--blocking-threads", "4", "--no-ws", "--log-level", "warning"]
    with log.open("wb") as out:
        server = subprocess.Popen([*argv, "opencrane.wsgi:application"], env=env, cwd=ROOT, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                status, _, _ = exchange(number, "GET", "/healthz")
                assert status == 200
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield number
    finally:
        server.terminate()
        server.wait(20)


def exchange(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request over a connection of its own; an iterable body goes chunked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=AUTH | {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def pieces(total: int) -> Iterator[bytes]:
    for _ in range(total // 65536):
        yield b" " * 65536


@pytest.mark.parametrize("size", [MIB + 1, 5 * MIB, 30 * MIB])
def test_the_413_reaches_a_caller_that_is_still_sending(port: int, size: int) -> None:
    status, headers, body = exchange(port, "POST", "/api/v1/tenants", b" " * size)
    assert status == 413
    assert json.loads(body)["code"] == "PAYLOAD_TOO_LARGE"
    assert headers["x-request-id"]


def test_the_413_reaches_a_caller_that_sends_chunks(port: int) -> None:
    status, _, body = exchange(port, "POST", "/api/v1/tenants", pieces(8 * MIB))
    assert status == 413
    assert json.loads(body)["code"] == "PAYLOAD_TOO_LARGE"


def test_a_refusal_before_the_body_reaches_the_caller(port: int) -> None:
    body = b" " * (8 * MIB)
    for path, headers, expected in (
        ("/api/v1/nothing", {}, 404),
        ("/api/v1/tenants", {"Authorization": "Bearer wrong"}, 401),
        ("/api/v1/tenants", {"Accept": "text/html"}, 406),
    ):
        status, _, answer = exchange(port, "POST", path, body, **headers)
        assert status == expected
        assert json.loads(answer)["code"]


def test_a_chunked_body_is_read(port: int) -> None:
    parts = iter([b'{"name": "UP', b'PER", "nope"', b": 1}"])
    status, _, body = exchange(port, "POST", "/api/v1/tenants", parts)
    assert status == 400
    fields = json.loads(body)["fields"]
    assert "name" in fields
    assert "nope" in fields


def test_an_empty_chunked_body_is_no_body(port: int) -> None:
    status, _, _ = exchange(port, "GET", "/api/v1/auth/me", iter([]))
    assert status == 200


def test_a_connection_serves_more_than_one_request(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        for method, path, body, expected in (
            ("GET", "/api/v1/auth/me", None, 200),
            ("POST", "/api/v1/auth/logout", b"{}", 204),
            ("HEAD", "/api/v1/auth/me", None, 200),
            ("POST", "/api/v1/tenants", b"{", 400),
            ("GET", "/api/v1/auth/me", None, 200),
        ):
            connection.request(method, path, body, AUTH | {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            assert response.status == expected, content
            if method == "HEAD" or expected == 204:
                assert content == b""
            else:
                assert response.headers["Content-Length"] == str(len(content))


def test_the_database_away_is_a_503(port: int) -> None:
    status, _, body = exchange(port, "GET", "/api/v1/audit")
    assert status == 503
    assert json.loads(body)["code"] == "DEPENDENCY_UNAVAILABLE"
    status, _, body = exchange(port, "GET", "/admin/", Cookie="sessionid=" + "a" * 32, Accept="text/html")
    assert status == 503
    assert b"PostgreSQL" in body
    status, _, _ = exchange(port, "GET", "/healthz")
    assert status == 200
    status, _, body = exchange(port, "GET", "/readyz")
    assert status == 503
    assert json.loads(body)["checks"]["database"]["ok"] is False


def test_a_bearer_caller_needs_no_database_to_be_known(port: int) -> None:
    status, _, body = exchange(port, "GET", "/api/v1/auth/me")
    assert (status, json.loads(body)["role"]) == (200, "admin")


@pytest.mark.parametrize(
    "raw",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /api/v1/auth/me HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/v1/tenants HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n",
        b"GET /api/v1/\x80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/v1/audit?q=%00 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/%00%ff HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_broken_request_is_a_4xx(port: int, raw: bytes) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(raw)
        with contextlib.suppress(OSError):  # it may have answered and hung up by now
            connection.shutdown(socket.SHUT_WR)
        status_line = connection.makefile("rb").readline()
    # An empty line: the server has hung up on what it could not make sense of.
    assert status_line == b"" or status_line.split()[1].startswith(b"4"), status_line
