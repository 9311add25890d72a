"""What is measured, in order: the fleet grows on the way from 1,000 to 10,000 tenants."""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bench import access, awareness, machine, money, operator, queries, seed, skills, skillstore
from bench.client import Answer, Samples, Target, ask, at_once, one_by_one, timed
from bench.figures import Figure, Results, Wanted, figure, heading, row
from cluster.client import cluster_client
from cluster.resources import TENANTS
from cluster.wait import own_connection

API = "/api/v1"
# The list as PostgreSQL alone would make it.
_JSON_AGG = """
    SELECT json_agg(t)::text FROM (
        SELECT name, display_name, email, team, phase, ingress_host, suspended, created_at
          FROM tenants_tenant ORDER BY created_at DESC, id DESC) AS t
"""


@dataclass
class Plan:
    """How much to do. `seconds` is the time for each figure, warm-up aside."""

    seconds: float = 3.0
    small: int = 1_000
    large: int = 10_000
    audit: int = 1_000_000
    usage: int = 10_000_000
    writes: int = 200
    deep_pages: int = 300
    only: str = ""
    is_quick: bool = False


@dataclass
class Bench:
    """One run against one stack."""

    plan: Plan
    target: Target
    anonymous: Target
    token: str
    pids: dict[str, int]
    results: Results
    say: Callable[[str], None]
    floors: dict[str, float] = field(default_factory=dict)

    # --- Measuring -------------------------------------------------------------------------------------------------

    def wants(self, *names: str) -> bool:
        wanted = self.plan.only.split(",")
        return not self.plan.only or any(text in name for name in names for text in wanted)

    def measure(self, name: str, clients: int, run: Callable[[], Samples], **facts: Any) -> Figure:
        """Run, note what the processes used meanwhile, compare, print."""
        before = machine.cpu_seconds(self.pids)
        samples = run()
        after = machine.cpu_seconds(self.pids)
        made = figure(name, clients, samples, {key: after[key] - before.get(key, 0.0) for key in after})
        wanted = facts.pop("wanted", Wanted())
        if floor := facts.pop("floor", ""):
            made.floor, made.floor_ms = floor, self.floors.get(floor)
        for key, value in facts.items():
            setattr(made, key, value)
        made.compare(wanted)
        self.results.figures.append(made)
        self.say(row(made))
        return made

    def floor(
        self, name: str, action: Callable[[], object], *, seconds: float | None = None, most: int = 2_000
    ) -> None:
        """Measure the least that something could take, to stand beside what is measured next."""
        for _ in range(3):
            action()
        made = self.measure(f"floor: {name}", 1, lambda: timed(action, seconds=seconds or self.plan.seconds, most=most))
        self.floors[name] = made.median_ms

    def read(
        self,
        name: str,
        path: str,
        *,
        target: Target | None = None,
        clients: int = 1,
        headers: dict[str, str] | None = None,
        most: int = 20_000,
        **facts: Any,
    ) -> Figure:
        """Measure one GET."""
        target = target or self.target
        message = target.message("GET", path)
        one_by_one(target, itertools.repeat(message), seconds=0.5, most=200, least=3)
        if headers is not None and clients == 1:
            facts["queries"] = queries.count("GET", path, headers)

        def run() -> Samples:
            messages = itertools.repeat(message)
            if clients == 1:
                return one_by_one(target, messages, seconds=self.plan.seconds, most=most)
            return at_once(target, messages, clients=clients, seconds=self.plan.seconds, most=most)

        return self.measure(name, clients, run, **facts)

    def write(self, name: str, messages: list[bytes], *, clients: int = 1, **facts: Any) -> Figure:
        """Measure writes, each request once."""

        def run() -> Samples:
            if clients == 1:
                return one_by_one(self.target, iter(messages), seconds=60, most=len(messages))
            return at_once(self.target, iter(messages), clients=clients, seconds=60, most=len(messages))

        return self.measure(name, clients, run, **facts)

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    # --- The run ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Everything, in order."""
        self.results.memory["idle"] = machine.memory_mib(self.pids, "web")
        self.say(heading())
        self.overhead()
        self.seed_tenants(range(self.plan.small))
        self.small_reads()
        self.writes()
        self.fleet(self.plan.small)
        if self.plan.large > self.plan.small:
            self.seed_tenants(range(self.plan.small, self.plan.large))
            self.fleet(self.plan.large)
            self.others_during_drift()
        awareness.measure(self)
        access.measure(self)
        skills.measure(self)
        skillstore.measure(self)
        money.measure(self)
        self.audit()
        self.console()
        self.results.memory["after"] = machine.memory_mib(self.pids, "web")
        operator.measure(self)

    def seed_tenants(self, numbers: range) -> None:
        began = time.monotonic()
        seed.add_tenants(numbers, lambda: machine.wait_until_idle(self.pids))
        self.say(f"-- {len(numbers):,} tenants seeded in {time.monotonic() - began:.1f} s")

    def overhead(self) -> None:
        """What the client itself and the smallest of all views take."""
        with _echo() as echoing:
            self.measure(
                "floor: this client, answered by an echo", 1,
                lambda: one_by_one(echoing, itertools.repeat(echoing.message("GET", "/")), seconds=1, most=5_000),
            )  # fmt: skip
        trivial = self.read("floor: GET /healthz", "/healthz", target=self.anonymous)
        self.floors["GET /healthz"] = trivial.median_ms
        self.read("floor: GET /healthz", "/healthz", target=self.anonymous, clients=16)

    def small_reads(self) -> None:
        """Who calls, and one tenant."""
        one = f"{API}/tenants/{seed.tenant_name(7)}"
        me = f"{API}/auth/me"
        static = self.authorization
        if self.wants("auth/me"):
            common: dict[str, Any] = {"floor": "GET /healthz"}
            self.read("GET /auth/me", me, headers=static, wanted=Wanted(milliseconds=0.5), **common)
            self.read("GET /auth/me", me, clients=16, wanted=Wanted(rate=5_000), **common)
        if self.wants("one tenant"):
            token = queries.issued_token()
            issued_headers = {"Authorization": f"Bearer {token}"}
            issued = Target(f"http://{_host(self.target)}", issued_headers)
            common = {"floor": "GET /healthz"}
            self.read("one tenant, static token", one, headers=static, wanted=Wanted(milliseconds=1.2), **common)
            self.read("one tenant, static token", one, clients=16, wanted=Wanted(rate=1_500), **common)
            self.read(
                "one tenant, issued token", one, target=issued, headers=issued_headers,
                wanted=Wanted(milliseconds=1.5), **common,
            )  # fmt: skip
            self.read("one tenant, issued token", one, target=issued, clients=16, **common)

    def writes(self) -> None:
        """Create, update and delete, each confirmed in the cluster before it is answered."""
        if not self.wants("create", "update", "delete"):
            return
        self._bare_writes()
        count = self.plan.writes
        names = [f"bench-{number:05d}" for number in range(count * 2)]
        create = [self.target.message("POST", f"{API}/tenants", _tenant(name)) for name in names]
        warm = [f"warm-{number:02d}" for number in range(16)]
        for action in (
            [self.target.message("POST", f"{API}/tenants", _tenant(name)) for name in warm],
            [self.target.message("DELETE", f"{API}/tenants/{name}") for name in warm],
        ):
            at_once(self.target, iter(action), clients=8, seconds=30, most=len(action))
        self.write(
            "create, confirmed", create[:count], wanted=Wanted(milliseconds=15), floor="bare create",
        )  # fmt: skip
        self.write("create, confirmed", create[count:], clients=8, wanted=Wanted(rate=120), floor="bare create")
        update = [
            self.target.message("PUT", f"{API}/tenants/{name}", {"team": f"team-{number % 7}"})
            for number, name in enumerate(names)
        ]
        self.write("update, confirmed", update[:count], wanted=Wanted(milliseconds=11), floor="bare update")
        self.write("update, confirmed", update[count:], clients=8, floor="bare update")
        delete = [self.target.message("DELETE", f"{API}/tenants/{name}") for name in names]
        self.write("delete, confirmed", delete[:count], wanted=Wanted(milliseconds=12), floor="bare delete")
        self.write("delete, confirmed", delete[count:], clients=8, floor="bare delete")
        machine.wait_until_idle(self.pids)

    def _bare_writes(self) -> None:
        """The same on the API server alone, by the client that the workers use."""
        client = cluster_client()
        numbers = itertools.count()
        made: list[tuple[str, str]] = []

        def manifest(name: str, team: str) -> dict[str, Any]:
            spec = {key: value for key, value in _tenant(name).items() if key != "name"} | {"team": team}
            return {
                "apiVersion": TENANTS.api_version, "kind": TENANTS.kind, "metadata": {"name": name}, "spec": spec,
            }  # fmt: skip

        def create() -> None:
            name = f"bare-{next(numbers):05d}"
            _, live = client.apply(TENANTS, manifest(name, "one"), force=True)
            made.append((name, live["metadata"]["uid"]))

        def remove(name: str, uid: str) -> None:
            client.delete(TENANTS, name, uid=uid)

        self.floor("bare create", create, seconds=1.5, most=300)
        turns = itertools.cycle(list(made))
        teams = itertools.count()
        self.floor(
            "bare update",
            lambda: client.apply(TENANTS, manifest(next(turns)[0], f"team-{next(teams)}"), force=True),
            seconds=1.5, most=300,
        )  # fmt: skip
        doomed = iter(list(made))
        most = max(1, len(made) - 3)
        self.floor("bare delete", lambda: remove(*next(doomed)), seconds=3, most=most)
        for name, uid in doomed:
            remove(name, uid)

    def fleet(self, size: int) -> None:
        """What grows with the number of tenants."""
        shown = f"{size:,}"
        if self.wants("list"):
            with own_connection() as database:
                self.floor(f"json_agg of {shown}", lambda: _fetch(database), most=500)
            bound = 4 if size <= 1_000 else 30
            self.read(
                f"list of {shown} tenants", f"{API}/tenants", headers=self.authorization, most=500,
                wanted=Wanted(milliseconds=bound), floor=f"json_agg of {shown}",
            )  # fmt: skip
            self.read(
                f"page of 50 of {shown} tenants", f"{API}/tenants?limit=50", headers=self.authorization,
                floor="GET /healthz",
            )  # fmt: skip
        if self.wants("drift", "repair"):
            bare = f"bare list of {shown}"
            client = cluster_client()
            self.floor(bare, lambda: [len(page) for page, _ in client.list_pages(TENANTS)], most=30)
            wanted = Wanted(times_floor=1.15)
            drift = f"{API}/tenants/drift"
            self.read(f"drift of {shown}", drift, headers=self.authorization, most=30, wanted=wanted, floor=bare)
            dry_run = self.target.message("POST", f"{API}/tenants/repair?dryRun=true")
            self.measure(
                f"repair dry run of {shown}", 1,
                lambda: one_by_one(self.target, itertools.repeat(dry_run), seconds=self.plan.seconds, most=30),
                wanted=wanted, floor=bare,
            )  # fmt: skip

    def others_during_drift(self) -> None:
        """What everyone else sees while somebody asks for the drift of the whole fleet."""
        if not self.wants("drift"):
            return
        stop = threading.Event()

        def keep_asking() -> None:
            while not stop.is_set():
                ask(self.target, "GET", f"{API}/tenants/drift")

        asking = threading.Thread(target=keep_asking)
        asking.start()
        time.sleep(0.2)
        try:
            self.read("GET /auth/me, while drift runs", f"{API}/auth/me", floor="GET /healthz")
        finally:
            stop.set()
            asking.join()

    def audit(self) -> None:
        """Pages of the audit trail, first and deep."""
        if not self.wants("audit"):
            return
        began = time.monotonic()
        seed.add_audit_entries(self.plan.audit)
        machine.wait_until_idle(self.pids)
        shown = f"{self.plan.audit:,}"
        self.say(f"-- {shown} audit entries seeded in {time.monotonic() - began:.1f} s")
        first = f"{API}/audit?limit=100"
        wanted = Wanted(milliseconds=1.5)
        self.read(
            f"audit page of 100 of {shown}, first", first, headers=self.authorization, wanted=wanted,
            floor="GET /healthz",
        )  # fmt: skip
        path, passed = f"{API}/audit?limit=1000", 0
        while passed < self.plan.deep_pages and (following := _next(ask(self.target, "GET", path))):
            path, passed = following, passed + 1
        deep = path.replace("limit=1000", "limit=100")
        self.read(
            f"audit page of 100 of {shown}, {passed * 1000:,} deep", deep, headers=self.authorization, wanted=wanted,
            floor="GET /healthz",
        )  # fmt: skip

    def console(self) -> None:
        """Pages that people look at."""
        if not self.wants("console"):
            return
        headers = {"Cookie": queries.session_cookie(), "Accept": "text/html"}
        browser = Target(f"http://{_host(self.target)}", headers)
        for name, path in (("tenants", "/admin/tenants/"), ("audit", "/admin/audit/"), ("spend", "/admin/spend/")):
            answer = ask(browser, "GET", path)
            if answer.status != 200:
                self.say(f"-- the console has no page {path} ({answer.status})")
                continue
            self.read(
                f"console: {name}, {len(answer.body) / 1024:.0f} KiB", path, target=browser, headers=headers, most=200,
                wanted=Wanted(milliseconds=150), floor="GET /healthz",
            )  # fmt: skip


