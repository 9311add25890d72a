"""The real command against a real server: in this process where that is enough, as a process of its own where not."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.servers.basehttp import WSGIRequestHandler
from django.core.signals import request_finished

from cli.main import main
from cluster.client import cluster_client
from cluster.locks import close_lock_connection
from cluster.resources import ACCESS_POLICIES, CLUSTER_TENANTS, NAMESPACES, TENANTS
from conftest import API_TOKEN

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


class Terminal:
    """Runs commands as somebody at a server would, without a terminal."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def __call__(self, *argv: str, stdin: str | bytes = "") -> Ran:
        """Run one in this process, through the whole program."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in ("stdout", "stderr")}
        before = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")
        try:
            with (
                contextlib.redirect_stdout(streams["stdout"]),
                contextlib.redirect_stderr(streams["stderr"]),
                pytest.MonkeyPatch.context() as patch,
            ):
                for name in [name for name in os.environ if name.startswith(("OPENCRANE_", "XDG_"))]:
                    patch.delenv(name)
                for name, value in self.env.items():
                    patch.setenv(name, value)
                status = main(argv)
        finally:
            sys.stdin = before
        texts = []
        for stream in streams.values():
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        return Ran(status, *texts)

    def ok(self, *argv: str, stdin: str | bytes = "") -> str:
        """Standard output of a command that has to work."""
        ran = self(*argv, stdin=stdin)
        assert ran.status == 0, (argv, ran)
        return ran.out

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start one as a process of its own."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("OPENCRANE_", "XDG_"))}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        env = keep | self.env | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
        pipes.pop("env", None)
        return subprocess.Popen([sys.executable, "-m", "cli", *argv], env=env, text=True, cwd=self.folder, **pipes)

    @property
    def folder(self) -> Path:
        return Path(self.env["XDG_CONFIG_HOME"])


@pytest.fixture
def away(tmp_path: Path) -> Terminal:
    """A command line that knows of no server."""
    return Terminal({"XDG_CONFIG_HOME": str(tmp_path)})


@pytest.fixture
def opencrane(tmp_path: Path, live_server: Any, no_locks_left: None, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A command line at a server, with the static token: role admin."""
    # Django's server sends heads and bodies apart, and the second would wait 40 ms for word of the first (RFC 896).
    monkeypatch.setattr(WSGIRequestHandler, "disable_nagle_algorithm", True)
    return Terminal({"XDG_CONFIG_HOME": str(tmp_path), "OPENCRANE_URL": live_server.url, "OPENCRANE_TOKEN": API_TOKEN})


@pytest.fixture
def acme(transactional_db: None, cluster_namespace: str) -> Iterator[str]:
    """A namespace without tenants and policies, and the name of a cluster tenant that is free in the cluster."""
    client = cluster_client()
    name = f"acme-{django_settings.NAMESPACE}"[-53:].strip("-")
    client.request("DELETE", TENANTS.path(client.namespace))
    client.request("DELETE", ACCESS_POLICIES.path(client.namespace))
    yield name
    for path in (CLUSTER_TENANTS.path("", name), NAMESPACES.path("", f"opencrane-{name}")):
        client.request("DELETE", path)


@pytest.fixture
def no_locks_left() -> Iterator[None]:
    """Tasks run in the server's threads here, which end with their requests; a worker's keeps its lock connection."""

    def close(**_: Any) -> None:
        close_lock_connection()

    request_finished.connect(close, weak=False)
    yield
    request_finished.disconnect(close)
