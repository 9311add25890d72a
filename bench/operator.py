"""The operator: from a tenant's resource to a running pod, many at once, and a whole fleet looked at again.

It runs as a process of its own in a namespace of its own, against the stack's development cluster. Nothing of the
database is touched.
"""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.client import Samples
from bench.figures import Wanted
from cluster.client import cluster_client
from cluster.resources import NAMESPACES, TENANTS

if TYPE_CHECKING:
    from bench.scenarios import Bench

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "bench-operator"
METRICS_PORT = 19_417
AT_ONCE = 500
SINGLE = 5
WAIT_SECONDS = 3_600.0


def measure(bench: "Bench") -> None:
    """One tenant, 500 at once, and a start over a fleet that needs nothing."""
    if not bench.wants("operator"):
        return
    client = cluster_client()
    client.request(
        "POST", NAMESPACES.path(""), body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    fleet = max(AT_ONCE, bench.plan.large) if not bench.plan.is_quick else AT_ONCE
    with operator() as pid:
        bench.measure(
            "operator: create to Running", 1, lambda: samples(one_running(number) for number in range(SINGLE)),
            wanted=Wanted(milliseconds=3_000),
        )  # fmt: skip
        bench.measure(
            f"operator: {AT_ONCE} created at once to Running", 1, lambda: samples([many_running(AT_ONCE)]),
            wanted=Wanted(milliseconds=60_000),
        )  # fmt: skip
        if fleet > AT_ONCE:
            began = time.monotonic()
            many_running(fleet, AT_ONCE)
            bench.say(f"-- {fleet:,} tenants run after {time.monotonic() - began:.0f} s more")
        bench.results.memory[f"operator after {fleet:,} tenants"] = machine.memory_mib({"operator": pid}, "operator")
    with operator() as pid:
        again = bench.measure(
            f"operator: {fleet + SINGLE:,} unchanged tenants looked at again", 1,
            lambda: samples([looked_at(fleet + SINGLE)]), wanted=Wanted(milliseconds=60_000),
        )  # fmt: skip
        writes = figure_of("opencrane_operator_writes_total")
        bench.say(f"-- {writes:.0f} writes meanwhile")
        if writes:
            again.failures, again.met = int(writes), False
        bench.results.memory[f"operator over {fleet:,} unchanged"] = machine.memory_mib({"operator": pid}, "operator")


@contextmanager
def operator() -> Iterator[int]:
    """An operator process that leads; its pid."""
    env = os.environ | {"NAMESPACE": NAMESPACE, "OPENCRANE_OPERATOR_METRICS_PORT": str(METRICS_PORT)}
    with subprocess.Popen([sys.executable, "manage.py", "operator"], cwd=ROOT, env=env) as process:
        try:
            wait(lambda: figure_of("opencrane_operator_leader") == 1)
            yield process.pid
        finally:
            process.terminate()


def figure_of(name: str) -> float:
    """The sum of one of the operator's own metrics; -1 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return -1.0
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def samples(seconds: Any) -> Samples:
    """What was timed elsewhere, as samples."""
    found = Samples()
    for each in seconds:
        found.add(each, 200, 0)
        found.wall += each
    return found


def create(name: str) -> None:
    spec = {"displayName": name, "email": f"{name}@example.com", "team": "bench"}
    body = {"apiVersion": TENANTS.api_version, "kind": TENANTS.kind, "metadata": {"name": name}, "spec": spec}
    cluster_client().create(TENANTS, body, namespace=NAMESPACE)


def phases() -> dict[str, str]:
    pages = cluster_client().list_pages(TENANTS, namespace=NAMESPACE)
    return {live["metadata"]["name"]: (live.get("status") or {}).get("phase", "") for page, _ in pages for live in page}


def one_running(number: int) -> float:
    began = time.monotonic()
    name = f"single-{number}"
    create(name)

    def runs() -> bool:
        live = cluster_client().get(TENANTS, name, namespace=NAMESPACE)
        return ((live or {}).get("status") or {}).get("phase") == "Running"

    wait(runs, pause=0.02)
    return time.monotonic() - began


def many_running(upto: int, start: int = 0) -> float:
    """Create tenants with numbers from `start` to `upto`, all at once; seconds until all of them run."""
    began = time.monotonic()
    names = [f"many-{number:05}" for number in range(start, upto)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, names))

    def run() -> bool:
        found = phases()
        return all(found.get(name) == "Running" for name in names)

    wait(run, pause=0.5 if upto - start <= AT_ONCE else 10.0)
    return time.monotonic() - began


def looked_at(count: int) -> float:
    """Seconds since the operator was started until it has looked at every tenant."""
    began = time.monotonic()
    wait(
        lambda: (
            figure_of("opencrane_operator_reconciles_total") >= count
            and figure_of("opencrane_operator_queue_depth") == 0
        )
    )
    return time.monotonic() - began


def wait(holds: Callable[[], bool], pause: float = 0.2) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the operator did not get there")
        time.sleep(pause)
