"""Kinds of jobs, and what a runner gets to report its progress with.

A domain app registers its runners from a module that its `tasks.py` imports, so that workers know them:

    @jobs.register("tenants.repair")
    def run(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]: ...
"""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from opencrane.actor import Actor
from opencrane.masking import mask, mask_text
from operations.errors import JobCancelledError, JobLostError
from operations.models import Job, JobItem

Runner = Callable[["JobRun", dict[str, Any], Actor], dict[str, Any]]

HEARTBEAT_SECONDS = 5.0
WRITE_SECONDS = 0.5
ITEMS_PER_WRITE = 200

_runners: dict[str, Runner] = {}


def register(kind: str) -> Callable[[Runner], Runner]:
    """Make a function the runner of jobs of `kind`.

    The runner returns the job's result as a JSON object. It may be started again from the beginning after its worker
    was killed, and has to end in the same state. Any DomainError it raises fails the job with that sentence.
    """

    def decorate(runner: Runner) -> Runner:
        if kind in _runners and _runners[kind].__qualname__ != runner.__qualname__:
            raise ValueError(f"Two runners for jobs of kind {kind}")
        _runners[kind] = runner
        return runner

    return decorate


def runner_for(kind: str) -> Runner | None:
    """The registered runner, or None when this process does not know the kind."""
    return _runners.get(kind)


class JobRun:
    """A running job as its runner sees it.

    Writes are throttled, so that reporting each of 100,000 steps is cheap. A thread keeps the heartbeat fresh while a
    single step takes long. Not to be shared between threads.

    Attributes:
        id: the job's primary key.
        only_keys: when this retries another job, the keys of the items that failed there; else None, for all.
    """

    def __init__(self, *, job: Job, lease: UUID, only_keys: frozenset[str] | None) -> None:
        self.id = job.pk
        self.only_keys = only_keys
        self._lease = lease
        self._done = 0
        self._total: int | None = None
        self._items: dict[str, JobItem] = {}
        self._cancelled = False
        self._last_write = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def progress(self, done: int, total: int | None) -> None:
        """Say how far the job is; `total` may be None while it is not known."""
        self._done, self._total = done, total
        self._write_sometimes()

    def item(self, key: str, outcome: str, message: str = "", detail: Any = None) -> None:
        """Note what became of one thing. The same key again replaces what was noted before.

        Args:
            key: what it is, unique within the job, for example a tenant's name.
            outcome: a word of at most 40 characters: `failed`, `skipped`, or what was done (`updated`).
            message: a sentence for people.
            detail: JSON value with more.
        """
        self._items[key] = JobItem(
            job_id=self.id,
            key=key,
            outcome=outcome[:40],
            message=mask_text(message),
            detail=None if detail is None else mask(detail),
        )
        if len(self._items) >= ITEMS_PER_WRITE:
            self.flush()
        else:
            self._write_sometimes()

    def cancelled(self) -> bool:
        """Whether someone asked for the job to stop; at most half a second old."""
        self._write_sometimes()
        return self._cancelled

    def checkpoint(self) -> None:
        """Stop here if someone asked for it.

        Raises:
            JobCancelledError: someone did. Let it through.
            JobLostError: another worker has taken over, because this one seemed dead. Let it through.
        """
        if self.cancelled():
            raise JobCancelledError

    def flush(self) -> None:
        """Write everything reported so far.

        Raises:
            JobLostError: another worker has taken over; nothing was written.
        """
        self._last_write = time.monotonic()
        with transaction.atomic():
            row = (
                Job.objects.select_for_update()
                .filter(pk=self.id, lease=self._lease, status=Job.Status.RUNNING)
                .values_list("cancel_requested", flat=True)
                .first()
            )
            if row is None:
                raise JobLostError
            Job.objects.filter(pk=self.id).update(done=self._done, total=self._total, heartbeat_at=Now())
            if self._items:
                JobItem.objects.bulk_create(
                    self._items.values(),
                    update_conflicts=True,
                    unique_fields=["job", "key"],
                    update_fields=["outcome", "message", "detail"],
                )
        self._items.clear()
        self._cancelled = row

    def _write_sometimes(self) -> None:
        if time.monotonic() - self._last_write >= WRITE_SECONDS:
            self.flush()

    def __enter__(self) -> "JobRun":
        self._thread = threading.Thread(target=self._beat, name=f"job-{self.id}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=HEARTBEAT_SECONDS)

    def _beat(self) -> None:
        from django.db import Error

        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                Job.objects.filter(pk=self.id, lease=self._lease).update(heartbeat_at=Now())
            except Error:
                # The runner itself will notice a database that is away; this thread only tries again.
                pass
            finally:
                connection.close()


def failed_keys(job_id: UUID) -> frozenset[str]:
    """The keys of a job's items that failed."""
    items = JobItem.objects.filter(Q(job_id=job_id), outcome=JobItem.Outcome.FAILED)
    return frozenset(items.values_list("key", flat=True))
