"""The guard: a tiny process that outlives a supervisor killed with SIGKILL, for the seconds it takes to clean up.

The kernel's death signal reaches only direct children, and granian's workers or Celery's prefork children are not. The
guard holds the reading end of a pipe whose writing end only the supervisor has; when that closes, it ends every session
it was told of and removes the folders it was told of, so that nothing holds the port or the data when the next
supervisor starts. It keeps the cleanup lock, which it inherited, until it is done: see `folder.DataFolder`.

Lines it reads: `+ SESSION SIGNAL [DATABASE]` (end it with this signal), `- SESSION`, `d PATH` (remove this folder), `q`
(all is stopped already; just remove the folders). Started with `python -E -S`: standard library only.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from devstack import sessions

GRACE_SECONDS = 3.0


def main() -> None:
    """Read instructions until the supervisor is gone, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    known: dict[int, tuple[signal.Signals, str | None]] = {}
    folders: list[str] = []
    for line in sys.stdin:
        kind, _, rest = line.strip().partition(" ")
        if kind == "+":
            session_text, number_text, *database = rest.split(" ", 2)
            known[int(session_text)] = (signal.Signals(int(number_text)), database[0] if database else None)
        elif kind == "-":
            known.pop(int(rest), None)
        elif kind == "d":
            folders.append(rest)
        elif kind == "q":
            known.clear()
    for session, (number, _) in known.items():
        sessions.send(session, number)
    deadline = time.monotonic() + GRACE_SECONDS
    for session, (_, database_folder) in known.items():
        grace = max(0.0, deadline - time.monotonic())
        sessions.end(session, grace_seconds=grace, database=database_folder)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


class Guard:
    """The supervisor's handle on its guard. Starts another one when it is killed."""

    def __init__(self, *, inherit: Sequence[int] = ()) -> None:
        """`inherit`: file descriptors of locks that the guard keeps until it has cleaned up."""
        self._inherit = tuple(inherit)
        self._lock = threading.Lock()
        self._known: dict[int, str] = {}
        self._folders: list[str] = []
        self._closing = False
        self._process = self._start()
        threading.Thread(target=self._keep, name="guard", daemon=True).start()

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-E", "-S", "-m", "devstack.guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._inherit,
            cwd=Path(__file__).parent.parent,
            text=True,
        )

    def _keep(self) -> None:
        while True:
            self._process.wait()
            with self._lock:
                if self._closing:
                    return
                time.sleep(0.5)  # Something kills guards; do not race it.
                self._process = self._start()
                for folder in self._folders:
                    self._tell(f"d {folder}")
                for line in self._known.values():
                    self._tell(line)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for mypy; it was opened with a pipe
        # A dead guard is replaced, and the new one is told everything, by _keep.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def watch(self, session: int, number: signal.Signals, *, database: str | None = None) -> None:
        """End this session with `number`, then with SIGKILL, should the supervisor die."""
        with self._lock:
            self._known[session] = f"+ {session} {+number}" + (f" {database}" if database else "")
            self._tell(self._known[session])

    def forget(self, session: int) -> None:
        """The session has ended."""
        with self._lock:
            self._known.pop(session, None)
            self._tell(f"- {session}")

    def remove_at_end(self, folder: str) -> None:
        """Delete this folder when all is over, however it ends."""
        with self._lock:
            self._folders.append(folder)
            self._tell(f"d {folder}")

    def close(self) -> None:
        """Everything is stopped: let the guard remove its folders and wait for it."""
        with self._lock:
            self._closing = True
            self._tell("q")
            assert self._process.stdin is not None  # noqa: S101 - see _tell
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    main()
