"""Send Celery tasks from services without letting the broker into the request's fate.

PostgreSQL holds what has to be done and sweeps find what lags, so a message is only the fast path: when the broker is
away or hangs, the request goes on at full speed and the sweep does the work a few seconds later.
"""

import functools
import threading
import time
from typing import Any

import kombu.exceptions
import structlog
from celery import current_app
from django.db import transaction
from kombu import pools

log = structlog.get_logger(__name__)

# After a failure nobody tries for this long, so that a hung broker costs one request in a while, not each of them.
PAUSE_SECONDS = 2.0
SOCKET_TIMEOUT_SECONDS = 0.5


class _Breaker:
    """Whether the broker is worth a try; shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_at = 0.0

    def allows(self) -> bool:
        return time.monotonic() >= self._closed_at

    def trip(self) -> None:
        with self._lock:
            self._closed_at = time.monotonic() + PAUSE_SECONDS

    def reset(self) -> None:
        with self._lock:
            self._closed_at = 0.0


_breaker = _Breaker()


@functools.cache
def _producers() -> Any:
    """A pool of producers whose sockets give up sooner than a worker's, which waits for messages on them."""
    connection = current_app.connection_for_write(transport_options=impatient_options(SOCKET_TIMEOUT_SECONDS))
    return pools.producers[connection]


def impatient_options(timeout_seconds: float) -> dict[str, Any]:
    """Transport options for a broker connection that fails instead of trying again for seconds, as kombu's do."""
    return dict(current_app.conf.broker_transport_options) | {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "connect_retries_timeout": timeout_seconds,
    }


_loading = threading.Lock()
_loaded = False


def load_tasks() -> None:
    """Import every task, once per process; whoever comes while that is under way waits for it."""
    global _loaded  # noqa: PLW0603
    if _loaded:
        return
    with _loading:
        if not _loaded:
            current_app.loader.import_default_modules()
            _loaded = True


def _send(task_name: str, args: tuple[str, ...], countdown: float | None) -> None:
    load_tasks()
    task = current_app.tasks[task_name]
    if current_app.conf.task_always_eager:
        task.apply_async(args=args)
        return
    if not _breaker.allows():
        log.debug("broker skipped", task=task_name, task_args=args)
        return
    delay: dict[str, Any] = {} if countdown is None else {"countdown": countdown}
    try:
        with _producers().acquire(block=True, timeout=SOCKET_TIMEOUT_SECONDS) as producer:
            task.apply_async(args=args, producer=producer, retry=False, **delay)
    except (kombu.exceptions.OperationalError, kombu.exceptions.LimitExceeded, OSError) as exc:
        _breaker.trip()
        log.warning("broker away, the sweep will find the work", task=task_name, task_args=args, error=str(exc))


def enqueue_on_commit(task_name: str, *args: str, countdown: float | None = None) -> None:
    """Send a task once the current transaction has committed; without a transaction, at once.

    By name, so that services need not import tasks. Only for work that a periodic sweep would find again: a broker
    that is away or hangs is logged, never raised and never waited for.

    Args:
        task_name: the task's registered name; an unknown one is a programming error and is logged as such.
        args: positional arguments; ids as text.
        countdown: seconds to wait before a worker may take it.
    """

    # A plain function on purpose: with robust=True Django 5.2 logs func.__qualname__, which a partial lacks.
    def enqueue() -> None:
        _send(task_name, args, countdown)

    # In eager mode the task runs right here, and a test has to see it fail.
    transaction.on_commit(enqueue, robust=not current_app.conf.task_always_eager)
