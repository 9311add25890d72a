"""One reconciler per object: session-level advisory locks on a connection of their own.

PostgreSQL drops such a lock the moment its connection ends, so a worker that is killed holds nothing up. The
connection belongs to the thread and stays open between tasks.
https://www.postgresql.org/docs/17/explicit-locking.html#ADVISORY-LOCKS
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from cluster.wait import own_connection

_local = threading.local()


def lock_key(kind: str, what: str) -> int:
    """A signed 64-bit key, the same in every process."""
    digest = hashlib.blake2b(f"{kind}/{what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@contextmanager
def object_lock(kind: str, what: object, *, wait_seconds: float = 0) -> Iterator[bool]:
    """Hold a lock for the block; yields False when someone else has it (after `wait_seconds`).

    Args:
        kind: name of the object's kind, or of the activity that only one may be at.
        what: the row's id; for what has no row yet, its name.
    """
    key = lock_key(kind, str(what))
    held = _acquire(key, wait_seconds)
    try:
        yield held
    finally:
        if held:
            _release(key)


class _Held:
    """A thread's connection; closes it when the thread ends, so that nothing is left to the garbage collector."""

    def __init__(self) -> None:
        self.connection = own_connection()

    def __del__(self) -> None:
        made: psycopg.Connection[Any] | None = getattr(self, "connection", None)
        if made is not None:
            made.close()


def close_lock_connection() -> None:
    """Close this thread's connection, and with it every lock it holds."""
    held: _Held | None = getattr(_local, "held", None)
    _local.held = None
    if held is not None:
        held.connection.close()


def _connection() -> psycopg.Connection[Any]:
    held: _Held | None = getattr(_local, "held", None)
    if held is None or held.connection.closed:
        held = _local.held = _Held()
    return held.connection


def _acquire(key: int, wait_seconds: float) -> bool:
    for attempt in (1, 2):
        try:
            lock_connection = _connection()
            if not wait_seconds:
                row = lock_connection.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
                return bool(row and row[0])
            with lock_connection.transaction():
                lock_connection.execute(
                    "SELECT set_config('lock_timeout', %s, true)", [f"{int(wait_seconds * 1000)}ms"]
                )
                lock_connection.execute("SELECT pg_advisory_lock(%s)", [key])
            return True
        except psycopg.errors.LockNotAvailable:
            return False
        except psycopg.OperationalError:
            # A restarted PostgreSQL ended the idle connection; the second try makes a new one.
            close_lock_connection()
            if attempt == 2:
                raise
    return False


def _release(key: int) -> None:
    try:
        _connection().execute("SELECT pg_advisory_unlock(%s)", [key])
    except psycopg.OperationalError:
        # The connection is gone, and the lock with it.
        close_lock_connection()
