"""The process: killed and restarted, started twice, asked to stop; and histories that are too short."""

from __future__ import annotations

import itertools
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from devstack.tests.clusterclient import MERGE, ROOT, Cluster, Object, config_map, until

MAPS = "/api/v1/namespaces/opencrane/configmaps"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A server of the test's own, with a short memory."""
    server = Cluster(tmp_path / "data", "--history", "20")
    server.start()
    yield server
    assert server.end() == 0


def test_killed_at_any_moment_it_keeps_what_it_acknowledged(own: Cluster) -> None:
    acknowledged: dict[str, str] = {}
    deleted: set[str] = set()

    def write(thread: int) -> None:
        for number in itertools.count():
            name = f"m{thread}-{number}"
            try:
                made = own.ok("POST", MAPS, config_map(name, v="1"))
                acknowledged[name] = made["metadata"]["resourceVersion"]
                if number % 3 == 0:
                    acknowledged[name] = "unsure"
                    own.ok("DELETE", f"{MAPS}/{name}")
                    deleted.add(name)
            except (urllib3.exceptions.HTTPError, OSError):
                return

    url, uid = own.url, own.get("/api/v1/namespaces/opencrane")["metadata"]["uid"]
    for _ in range(2):
        threads = [threading.Thread(target=write, args=(len(acknowledged) + number,)) for number in range(4)]
        goal = len(acknowledged) + 150
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) > goal)  # noqa: B023 - called within this round only
        assert own.end(signal.SIGKILL) == -signal.SIGKILL
        for thread in threads:
            thread.join(10)
        own.start()
        assert own.url == url
        found = {item["metadata"]["name"]: item for item in own.get(MAPS)["items"]}
        sure = {name: version for name, version in acknowledged.items() if version != "unsure"}
        assert {name: found[name]["metadata"]["resourceVersion"] for name in sure} == sure
        assert not deleted & found.keys()
        newest = max(int(version) for version in sure.values())
        assert int(own.get(MAPS)["metadata"]["resourceVersion"]) >= newest
    assert own.get("/api/v1/namespaces/opencrane")["metadata"]["uid"] == uid


def test_watch_goes_on_after_a_restart_or_is_told_it_cannot(own: Cluster) -> None:
    old = own.ok("POST", MAPS, config_map("a"))["metadata"]["resourceVersion"]
    latest = own.ok("POST", MAPS, config_map("b"))["metadata"]["resourceVersion"]
    assert own.end() == 0
    own.start()
    with own.watch(f"{MAPS}?resourceVersion={latest}") as events:
        own.ok("POST", MAPS, config_map("c"))
        assert next(events)["object"]["metadata"]["name"] == "c"
    with own.watch(f"{MAPS}?resourceVersion={old}") as events:
        error = next(events)
        assert next(events, None) is None
    assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_history_runs_out_for_watches_and_pages(own: Cluster) -> None:
    for name in ("a", "b", "c"):
        own.ok("POST", MAPS, config_map(name))
    page = own.get(f"{MAPS}?limit=1")
    version, token = page["metadata"]["resourceVersion"], page["metadata"]["continue"]
    for number in range(25):
        own.ok("PATCH", f"{MAPS}/a", {"data": {"n": str(number)}}, kind=MERGE)
    status, answer = own.call("GET", f"{MAPS}?limit=1&continue={token}")
    assert (status, answer["reason"]) == (410, "Expired")
    with own.watch(f"{MAPS}?resourceVersion={version}") as events:
        assert next(events)["object"]["code"] == 410
    with own.watch(f"{MAPS}?resourceVersion=99999999") as events:
        assert next(events)["object"]["code"] == 410
    recent = int(own.get(MAPS)["metadata"]["resourceVersion"]) - 5
    with own.watch(f"{MAPS}?resourceVersion={recent}") as events:
        assert [event["object"]["data"]["n"] for event in itertools.islice(events, 5)] == ["20", "21", "22", "23", "24"]


def test_files_are_private(own: Cluster) -> None:
    assert stat.S_IMODE(own.folder.stat().st_mode) == 0o700
    for name in ("kubeconfig", "admin-token", "ca.key", "server.key", "service-account.key"):
        assert stat.S_IMODE((own.folder / name).stat().st_mode) == 0o600


def _start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devstack.cluster", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


def test_second_process_is_refused(own: Cluster, tmp_path: Path) -> None:
    twice = _start("--data", str(own.folder))
    assert (twice.returncode, twice.stdout) == (1, "")
    assert twice.stderr == f"Another development cluster already runs on {own.folder}.\n"
    port = own.url.rpartition(":")[2]
    taken = _start("--data", str(tmp_path / "other"), "--port", port)
    assert taken.returncode == 1
    assert taken.stderr.startswith(f"Port {port} on 127.0.0.1 cannot be had: ")


def test_stops_at_once_in_spite_of_watches(own: Cluster) -> None:
    ended = threading.Event()

    def follow(events: Iterator[Object]) -> None:
        list(events)
        ended.set()

    version = own.get(MAPS)["metadata"]["resourceVersion"]
    with own.watch(f"{MAPS}?resourceVersion={version}") as events:
        thread = threading.Thread(target=follow, args=(events,))
        thread.start()
        assert own.end(signal.SIGINT) == 0
        thread.join(10)
        assert ended.is_set()
    own.start()


def test_half_done_work_is_finished_after_a_restart(own: Cluster) -> None:
    owner = own.ok("POST", MAPS, config_map("owner"))
    for number in range(50):
        body = config_map(f"child-{number}")
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        body["metadata"]["ownerReferences"] = [reference]
        own.ok("POST", MAPS, body)
    own.ok("DELETE", f"{MAPS}/owner")
    assert own.end(signal.SIGKILL) == -signal.SIGKILL
    own.start()
    until(lambda: not own.get(MAPS)["items"])
