"""Timings of Celery tasks and figures about jobs, for Prometheus.

Workers have no port that could be scraped, and several of them would each tell a part. So each worker process adds up
what its tasks took and now and then adds that to a table, which the web process reads at a scrape.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any

import structlog
from celery import signals
from django.db import Error, connection
from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from opencrane.metrics import register_collector
from operations.models import Job, TaskTiming

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 10.0

_ADD = """
    INSERT INTO operations_tasktiming (task, outcome, runs, seconds) VALUES (%s, %s, %s, %s)
    ON CONFLICT (task, outcome) DO UPDATE SET runs = operations_tasktiming.runs + excluded.runs,
        seconds = operations_tasktiming.seconds + excluded.seconds
"""


class Timings:
    """What the tasks of this process took since it was last written down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str], list[float]] = {}
        self._flushed = time.monotonic()
        self._started: dict[str, float] = {}

    def begin(self, task_id: str) -> None:
        """A task starts."""
        self._started[task_id] = time.perf_counter()

    def end(self, task_id: str, task: str, outcome: str) -> None:
        """A task has ended; every ten seconds the sums are written."""
        started = self._started.pop(task_id, None)
        if started is None:
            return
        with self._lock:
            sums = self._sums.setdefault((task, outcome.lower()), [0, 0.0])
            sums[0] += 1
            sums[1] += time.perf_counter() - started
            is_due = time.monotonic() - self._flushed >= FLUSH_SECONDS
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Add the sums to the table; kept for the next time when the database is away."""
        with self._lock:
            sums, self._sums = self._sums, {}
            self._flushed = time.monotonic()
        try:
            with connection.cursor() as cursor:
                # Sorted, so that two workers take the rows' locks in the same order.
                cursor.executemany(_ADD, [(*key, *values) for key, values in sorted(sums.items())])
        except Error:
            log.debug("timings kept for later")
            with self._lock:
                for key, (runs, seconds) in sums.items():
                    kept = self._sums.setdefault(key, [0, 0.0])
                    kept[0] += runs
                    kept[1] += seconds


timings = Timings()


@signals.task_prerun.connect
def _begin(task_id: str, task: Any, **_kwargs: Any) -> None:
    if not task.request.is_eager:
        timings.begin(task_id)


@signals.task_postrun.connect
def _end(task_id: str, task: Any, state: str | None = None, **_kwargs: Any) -> None:
    timings.end(task_id, task.name, state or "unknown")


@signals.worker_process_shutdown.connect
def _leave(**_kwargs: Any) -> None:
    timings.flush()


@register_collector("tasks")
def task_metrics() -> Iterable[Metric]:
    """Runs and seconds by task and outcome."""
    runs = CounterMetricFamily("opencrane_task_runs", "Celery tasks that have ended.", labels=["task", "outcome"])
    seconds = CounterMetricFamily("opencrane_task_seconds", "Time they took in all.", labels=["task", "outcome"])
    for row in TaskTiming.objects.all():
        runs.add_metric([row.task, row.outcome], row.runs)
        seconds.add_metric([row.task, row.outcome], row.seconds)
    yield from (runs, seconds)


@register_collector("jobs")
def job_metrics() -> Iterable[Metric]:
    """Jobs that have not ended, and since when the oldest of them waits or runs."""
    found = Job.objects.filter(status__in=Job.ACTIVE).values("status").order_by("status")
    counts = {row["status"]: row for row in found.annotate(count=Count("pk"), oldest=Min("created_at"))}
    active = GaugeMetricFamily("opencrane_jobs_active", "Jobs that have not ended.", labels=["status"])
    age = GaugeMetricFamily("opencrane_jobs_oldest_seconds", "Age of the oldest of them.", labels=["status"])
    for status in Job.ACTIVE:
        row = counts.get(status)
        active.add_metric([status], row["count"] if row else 0)
        age.add_metric([status], (timezone.now() - row["oldest"]).total_seconds() if row else 0)
    yield from (active, age)
