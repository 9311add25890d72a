"""All objects: in memory as serialised JSON for speed, in SQLite so that no acknowledged write is ever lost.

A write is committed to SQLite before memory changes and before anybody hears of it. Everything here runs on the event
loop's thread without awaiting, which is what makes each operation atomic.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson

HISTORY_EVENTS = 20_000
HISTORY_BYTES = 64 * 1024 * 1024
MAX_SNAPSHOTS = 4

Key = tuple[str, str]


class Entry:
    """One object in one version. Never changed: a write makes a new one."""

    __slots__ = ("labels", "name", "namespace", "owners", "raw", "rv", "uid")

    def __init__(self, obj: dict[str, Any], raw: bytes, rv: int) -> None:
        metadata = obj["metadata"]
        self.namespace: str = metadata.get("namespace") or ""
        self.name: str = metadata["name"]
        self.uid: str = metadata.get("uid", "")
        self.rv = rv
        self.raw = raw
        self.labels: dict[str, str] = metadata.get("labels") or _NO_LABELS
        owners = metadata.get("ownerReferences")
        self.owners: tuple[str, ...] = tuple(o.get("uid", "") for o in owners) if owners else ()

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    def load(self) -> dict[str, Any]:
        """A fresh copy that the caller may change."""
        obj: dict[str, Any] = orjson.loads(self.raw)
        return obj


_NO_LABELS: dict[str, str] = {}


class Event:
    """One change: `before` is None for ADDED; of DELETED, `entry` is the last state at the version of the deletion."""

    __slots__ = ("before", "entry", "rv", "type")

    def __init__(self, type_: str, rv: int, entry: Entry, before: Entry | None) -> None:
        self.type = type_
        self.rv = rv
        self.entry = entry
        self.before = before


class Subscriber(Protocol):
    def offer(self, event: Event) -> None: ...


class Shelf:
    """The objects of one resource, their order, their recent history and who watches."""

    __slots__ = ("_limit", "_snapshots", "entries", "floor", "history", "history_bytes", "keys", "subscribers")

    def __init__(self, floor: int, limit: int) -> None:
        self._limit = limit
        self.entries: dict[Key, Entry] = {}
        self.keys: list[Key] = []
        self.history: deque[Event] = deque()
        self.history_bytes = 0
        # Changes up to and including this version are forgotten.
        self.floor = floor
        self._snapshots: dict[int, tuple[list[Key], list[Entry]]] = {}
        self.subscribers: set[Subscriber] = set()

    def remember(self, event: Event) -> None:
        self.history.append(event)
        self.history_bytes += len(event.entry.raw)
        while len(self.history) > self._limit or self.history_bytes > HISTORY_BYTES:
            oldest = self.history.popleft()
            self.history_bytes -= len(oldest.entry.raw)
            self.floor = oldest.rv

    def since(self, rv: int) -> list[Event]:
        """Events after `rv`, oldest first; the caller has compared `rv` with `floor`."""
        found: list[Event] = []
        for event in reversed(self.history):
            if event.rv <= rv:
                break
            found.append(event)
        found.reverse()
        return found

    def slice(self, namespace: str | None, after: Key | None) -> Iterator[Entry]:
        """Entries in order, of one namespace or of all, after a key."""
        keys = self.keys
        start = bisect_right(keys, after) if after else bisect_left(keys, (namespace, "")) if namespace else 0
        entries = self.entries
        for index in range(start, len(keys)):
            key = keys[index]
            if namespace and key[0] != namespace:
                break
            yield entries[key]

    def slice_at(self, rv: int, namespace: str | None, after: Key | None) -> Iterator[Entry]:
        """As `slice`, of the state as it was at `rv`, which must not be below `floor`."""
        snapshot = self._snapshots.get(rv)
        if snapshot is None:
            then: dict[Key, Entry | None] = {}
            for event in self.since(rv):
                then.setdefault(event.entry.key, event.before)
            if not then:
                yield from self.slice(namespace, after)
                return
            merged: dict[Key, Entry | None] = {**self.entries, **then}
            keys = sorted(key for key, entry in merged.items() if entry is not None)
            snapshot = keys, [entry for key in keys if (entry := merged[key]) is not None]
            # Pages of one list follow each other closely; a few lists at once are plenty.
            while len(self._snapshots) >= MAX_SNAPSHOTS:
                del self._snapshots[next(iter(self._snapshots))]
            self._snapshots[rv] = snapshot
        keys, entries = snapshot
        start = bisect_right(keys, after) if after else bisect_left(keys, (namespace, "")) if namespace else 0
        for index in range(start, len(keys)):
            if namespace and keys[index][0] != namespace:
                break
            yield entries[index]


class Store:
    """The shelves and the file behind them."""

    def __init__(self, path: Path, history: int = HISTORY_EVENTS) -> None:
        """Load everything. `history` is how many changes of each kind a watch can go back."""
        self._history = history
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing with NORMAL; a power cut might, which is fine for a stand-in.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint=4000")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS objects (storage TEXT, namespace TEXT, name TEXT, body BLOB,"
            " PRIMARY KEY (storage, namespace, name))"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), rv INTEGER)")
        self._db.execute("INSERT OR IGNORE INTO counter VALUES (1, 0)")
        self.rv: int = self._db.execute("SELECT rv FROM counter").fetchone()[0]
        self._start_rv = self.rv
        self._shelves: dict[str, Shelf] = {}
        self._dependents: dict[str, set[tuple[str, Key]]] = {}
        self._uids: dict[str, tuple[str, Key]] = {}
        self.listeners: list[Callable[[str, Event], None]] = []
        for storage, body in self._db.execute("SELECT storage, body FROM objects ORDER BY storage, namespace, name"):
            obj = orjson.loads(body)
            entry = Entry(obj, body, int(obj["metadata"]["resourceVersion"]))
            shelf = self.shelf(storage)
            shelf.entries[entry.key] = entry
            shelf.keys.append(entry.key)
            self._index(storage, entry)
        for shelf in self._shelves.values():
            # SQLite's order of texts and Python's agree on ASCII only; names are ASCII, but do not rely on it.
            shelf.keys.sort()

    def close(self) -> None:
        self._db.close()

    def shelf(self, storage: str) -> Shelf:
        shelf = self._shelves.get(storage)
        if shelf is None:
            shelf = self._shelves[storage] = Shelf(self._start_rv, self._history)
        return shelf

    def storages(self) -> list[str]:
        return list(self._shelves)

    def get(self, storage: str, namespace: str, name: str) -> Entry | None:
        return self.shelf(storage).entries.get((namespace, name))

    def by_uid(self, uid: str) -> tuple[str, Key] | None:
        return self._uids.get(uid)

    def dependents(self, uid: str) -> list[tuple[str, Key]]:
        """Objects that name `uid` among their owners."""
        return list(self._dependents.get(uid, ()))

    def owner_uids(self) -> list[str]:
        return list(self._dependents)

    def put(self, storage: str, obj: dict[str, Any]) -> Entry:
        """Store a new state of an object and tell the watchers. Sets `metadata.resourceVersion` in `obj`."""
        rv = self.rv + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        raw = orjson.dumps(obj)
        entry = Entry(obj, raw, rv)
        with self._transaction(rv):
            self._db.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (storage, entry.namespace, entry.name, raw)
            )
        self.rv = rv
        shelf = self.shelf(storage)
        before = shelf.entries.get(entry.key)
        shelf.entries[entry.key] = entry
        if before is None:
            insort(shelf.keys, entry.key)
        else:
            self._unindex(storage, before)
        self._index(storage, entry)
        self._publish(storage, shelf, Event("MODIFIED" if before else "ADDED", rv, entry, before))
        return entry

    def remove(self, storage: str, namespace: str, name: str) -> Entry:
        """Drop an object and tell the watchers; returns its last state at the version of the deletion."""
        shelf = self.shelf(storage)
        before = shelf.entries[namespace, name]
        rv = self.rv + 1
        obj = before.load()
        obj["metadata"]["resourceVersion"] = str(rv)
        with self._transaction(rv):
            self._db.execute(
                "DELETE FROM objects WHERE storage = ? AND namespace = ? AND name = ?", (storage, namespace, name)
            )
        self.rv = rv
        last = Entry(obj, orjson.dumps(obj), rv)
        del shelf.entries[before.key]
        del shelf.keys[bisect_left(shelf.keys, before.key)]
        self._unindex(storage, before)
        self._publish(storage, shelf, Event("DELETED", rv, last, before))
        return last

    def _transaction(self, rv: int) -> _Transaction:
        return _Transaction(self._db, rv)

    def _publish(self, storage: str, shelf: Shelf, event: Event) -> None:
        shelf.remember(event)
        for subscriber in list(shelf.subscribers):
            subscriber.offer(event)
        for listener in self.listeners:
            listener(storage, event)

    def _index(self, storage: str, entry: Entry) -> None:
        self._uids[entry.uid] = (storage, entry.key)
        for owner in entry.owners:
            self._dependents.setdefault(owner, set()).add((storage, entry.key))

    def _unindex(self, storage: str, entry: Entry) -> None:
        self._uids.pop(entry.uid, None)
        for owner in entry.owners:
            found = self._dependents.get(owner)
            if found is not None:
                found.discard((storage, entry.key))
                if not found:
                    del self._dependents[owner]


class _Transaction:
    """One write and the raised counter, together or not at all."""

    __slots__ = ("_db", "_rv")

    def __init__(self, db: sqlite3.Connection, rv: int) -> None:
        self._db = db
        self._rv = rv

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if kind is not None:
            self._db.execute("ROLLBACK")
            return
        try:
            self._db.execute("UPDATE counter SET rv = ?", (self._rv,))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
