"""Finding and ending everything a supervised process left behind.

Each supervised process leads a session of its own, and what it forks (granian's workers, Celery's prefork children,
PostgreSQL's backends) stays in that session unless it leaves on purpose. So "all of it" is "the session", also after
the leader has died. Standard library only, because the guard uses it too.
"""

import os
import signal
import sys
import time

POLL_SECONDS = 0.02


def members(session: int, *, database: str | None = None) -> list[int]:
    """The living processes of a session; zombies do not count. Outside Linux only the leader can be looked up.

    PostgreSQL's backends leave for sessions of their own, and a busy one does not notice for a long time that its
    postmaster is dead. They all work in the folder of their `database`, so those count as well.
    """
    if sys.platform != "linux":
        try:
            os.killpg(session, 0)
        except OSError:
            return []
        return [session]
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                # "pid (name) state ppid pgrp session ...": the name may hold spaces and parentheses.
                name, _, rest = file.read().rpartition(b")")
            fields = rest.split()
            if fields[0] in (b"Z", b"X"):
                continue
            is_backend = database and name.endswith(b"(postgres") and os.readlink(f"/proc/{entry}/cwd") == database
        except OSError:
            continue
        if is_backend or int(fields[3]) == session:
            found.append(int(entry))
    return found


def left_by(data: str, marker: str) -> set[int]:
    """The sessions of servers that work in a subfolder of `data`, and of programs with `marker` in their environment.

    PostgreSQL writes its title over its environment, hence the two ways. Empty outside Linux.
    """
    found = set()
    for entry in os.listdir("/proc") if sys.platform == "linux" else []:
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            serves = os.path.basename(os.readlink(f"/proc/{entry}/exe")) in ("postgres", "valkey-server")
            with open(f"/proc/{entry}/environ", "rb") as file:
                marked = marker.encode() in file.read().split(b"\0")
            if marked or (serves and os.readlink(f"/proc/{entry}/cwd").startswith(data + os.sep)):
                found.add(os.getsid(int(entry)))
        except OSError:
            continue
    return found


def send(session: int, number: signal.Signals, *, database: str | None = None) -> None:
    """Signal every member of a session."""
    for pid in members(session, database=database):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    if sys.platform != "linux":
        try:
            os.killpg(session, number)
        except OSError:
            return


def end(session: int, *, grace_seconds: float, database: str | None = None) -> bool:
    """Wait up to `grace_seconds` for a session to empty itself, then kill what is left. False when that was needed."""
    deadline = time.monotonic() + grace_seconds
    while members(session, database=database):
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    else:
        return True
    give_up = time.monotonic() + 5
    while members(session, database=database) and time.monotonic() < give_up:
        send(session, signal.SIGKILL, database=database)
        time.sleep(POLL_SECONDS)
    return False
