"""Keeps processes running: restarts what dies, stops everything in order, leaves nothing behind.

One thread per service forks, waits and restarts. It waits with WNOWAIT, so that a dead leader stays a zombie, and its
number cannot be given to somebody else, until the rest of its session has been ended. The thread lives as long as its
child: the kernel's death signal fires when the *thread* that forked ends, not only when the process does.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devstack import child, sessions
from devstack.guard import Guard
from devstack.output import Output

FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 4.0  # Whatever dies is back within five seconds.
STABLE_SECONDS = 20.0  # A run this long counts as healthy and resets the delay.
POLL_SECONDS = 0.05


class DevError(Exception):
    """Something the person at the terminal has to know, as one sentence."""


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked to stop
    """The person asked to stop while something was being waited for."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process to keep running.

    `ready` says whether it serves now; it is called until it returns True. `stop_signal` asks it to end in order, for
    which it gets `stop_seconds`. `straggler_seconds` is how long what it forked may take to notice its death. Lines
    that contain one of `noise` are not shown. `database` is the folder of a PostgreSQL server, see `sessions.members`.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    before_start: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    straggler_seconds: float = 0.0
    namespace_user: int | None = None
    user: int | None = None
    noise: tuple[str, ...] = ()
    database: str | None = None


@dataclass
class _Running:
    service: Service
    thread: threading.Thread
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    pid: int | None = None
    deaths: int = 0
    last_words: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class Supervisor:
    """Runs services until told to stop. Not thread-safe except for `stop` being an event."""

    def __init__(self, output: Output, guard: Guard) -> None:
        self.output = output
        self.guard = guard
        self.stop = threading.Event()
        self.hard = threading.Event()
        self._running: dict[str, _Running] = {}

    # --- Signals ---------------------------------------------------------------------------------------------------

    def listen_for_signals(self) -> None:
        """Ctrl-C, SIGTERM and a closed terminal set `stop`; a second one sets `hard`.

        Through the wakeup descriptor, because setting a threading.Event inside a signal handler can deadlock with the
        code it interrupted.
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started with nohup
            signal.signal(number, lambda _number, _frame: None)

        def read() -> None:
            wanted = {+signal.SIGINT, +signal.SIGTERM, +signal.SIGHUP}
            while received := os.read(reading, 1):
                if received[0] not in wanted:
                    continue
                if self.stop.is_set():
                    self.output.line("dev", "stopping at once")
                    self.hard.set()
                self.stop.set()

        threading.Thread(target=read, name="signals", daemon=True).start()

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: as soon as somebody asks to stop.
        """
        if self.stop.wait(seconds):
            raise Stopped

    # --- Starting --------------------------------------------------------------------------------------------------

    def start(self, service: Service) -> None:
        """Begin to keep `service` running; returns at once."""
        thread = threading.Thread(target=self._keep, args=(service.name,), name=f"keep-{service.name}", daemon=True)
        self._running[service.name] = _Running(service=service, thread=thread)
        thread.start()

    def wait_ready(self, name: str) -> None:
        """Wait until a started service says that it serves.

        Raises:
            DevError: it died three times, or was not ready in time.
            Stopped: somebody asked to stop.
        """
        running = self._running[name]
        service = running.service
        deadline = time.monotonic() + service.ready_seconds
        while not (running.pid and (service.ready is None or service.ready())):
            said = next((line for line in reversed(running.last_words) if line), "it said nothing")
            if running.deaths >= 3:
                raise DevError(f"{name} does not start: {said}")
            if time.monotonic() > deadline:
                raise DevError(f"{name} was not ready after {service.ready_seconds:.0f} seconds; it last said: {said}")
            self.pause(POLL_SECONDS)

    def _spawn(self, service: Service) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            child.command(
                service.argv,
                death_signal=service.stop_signal,
                namespace_user=service.namespace_user,
                user=service.user,
            ),
            env=dict(service.env),
            cwd=service.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _keep(self, name: str) -> None:
        running = self._running[name]
        service = running.service
        failures = 0
        while not running.stopping.is_set():
            if service.before_start is not None:
                service.before_start()
            started = time.monotonic()
            with running.lock:
                if running.stopping.is_set():
                    return
                process = self._spawn(service)
                running.pid = process.pid
            self.guard.watch(process.pid, service.stop_signal, database=service.database)
            assert process.stdout is not None  # noqa: S101 - for mypy; it was opened with a pipe
            pump = self.output.pump(name, process.stdout, running.last_words, noise=service.noise)
            _wait_without_reaping(process)
            sessions.end(process.pid, grace_seconds=service.straggler_seconds, database=service.database)
            with running.lock:
                running.pid = None
            status = process.wait()
            self.guard.forget(process.pid)
            pump.join(2)
            if running.stopping.is_set():
                return
            running.deaths += 1
            failures = 0 if time.monotonic() - started >= STABLE_SECONDS else failures + 1
            delay = min(FIRST_DELAY_SECONDS * 2 ** max(failures - 1, 0), MAX_DELAY_SECONDS)
            self.output.line("dev", f"{name} {_describe(status)}; starting it again in {delay:.1f} s")
            running.stopping.wait(delay)

    # --- One-off commands ------------------------------------------------------------------------------------------

    def run(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, quiet: bool = True) -> str:
        """Run one command to its end and return what it printed; printed as it comes unless `quiet`.

        Raises:
            DevError: it failed; what it said has been printed.
            Stopped: somebody asked to stop; the command was ended.
        """
        service = Service(name=name, argv=argv, env=env, cwd=cwd)
        process = self._spawn(service)
        self.guard.watch(process.pid, signal.SIGTERM)
        assert process.stdout is not None  # noqa: S101 - for mypy; it was opened with a pipe
        said: deque[str] = deque(maxlen=10_000)
        pump = self.output.pump(name, process.stdout, said, quiet=quiet)
        try:
            while process.poll() is None:
                self.pause(POLL_SECONDS / 5)
        finally:
            if process.poll() is None:
                sessions.send(process.pid, signal.SIGTERM)
                sessions.end(process.pid, grace_seconds=3)
                process.wait()
            self.guard.forget(process.pid)
            pump.join(2)
        if process.returncode != 0:
            if quiet:
                for line in said:
                    self.output.line(name, line)
            raise DevError(f"{name} {_describe(process.returncode)}: {said[-1] if said else 'it said nothing'}")
        return "\n".join(said)

    # --- Stopping --------------------------------------------------------------------------------------------------

    def stop_all(self, order: Sequence[Sequence[str]]) -> None:
        """Stop the named services, one group after the other, the members of a group together. Then all others."""
        named = [[name for name in group if name in self._running] for group in order]
        rest = [name for name in self._running if not any(name in group for group in named)]
        for group in [*named, rest]:
            self._stop_group([self._running[name] for name in group])

    def _stop_group(self, group: Sequence[_Running]) -> None:
        for running in group:
            with running.lock:
                running.stopping.set()
            self._signal_leader(running, signal.SIGKILL if self.hard.is_set() else running.service.stop_signal)
        began = time.monotonic()
        for running in group:
            while running.thread.is_alive():
                late = time.monotonic() - began >= running.service.stop_seconds
                if late or self.hard.is_set():
                    if late and not self.hard.is_set():
                        self.output.line("dev", f"{running.service.name} did not stop in time; killing it")
                    self._signal_leader(running, signal.SIGKILL)
                    running.thread.join(10)
                    break
                running.thread.join(POLL_SECONDS)

    @staticmethod
    def _signal_leader(running: _Running, number: signal.Signals) -> None:
        with running.lock:
            if running.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(running.pid, number)

    def pids(self) -> dict[str, int]:
        """The leaders that run now, by name."""
        return {name: running.pid for name, running in self._running.items() if running.pid is not None}


def _wait_without_reaping(process: "subprocess.Popen[bytes]") -> None:
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def _describe(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
