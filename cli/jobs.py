"""Work that outlasts a request: follow a job to its end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cli.errors import CliError, Exit
from cli.output import Output
from cli.session import Session

ENDED = ("succeeded", "failed", "cancelled")
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0


@contextmanager
def progress(out: Output, what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """A progress bar on standard error while that is a terminal, else a line at the start."""
    if not out.stderr.isatty():
        out.note(what)
        yield lambda done, total, status: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=out.stderr, no_color=not out.is_coloured, highlight=False, emoji=False, markup=False)
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, status: bar.update(task, completed=done, total=total, description=f"{what}: {status}")


def follow(session: Session, job_id: str, *, what: str = "") -> Any:
    """Wait for a job's end; returns the job as it is then.

    Raises:
        CliError: it failed or was cancelled.
    """
    from cli.client import path

    pause = FIRST_PAUSE
    where = path("/jobs/{id}", id=job_id)
    try:
        with progress(session.out, what or f"job {job_id}") as show:
            # One item is enough to know how far it is.
            while (job := session.client.get(where, {"limit": 1}).data)["status"] not in ENDED:
                show(job["done"], job["total"], job["status"])
                time.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)
    except KeyboardInterrupt:
        session.out.note(
            f"The job goes on; opencrane jobs watch {job_id} looks on, opencrane jobs cancel {job_id} ends it."
        )
        raise
    if job["status"] != "succeeded":
        raise CliError(
            f"job {job_id} {'was cancelled' if job['status'] == 'cancelled' else 'failed'}",
            detail=str(job["error"] or ""),
            status=Exit.FAILURE,
            hint=f"opencrane jobs get {job_id}; opencrane jobs retry {job_id} tries again what failed",
        )
    return job


def result(session: Session, answer: Any, *, wait: bool, what: str) -> Any | None:
    """What an operation came to that may go on as a job: its answer, or that job's result.

    Returns:
        None when it goes on and nobody wants to wait; the job's id has been printed then.
    """
    if answer.status != 202:
        return answer.data
    job_id = answer.data.get("jobId") or answer.data["id"]
    if not wait:
        started(session, job_id, answer.data)
        return None
    return follow(session, job_id, what=what)["result"]


def started(session: Session, job_id: str, answer: Any) -> None:
    """Tell that a job has been started: its id is the result."""
    session.out.thing(answer, job_id, lambda out, _: out.line(job_id))
    if session.out.is_for_people:
        session.out.note(f"opencrane jobs watch {job_id}")
