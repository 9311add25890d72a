"""Any process may be killed at any moment: what was acknowledged is there, nothing is there twice, both sides agree."""

import signal
import threading
from functools import partial
from typing import Any

import httpx
import pytest

from devstack.tests.dev_process import wait_until
from tests.chaos.conftest import PROCESSES, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]

WRITERS = 4
AGREE_SECONDS = 60
ABSENT = None


class Writer(threading.Thread):
    """Creates, changes and deletes tenants of its own, and remembers what it was told.

    `possible` holds, for each name, the states that its answers allow: one after an acknowledged write, more after one
    whose fate is open (503, 504, or no answer at all).
    """

    def __init__(self, stack: Stack, prefix: str, halt: threading.Event) -> None:
        super().__init__(name=prefix)
        self.stack, self.prefix, self.halt = stack, prefix, halt
        self.possible: dict[str, list[str | None]] = {}
        self.acknowledged = 0
        self.unexpected: list[str] = []

    def run(self) -> None:
        with self.stack.client() as client:
            number = 0
            while not self.halt.is_set():
                name = f"{self.prefix}-{number}"
                number += 1
                body = {"name": name, "displayName": "0", "email": "a@example.com"}
                self.write(client, name, "0", "POST", "/tenants", body)
                for value in ("1", "2"):
                    if ABSENT not in self.possible[name]:
                        self.write(client, name, value, "PUT", f"/tenants/{name}", {"displayName": value})
                if number % 2 and ABSENT not in self.possible[name]:
                    self.write(client, name, ABSENT, "DELETE", f"/tenants/{name}", None)

    def write(self, client: httpx.Client, name: str, value: str | None, method: str, path: str, body: Any) -> None:
        before = self.possible.setdefault(name, [ABSENT])
        try:
            answer = client.request(method, path, json=body)
        except httpx.HTTPError:
            self.possible[name] = [*before, value]
            return
        if answer.is_success:
            self.possible[name] = [value]
            self.acknowledged += 1
        elif answer.status_code in {503, 504}:
            # A database that goes away during the commit leaves open whether it took it.
            self.possible[name] = [*before, value]
        elif answer.status_code == 409 and len(before) > 1:
            # An earlier write of open fate has landed, or is landing.
            self.possible[name] = [*before, value]
        elif answer.status_code != 502:
            self.unexpected.append(f"{method} {path}: {answer.status_code} {answer.text}")


def all_beyond(writers: list[Writer], counts: list[int]) -> bool:
    return all(writer.acknowledged > count for writer, count in zip(writers, counts, strict=True))


def is_replaced(stack: Stack, name: str, old: int) -> bool:
    return stack.running.child(PROCESSES[name]) != old


@pytest.mark.parametrize("victim", PROCESSES)
def test_killing_a_process_amid_writes_loses_nothing(stack: Stack, victim: str) -> None:
    stack.wait_until_ready()
    halt = threading.Event()
    writers = [Writer(stack, f"{victim}-{number}", halt) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            seen = [writer.acknowledged + 1 for writer in writers]
            wait_until("every writer is at it", partial(all_beyond, writers, seen), 120)
            killed = stack.signal(victim, signal.SIGKILL)
            wait_until(f"a new {victim}", partial(is_replaced, stack, victim, killed), 30)
    finally:
        halt.set()
        for writer in writers:
            writer.join(150)
    stack.wait_until_ready()
    wait_until("both sides agree", stack.agree, AGREE_SECONDS)

    resources = stack.resources()
    with stack.client() as client:
        rows = {row["name"]: row["displayName"] for row in client.get("/tenants").json()}
    assert rows == {name: spec["displayName"] for name, spec in resources.items()}
    for writer in writers:
        assert writer.unexpected == []
        for name, allowed in writer.possible.items():
            assert rows.get(name) in allowed, f"{name} is {rows.get(name)!r}, its answers allow {allowed}"


def test_forty_hanging_writes_leave_reads_and_readyz_alone(stack: Stack) -> None:
    stack.wait_until_ready()
    with stack.client() as client:
        assert client.post("/tenants", json={"name": "held", "displayName": "0", "email": "a@example.com"}).is_success
        stack.signal("cluster", signal.SIGSTOP)
        statuses: list[int] = []

        def write(number: int) -> None:
            with stack.client() as own:
                statuses.append(own.put("/tenants/held", json={"displayName": str(number)}).status_code)

        writes = [threading.Thread(target=write, args=(number,)) for number in range(40)]
        try:
            for thread in writes:
                thread.start()
            wait_until("most writes have been told that they are queued", lambda: len(statuses) >= 30, 30)
            for _ in range(20):
                assert client.get("/tenants/held").status_code == 200
            assert httpx.get(f"{stack.url}/healthz", timeout=20).status_code == 200
            ready = httpx.get(f"{stack.url}/readyz", timeout=20)
            assert ready.status_code == 503
            assert ready.json()["checks"]["cluster"]["ok"] is False
            assert ready.json()["checks"]["database"]["ok"] is True
            assert any(thread.is_alive() for thread in writes), "the reads were answered after the writes had ended"
        finally:
            stack.signal("cluster", signal.SIGCONT)
            for thread in writes:
                thread.join(60)
        assert set(statuses) <= {200, 502, 504}
        stack.wait_until_ready()
        wait_until("both sides agree", stack.agree, AGREE_SECONDS)
        assert stack.resources()["held"]["displayName"] == client.get("/tenants/held").json()["displayName"]


def test_a_frozen_worker_is_a_504_and_the_write_lands_when_it_wakes(stack: Stack) -> None:
    stack.wait_until_ready()
    with stack.client() as client:
        stack.signal("worker", signal.SIGSTOP)
        try:
            answer = client.post("/tenants", json={"name": "late", "displayName": "0", "email": "a@example.com"})
        finally:
            stack.signal("worker", signal.SIGCONT)
        assert (answer.status_code, answer.json()["code"]) == (504, "TIMEOUT")
        wait_until("both sides agree", stack.agree, AGREE_SECONDS)
        assert "late" in stack.resources()
