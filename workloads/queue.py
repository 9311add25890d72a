"""A work queue of names: each at most once in it and never worked on twice at a time, with a backoff for each.

As client-go's work queue, and with priorities: https://pkg.go.dev/k8s.io/client-go/util/workqueue
"""

import heapq
import itertools
import random
import threading
import time
from enum import IntEnum

FIRST_DELAY = 0.5
MAX_DELAY = 60.0


class Priority(IntEnum):
    """Lower goes first."""

    URGENT = 0  # somebody waits, or something has to stop: deletions and suspensions
    CHANGE = 1
    ROUTINE = 2  # start-up and changes that concern everybody


class WorkQueue:
    """Safe to use from any number of threads."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._ready: list[tuple[int, int, str]] = []
        self._delayed: list[tuple[float, int, str, int]] = []
        # When each name that is put off is due; entries of other times are out of date.
        self._due: dict[str, float] = {}
        # Names that wait, and how urgent the most urgent request was.
        self._waiting: dict[str, int] = {}
        self._at_work: set[str] = set()
        self._again: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._numbers = itertools.count()
        self._stopped = False

    def __len__(self) -> int:
        with self._condition:
            return len(self._waiting) + len(self._again)

    def add(self, name: str, priority: Priority = Priority.CHANGE) -> None:
        """Have `name` worked on; while it is being worked on, once more afterwards."""
        with self._condition:
            self._add(name, priority)

    def _add(self, name: str, priority: int) -> None:
        if name in self._at_work:
            self._again[name] = min(priority, self._again.get(name, priority))
            return
        known = self._waiting.get(name)
        if known is not None and known <= priority:
            return
        self._waiting[name] = priority
        heapq.heappush(self._ready, (priority, next(self._numbers), name))
        self._condition.notify()

    def add_after(self, name: str, seconds: float, priority: Priority = Priority.CHANGE) -> None:
        """As `add`, some time from now. A name that is put off already comes at the earlier time, and once."""
        with self._condition:
            due = time.monotonic() + seconds
            if self._due.get(name, due) < due:
                return
            self._due[name] = due
            heapq.heappush(self._delayed, (due, next(self._numbers), name, priority))
            self._condition.notify()

    def retry(self, name: str, priority: Priority = Priority.CHANGE, *, least: float = 0.0) -> float:
        """Have a name that failed worked on again, later each time; returns in how many seconds."""
        with self._condition:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
        delay = min(MAX_DELAY, FIRST_DELAY * 2 ** min(failures - 1, 10)) * random.uniform(0.7, 1.0)  # noqa: S311
        delay = max(delay, least)
        self.add_after(name, delay, priority)
        return delay

    def succeeded(self, name: str) -> None:
        """The next failure starts with a short delay again."""
        with self._condition:
            self._failures.pop(name, None)

    def get(self) -> str | None:
        """The next name, waited for; None when the queue is stopped. `done` has to follow."""
        with self._condition:
            while not self._stopped:
                wait = self._release_due()
                while self._ready:
                    priority, _, name = heapq.heappop(self._ready)
                    # A name that was asked for more urgently has an entry that is out of date.
                    if self._waiting.get(name) == priority:
                        del self._waiting[name]
                        self._at_work.add(name)
                        return name
                self._condition.wait(wait)
            return None

    def _release_due(self) -> float | None:
        """Move what is due to the ready ones; returns the seconds until the next is."""
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, name, priority = heapq.heappop(self._delayed)
            if self._due.get(name) == due:
                del self._due[name]
                self._add(name, priority)
        return self._delayed[0][0] - now if self._delayed else None

    def done(self, name: str) -> None:
        """The work on a name has ended; a request that came meanwhile takes its turn."""
        with self._condition:
            self._at_work.discard(name)
            priority = self._again.pop(name, None)
            if priority is not None:
                self._add(name, priority)

    def is_idle(self) -> bool:
        """Nothing waits and nothing is being worked on; what is put off does not count."""
        with self._condition:
            return not self._waiting and not self._at_work and not self._again

    def stop(self) -> None:
        """Let every `get` return None."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
