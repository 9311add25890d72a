"""The Celery application of workers and beat: logging context for tasks, and a heartbeat file for liveness probes."""

import os
import time
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, bootsteps, signals
from django.db import close_old_connections

from opencrane.memory import settle_memory

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opencrane.settings")

HEARTBEAT_SECONDS = 10.0

app = Celery("opencrane")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def _keep_logging(**_kwargs: Any) -> None:
    """Settings have set up logging; with a receiver here Celery leaves it alone."""


@signals.worker_process_init.connect
def _settle(**_kwargs: Any) -> None:
    settle_memory()


@signals.task_prerun.connect
def _bind_task(task_id: str, task: Any, **_kwargs: Any) -> None:
    if not task.request.is_eager:
        # In place of Celery's own habit of reconnecting for each task (see CELERY_DB_REUSE_MAX): only what is broken
        # or too old is closed.
        close_old_connections()
    structlog.contextvars.bind_contextvars(task_id=task_id, task=task.name)


@signals.task_postrun.connect
def _unbind_task(**_kwargs: Any) -> None:
    structlog.contextvars.unbind_contextvars("task_id", "task")


def touch_heartbeat() -> None:
    """Renew the file that OPENCRANE_HEARTBEAT_FILE names, if it names one; a probe looks at its age."""
    name = os.environ.get("OPENCRANE_HEARTBEAT_FILE", "")
    if name:
        Path(name).touch()


class HeartbeatStep(bootsteps.StartStopStep):
    """Touches the heartbeat file from the worker's event loop, so that a stuck loop shows."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        touch_heartbeat()
        self._entry = parent.timer.call_repeatedly(HEARTBEAT_SECONDS, touch_heartbeat)

    def stop(self, parent: Any) -> None:
        if self._entry is not None:
            self._entry.cancel()


app.steps["worker"].add(HeartbeatStep)


@signals.beat_init.connect
def _watch_beat(**_kwargs: Any) -> None:
    """Beat sends something every few seconds; each time it does, it is alive."""
    touch_heartbeat()
    last = 0.0

    def published(**_inner: Any) -> None:
        nonlocal last
        if time.monotonic() - last > HEARTBEAT_SECONDS:
            last = time.monotonic()
            touch_heartbeat()

    signals.after_task_publish.connect(published, weak=False)
