"""Watches: each has a bounded queue, so that a slow reader costs itself its connection and nobody else a moment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

import orjson

from devstack.cluster import errors
from devstack.cluster.kinds import Resource
from devstack.cluster.selectors import FieldSelector, LabelTest
from devstack.cluster.store import Entry, Event, Shelf

QUEUE_EVENTS = 10_000
QUEUE_BYTES = 32 * 1024 * 1024
BOOKMARK_SECONDS = 30.0
CHUNK_BYTES = 256 * 1024

Encoder = Callable[[Entry], bytes]


class Watcher:
    """The queue of one watch. `offer` runs within writes and must be quick and never fail."""

    def __init__(self, namespace: str | None, name: str | None) -> None:
        self._namespace = namespace
        self._name = name
        self.queue: deque[Event] = deque()
        self.bytes = 0
        self.overflowed = False
        self.stopped = False
        self._wake = asyncio.Event()

    def wants(self, event: Event) -> bool:
        entry = event.entry
        return self._namespace in (None, entry.namespace) and self._name in (None, entry.name)

    def offer(self, event: Event) -> None:
        if self.overflowed or not self.wants(event):
            return
        if len(self.queue) >= QUEUE_EVENTS or self.bytes > QUEUE_BYTES:
            self.overflowed = True
        else:
            self.queue.append(event)
            self.bytes += len(event.entry.raw)
        self._wake.set()

    def stop(self) -> None:
        self.stopped = True
        self._wake.set()

    async def wait(self, seconds: float) -> None:
        """Until there is something to send, or the time is up."""
        if not self.queue and not self.stopped and not self.overflowed:
            self._wake.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return

    def take(self) -> list[Event]:
        events = list(self.queue)
        self.queue.clear()
        self.bytes = 0
        return events


class Selection:
    """Which objects a list or a watch is about."""

    def __init__(self, labels: LabelTest | None, fields: FieldSelector | None) -> None:
        self.labels = labels
        self.fields = fields
        self._deep = fields is not None and bool(fields.other)

    @property
    def everything(self) -> bool:
        return self.labels is None and self.fields is None

    def holds(self, entry: Entry) -> bool:
        if self.fields is not None and not self.fields.matches_key(entry.namespace, entry.name):
            return False
        if self.labels is not None and not self.labels(entry.labels):
            return False
        return not self._deep or (self.fields is not None and self.fields.matches(entry.load()))


def encode(kind: str, body: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"


def _seen(event: Event, selection: Selection) -> tuple[str, Entry] | None:
    """The event as this selection sees it: an object that enters it is ADDED, one that leaves it DELETED."""
    if selection.everything:
        return event.type, event.entry
    before = event.before is not None and selection.holds(event.before)
    if event.type == "DELETED":
        return ("DELETED", event.entry) if before else None
    if selection.holds(event.entry):
        return ("MODIFIED" if before else "ADDED"), event.entry
    if not before or event.before is None:
        return None
    # As the selection last saw it, at the version of the change that took it out.
    last = event.before.load()
    last["metadata"]["resourceVersion"] = str(event.rv)
    return "DELETED", Entry(last, orjson.dumps(last), event.rv)


class Watch:
    """One watch request, from its first event to its end."""

    def __init__(
        self,
        resource: Resource,
        shelf: Shelf,
        namespace: str | None,
        selection: Selection,
        encoder: Encoder,
        now_rv: Callable[[], int],
    ) -> None:
        self._resource = resource
        self._shelf = shelf
        self._namespace = namespace
        self._selection = selection
        self._encoder = encoder
        self._now_rv = now_rv
        self.watcher = Watcher(namespace, selection.fields.name if selection.fields else None)
        self._first: list[bytes] = []

    def start(self, since: int | None, *, send_initial: bool, bookmark_initial: bool) -> None:
        """Take the starting point; from here on nothing is missed. Nothing is awaited, so it is one moment.

        Args:
            since: continue after this version; None for now.
            send_initial: begin with an ADDED event for each object there is.
            bookmark_initial: end those with a bookmark annotated `k8s.io/initial-events-end`.

        Raises:
            StatusError: 410 when `since` is further back than history goes, or has not been yet.
        """
        if since is not None and not send_initial:
            if since > self._now_rv():
                # Only after somebody threw the data away; told like this, every client lists again.
                raise errors.gone(f"too large resource version: {since}, current: {self._now_rv()}")
            if since < self._shelf.floor:
                raise errors.gone(f"too old resource version: {since} ({self._shelf.floor})")
            for event in self._shelf.since(since):
                if self.watcher.wants(event):
                    self._add(event)
        elif send_initial:
            for entry in self._shelf.slice(self._namespace, None):
                if self._selection.holds(entry):
                    self._first.append(encode("ADDED", self._encoder(entry)))
            if bookmark_initial:
                self._first.append(self._bookmark({"k8s.io/initial-events-end": "true"}))
        self._shelf.subscribers.add(self.watcher)

    def close(self) -> None:
        self._shelf.subscribers.discard(self.watcher)

    def _add(self, event: Event) -> None:
        seen = _seen(event, self._selection)
        if seen is not None:
            self._first.append(encode(seen[0], self._encoder(seen[1])))

    def _bookmark(self, annotations: dict[str, str] | None = None) -> bytes:
        metadata: dict[str, object] = {"resourceVersion": str(self._now_rv()), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        obj = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return encode("BOOKMARK", orjson.dumps(obj))

    async def chunks(self, timeout: float, *, bookmarks: bool) -> AsyncGenerator[bytes, None]:
        """What to send, in pieces, until the time is up or the reader was too slow."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        next_bookmark = loop.time() + BOOKMARK_SECONDS
        for start in range(0, len(self._first), 200):
            yield b"".join(self._first[start : start + 200])
        self._first = []
        while not self.watcher.stopped:
            now = loop.time()
            if now >= end:
                break
            await self.watcher.wait(min(end, next_bookmark if bookmarks else end) - now)
            pending: list[bytes] = []
            size = 0
            for event in self.watcher.take():
                seen = _seen(event, self._selection)
                if seen is None:
                    continue
                piece = encode(seen[0], self._encoder(seen[1]))
                pending.append(piece)
                size += len(piece)
                if size > CHUNK_BYTES:
                    yield b"".join(pending)
                    pending, size = [], 0
            if pending:
                yield b"".join(pending)
            if self.watcher.overflowed:
                return
            if bookmarks and loop.time() >= next_bookmark and not self.watcher.queue:
                yield self._bookmark()
                next_bookmark = loop.time() + BOOKMARK_SECONDS
        if bookmarks and not self.watcher.queue and not self.watcher.overflowed:
            yield self._bookmark()
