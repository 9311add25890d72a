"""Waiting for the cluster to confirm a write, without starving the web process.

Workers announce outcomes with NOTIFY; one thread per process listens, on a connection of its own, and wakes whoever
waits. A waiter holds no database connection, and at most half of the request threads may wait: a write beyond that is
queued all the same and answers 504 at once. Announcements can get lost (a restarted PostgreSQL, a pooler that does not
pass LISTEN), so each waiter also looks for itself now and then.
"""

import logging
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import orjson
import psycopg
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from cluster.models import Outcome
from cluster.rows import fetch_one
from opencrane.errors import ClusterRejectedError, ConflictError, DomainError, TimedOutError

log = logging.getLogger(__name__)

CHANNEL = "opencrane_sync"
LOOK_SECONDS = 1.0
_slots = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))


@contextmanager
def waiting_slot() -> Iterator[bool]:
    """One of the places for request threads that wait; yields False when all are taken. Gives back the connection."""
    taken = _slots.acquire(blocking=False)
    try:
        if taken:
            connection.close()
        yield taken
    finally:
        if taken:
            _slots.release()


class Write:
    """One accepted write, identified by object and generation.

    Made inside the transaction that writes, so that no announcement can slip between commit and wait.
    """

    def __init__(self, kind: str, object_id: UUID, generation: int, *, settled: bool = False) -> None:
        self.kind = kind
        self.object_id = object_id
        self.generation = generation
        self._settled = settled
        self._state = ""
        self._announced = threading.Event()
        if not settled:
            _listener.register(self)

    def announce(self, state: str) -> None:
        """Called by the listener; an empty state asks the waiter to look for itself."""
        self._state = state or self._state
        self._announced.set()

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return once the cluster has confirmed the write.

        Args:
            timeout_seconds: `TENANT_CR_APPEARANCE_TIMEOUT_MS` when None.

        Raises:
            ClusterRejectedError: refused for good; the write was taken back.
            ConflictError: the name is taken in the cluster, or the resource was deleted there.
            TimedOutError: not confirmed in time, or too many wait already; the write stays queued.
        """
        if self._settled:
            return
        if timeout_seconds is None:
            timeout_seconds = settings.TENANT_CR_APPEARANCE_TIMEOUT_MS / 1000
        if transaction.get_connection().in_atomic_block:
            raise RuntimeError("waiting inside a transaction would wait for what it has not committed")
        try:
            with waiting_slot() as taken:
                if not taken:
                    raise _timed_out("Too many requests are waiting for the cluster already.")
                self._wait_until(time.monotonic() + timeout_seconds)
        finally:
            _listener.forget(self)

    def _wait_until(self, deadline: float) -> None:
        _listener.ensure_running()
        while True:
            remaining = deadline - time.monotonic()
            if self._announced.wait(max(0.0, min(LOOK_SECONDS, remaining))):
                self._announced.clear()
            if self._state == Outcome.State.CONFIRMED or self._outcome():
                return
            if remaining <= 0:
                raise _timed_out("The cluster has not confirmed the change in time.")

    def _outcome(self) -> bool:
        """Look into the database; True when confirmed.

        A database that is away now tells nothing: the write is committed, so this is a 504 at worst, not a 503.
        """
        try:
            outcome = fetch_one(Outcome, "object_id = %s AND generation = %s", self.object_id, self.generation)
        except (OperationalError, InterfaceError) as exc:
            log.warning("could not look for the outcome of %s %s: %s", self.kind, self.object_id, exc)
            outcome = None
        finally:
            connection.close()
        if outcome is None:
            return False
        if outcome.state == Outcome.State.REJECTED:
            raise rejection(outcome)
        return True


def rejection(outcome: Outcome) -> DomainError:
    """The error that a refused write reads as."""
    error = ClusterRejectedError if outcome.code == ClusterRejectedError.code else ConflictError
    return error(outcome.message, detail=outcome.detail, code=outcome.code)


def _timed_out(message: str) -> TimedOutError:
    return TimedOutError(message, detail="The write is saved and queued; it will land when the cluster answers.")


def announcement(object_id: UUID, states: dict[int, str]) -> str:
    """The payload that tells how generations of an object ended. PostgreSQL takes less than 8,000 bytes."""
    told = {"object": str(object_id), "states": {str(key): value for key, value in list(states.items())[:200]}}
    return orjson.dumps(told).decode()


class _Listener:
    """The process's one LISTEN connection. Started by the first waiter, again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: dict[UUID, weakref.WeakSet[Write]] = {}

    def register(self, write: Write) -> None:
        # Weak, because a transaction that rolls back simply drops its write.
        with self._lock:
            self._waiting.setdefault(write.object_id, weakref.WeakSet()).add(write)
        self.ensure_running()

    def forget(self, write: Write) -> None:
        with self._lock:
            writes = self._waiting.get(write.object_id)
            if writes is not None:
                writes.discard(write)
            for object_id in [key for key, value in self._waiting.items() if not value]:
                del self._waiting[object_id]

    def ensure_running(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="sync-listener", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        delay = 0.1
        while True:
            try:
                self._listen()
                delay = 0.1
            except psycopg.Error as exc:
                log.warning("the sync listener lost its database connection: %s", exc)
                time.sleep(delay)
                delay = min(delay * 2, 5.0)

    def _listen(self) -> None:
        with own_connection() as listening:
            listening.execute(f"LISTEN {CHANNEL}")
            self._wake_all()
            for notification in listening.notifies():
                self._deliver(notification.payload)

    def _deliver(self, payload: str) -> None:
        try:
            told = orjson.loads(payload)
            object_id, states = UUID(told["object"]), told["states"]
        except (orjson.JSONDecodeError, KeyError, ValueError):
            self._wake_all()
            return
        with self._lock:
            writes = list(self._waiting.get(object_id, ()))
        for write in writes:
            state = states.get(str(write.generation))
            if state:
                write.announce(state)

    def _wake_all(self) -> None:
        """What was announced while nobody listened is lost: let everyone look."""
        with self._lock:
            writes = [write for group in self._waiting.values() for write in group]
        for write in writes:
            write.announce("")


def own_connection() -> psycopg.Connection[Any]:
    """A database connection outside Django's pool, in autocommit; for what lives longer than a request or a task."""
    parameters = connection.get_connection_params()
    parameters.pop("pool", None)
    known = {
        key: value
        for key, value in parameters.items()
        if key not in {"cursor_factory", "context", "prepare_threshold", "server_side_binding"}
    }
    return psycopg.connect(**known, autocommit=True)


_listener = _Listener()
