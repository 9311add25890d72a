"""Runs `./dev` as a person would, in a process of its own, and looks at what it leaves in the process table."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0


def wait_until(what: str, holds: Callable[[], bool], seconds: float = 30.0) -> float:
    """Poll until `holds`; fail with `what` when it takes too long. Returns the seconds it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def clean_environment() -> dict[str, str]:
    """The caller's environment without what would replace parts of the stack under test."""
    replaced = ("DATABASE_URL", "REDIS_URL", "KUBECONFIG", "NAMESPACE", "PYTEST_CURRENT_TEST", "DJANGO_SETTINGS_MODULE")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in replaced and (not name.startswith("OPENCRANE_") or name == "OPENCRANE_VENV")
    }


class Dev:
    """One running `./dev`."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*prefix, str(ROOT / "dev"), *arguments],
            env=clean_environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Wait for a line that matches."""
        found: list[re.Match[str]] = []

        def seen() -> bool:
            found.extend(match for line in list(self.lines) if (match := re.search(pattern, line)))
            if not found and self.process.poll() is not None:
                self._reader.join()
                found.extend(match for line in self.lines if (match := re.search(pattern, line)))
                assert found, f"./dev ended with {self.process.returncode} before {pattern!r}:\n{self.text}"
            return bool(found)

        try:
            wait_until(pattern, seen, seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.text}") from None
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 40.0) -> int:
        """Ask it to stop and wait. Returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.finish(seconds)

    def finish(self, seconds: float = 60.0) -> int:
        """Wait for it to end by itself. Returns its exit status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"./dev does not end:\n{self.text}") from None
        self._reader.join(10)
        return status

    def child(self, pattern: str) -> int:
        """The direct child whose command line matches; waits for it to be there."""
        found: list[int] = []

        def there() -> bool:
            found.extend(pid for pid in children(self.pid) if re.search(pattern, command_line(pid)))
            return bool(found)

        wait_until(f"a child running {pattern}", there)
        return found[0]


@contextlib.contextmanager
def dev(*arguments: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> Iterator[Dev]:
    """A running `./dev` that is stopped at the end of the block, if it still runs."""
    running = Dev(*arguments, env=env, prefix=prefix)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
        try:
            running.finish(40)
        except AssertionError:
            running.process.kill()  # The guard does the rest.
            running.finish(10)


def _status(pid: int) -> tuple[str, int] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[1])


def _all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    status = _status(pid)
    return status is not None and status[0] not in "ZX"


def children(pid: int) -> list[int]:
    """Living direct children."""
    return [other for other in _all_pids() if (found := _status(other)) and found[1] == pid and found[0] not in "ZX"]


def descendants(pid: int) -> set[int]:
    """Living children, their children, and so on."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for other in children(waiting.pop()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def command_line(pid: int) -> str:
    """Its arguments, separated by spaces."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return ""


def processes_of(data: Path) -> dict[int, str]:
    """Every living process that has to do with a data folder: by environment, arguments or working directory."""
    found = {}
    for pid in _all_pids():
        if pid == os.getpid() or not is_alive(pid):
            continue
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            cwd = os.readlink(f"/proc/{pid}/cwd")
            if (
                f"OPENCRANE_DEV_DATA={data}".encode() in environment.split(b"\0")
                or cwd.startswith(str(data))
                or str(data) in command_line(pid)
            ):
                found[pid] = command_line(pid)
    return found
