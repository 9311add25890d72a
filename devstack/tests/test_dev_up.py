"""`./dev up`: the whole system as a person starts it, with every part of it killed once."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack.folder import free_port
from devstack.tests.dev_process import Dev, children, command_line, descendants, dev, is_alive, processes_of, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

READY = r"^ready: (http://\S+)$"
# What a leader's command line shows, by the name it has in the log.
LEADERS = {
    "postgres": r"bin/postgres -D",
    "valkey": r"valkey-server",
    "cluster": r"devstack\.cluster",
    "web": r"granian",
    "worker": r"celery .*-Q sync",
    "jobs": r"celery .*-Q default",
    "beat": r"celery .* beat ",
    "projector": r"manage\.py projector",
    "operator": r"manage\.py operator",
}


@dataclass(frozen=True)
class Running:
    """A system that is ready."""

    dev: Dev
    data: Path
    port: int

    @property
    def credentials(self) -> dict[str, str]:
        content: dict[str, str] = json.loads((self.data / "credentials.json").read_text(encoding="utf-8"))
        return content

    def get(self, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.credentials['token']}"}
        response = httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=20)
        return response.status_code, response.json()

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except httpx.HTTPError:
            return False


def up(data: Path, port: int, *more: str) -> tuple[str, ...]:
    return ("up", "--data", str(data), "--port", str(port), *more)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="oc-") as folder:
        data, port = Path(folder) / "data", free_port("127.0.0.1")
        with dev(*up(data, port)) as process:
            process.wait_for(READY)
            yield Running(process, data, port)
            assert process.stop() == 0
        assert processes_of(data) == {}


def test_it_says_where_it_is_and_keeps_the_credentials_private(running: Running) -> None:
    url = f"http://127.0.0.1:{running.port}"
    assert running.dev.wait_for(READY)[1] == url
    file = running.data / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    credentials = running.credentials
    assert credentials.keys() == {"url", "token", "adminUser", "adminPassword"}
    assert credentials["url"] == url
    assert credentials["token"] in running.dev.text
    assert credentials["adminPassword"] in running.dev.text
    assert running.get("/api/v1/auth/me")[0] == 200
    assert stat.S_IMODE((running.data / "kubeconfig").stat().st_mode) == 0o600


def test_the_command_line_is_in_the_environment(running: Running, tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    env |= {"OPENCRANE_URL": running.credentials["url"], "OPENCRANE_TOKEN": running.credentials["token"]}
    command = [str(Path(sys.executable).with_name("opencrane")), "whoami", "-o", "name"]
    ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "api-token\n", "")


def test_nothing_secret_is_in_the_process_list(running: Running) -> None:
    secrets = json.loads((running.data / "secrets.json").read_text(encoding="utf-8"))
    lines = processes_of(running.data).values()
    assert lines
    assert [name for name, value in secrets.items() if any(value in line for line in lines)] == []


def test_a_second_one_is_refused_and_the_first_goes_on(running: Running) -> None:
    with dev(*up(running.data, free_port("127.0.0.1"))) as second:
        assert second.finish() == 1
    assert f"OpenCrane already runs on {running.data} (process {running.dev.pid})" in second.text
    assert running.is_ready()


def test_a_taken_port_is_named_before_anything_is_started(running: Running) -> None:
    with tempfile.TemporaryDirectory(prefix="oc-") as folder:
        with dev(*up(Path(folder) / "data", running.port)) as second:
            assert second.finish() == 1
        assert f"another program listens on 127.0.0.1:{running.port}" in second.lines[-1]
        assert not (Path(folder) / "data" / "postgres").exists()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    where = tempfile.TemporaryDirectory(prefix="oc-")
    with where as folder, dev(*up(Path(folder) / "data", 8000, "--host", host)) as running:
        assert running.finish() == 1
    assert host in running.lines[-1]
    assert "--host" in running.lines[-1]


@pytest.mark.parametrize("name", list(LEADERS))
def test_whatever_is_killed_is_back_within_five_seconds(running: Running, name: str) -> None:
    leader = running.dev.child(LEADERS[name])
    below = descendants(leader)
    os.kill(leader, signal.SIGKILL)
    wait_until("the killed one is gone", lambda: not is_alive(leader), 5)
    wait_until("another one runs", lambda: running.dev.child(LEADERS[name]) != leader, 5)
    assert [pid for pid in below if is_alive(pid)] == []
    wait_until("the system is ready again", running.is_ready, 60)


@pytest.mark.parametrize("name", ["web", "worker"])
def test_a_killed_child_of_a_leader_is_replaced(running: Running, name: str) -> None:
    def pool() -> list[int]:
        return [
            pid for pid in children(running.dev.child(LEADERS[name])) if "resource_tracker" not in command_line(pid)
        ]

    wait_until("the leader has forked", lambda: bool(pool()), 60)
    victim = pool()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until("it is gone", lambda: not is_alive(victim), 5)
    wait_until("another one is there", lambda: bool(pool()), 60)
    wait_until("the system is ready again", running.is_ready, 60)


def test_a_clean_stop_and_a_quick_start_with_the_data_of_before() -> None:
    with tempfile.TemporaryDirectory(prefix="oc-") as folder:
        data, port = Path(folder) / "data", free_port("127.0.0.1")
        with dev(*up(data, port)) as first:
            first.wait_for(READY)
            before = Running(first, data, port)
            credentials = before.credentials
            started = descendants(first.pid)
            assert first.stop(signal.SIGINT) == 0
        assert [pid for pid in started if is_alive(pid)] == []
        assert processes_of(data) == {}
        with dev(*up(data, port)) as second:
            second.wait_for(READY, 60)
            again = Running(second, data, port)
            assert again.credentials == credentials
            assert credentials["token"] not in second.text
            assert credentials["adminPassword"] not in second.text
            assert again.get("/api/v1/auth/me")[0] == 200

            # And now the hard way: nothing may outlive the supervisor.
            wait_until("the worker has forked", lambda: bool(children(second.child(LEADERS["worker"]))), 60)
            started = descendants(second.pid)
            os.kill(second.pid, signal.SIGKILL)
            second.finish()
            wait_until("all are gone", lambda: not any(is_alive(pid) for pid in started), 10)
        assert processes_of(data) == {}


def test_ipv6_has_brackets_in_its_url() -> None:
    try:
        with socket.socket(socket.AF_INET6) as attempt:
            attempt.bind(("::1", 0))
    except OSError:
        pytest.skip("NOT TESTED: this machine has no IPv6")
    with tempfile.TemporaryDirectory(prefix="oc-") as folder:
        data, port = Path(folder) / "data", free_port("::1")
        with dev(*up(data, port, "--host", "::1")) as running:
            assert running.wait_for(READY)[1] == f"http://[::1]:{port}"
            assert running.stop() == 0


def test_given_services_replace_the_embedded_ones() -> None:
    given = {name: os.environ[name] for name in ("DATABASE_URL", "KUBECONFIG")}
    # The broker of the tests, but not their queues.
    given["REDIS_URL"] = os.environ["REDIS_URL"].removesuffix("/0") + "/7"
    given["OPENCRANE_API_TOKEN"] = "a-token-of-the-caller-0123456789"
    with tempfile.TemporaryDirectory(prefix="oc-") as folder:
        data, port = Path(folder) / "data", free_port("127.0.0.1")
        with dev(*up(data, port), env=given) as process:
            process.wait_for(READY)
            running = Running(process, data, port)
            assert running.credentials["token"] == given["OPENCRANE_API_TOKEN"]
            assert running.get("/api/v1/auth/me")[0] == 200
            lines = [command_line(pid) for pid in children(process.pid)]
            assert not [line for line in lines if re.search("postgres|valkey|devstack.cluster", line)]
            assert not (data / "kubeconfig").exists()
            assert process.stop() == 0