def _tenant(name: str) -> dict[str, Any]:
    return {
        "name": name, "displayName": f"Tenant {name}", "email": f"{name}@example.com", "team": "search",
        "monthlyBudgetUsd": 25, "resources": {"cpu": "500m", "memory": "1Gi"}, "skillAllowlist": ["summarize"],
    }  # fmt: skip


def _fetch(database: psycopg.Connection[Any]) -> int:
    found = database.execute(_JSON_AGG).fetchone()
    return len(found[0]) if found and found[0] else 0


def _next(answer: Answer) -> str:
    """Path and query of the next page, from the Link header."""
    link = answer.header("Link")
    if 'rel="next"' not in link:
        return ""
    url = link[link.index("<") + 1 : link.index(">")]
    return url if url.startswith("/") else "/" + url.split("/", 3)[3]


def _host(target: Target) -> str:
    host, port = target.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _echo:  # noqa: N801 - used like a function
    """A server that answers every request with the same few bytes, in a process of its own."""

    def __enter__(self) -> Target:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        receiving, sending = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve_echo, args=(sending,), daemon=True)
        self._process.start()
        return Target(f"http://127.0.0.1:{receiving.recv()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _serve_echo(port: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port.send(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                while connection.recv(65_536):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n" + b'{"status":"alive"}')
