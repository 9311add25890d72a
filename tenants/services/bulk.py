"""The same thing done to many tenants, as a job: `tenants.bulk`."""

import datetime
from collections.abc import Callable
from typing import Any, Final

from django.utils import timezone

from cluster.wait import Write
from opencrane.actor import Actor
from opencrane.errors import DomainError, InvalidError, NotFoundError, TimedOutError
from operations import jobs
from operations.jobs import JobRun
from operations.models import Job, JobItem
from operations.services.jobs import start_job
from tenants.models import Tenant
from tenants.services import lifecycle

KIND: Final = "tenants.bulk"
MAX_TENANTS = 2_000
# Writes are committed in batches and then waited for together: the cluster takes many at once.
BATCH = 50
BATCH_WAIT_SECONDS = 30.0

# action -> what the result of one tenant is called
ACTIONS: Final = {"suspend": "suspended", "resume": "resumed", "sync": "applied", "delete": "deleted"}


def start_bulk(*, action: str, names: list[str], reason: str = "", actor: Actor) -> Job:
    """Start a job that does one thing to the named tenants.

    A tenant made after this moment is left alone, even if it has the name of one that was chosen.

    Args:
        action: a key of ACTIONS.
        names: 1 to MAX_TENANTS.
        reason: goes into each tenant's audit entry.

    Raises:
        InvalidError: an unknown action, no names, or too many.
    """
    chosen = sorted(set(names))
    if action not in ACTIONS:
        raise InvalidError(fields={"action": [f"Has to be one of {', '.join(ACTIONS)}."]})
    if not 1 <= len(chosen) <= MAX_TENANTS:
        raise InvalidError(fields={"names": [f"Has to be 1 to {MAX_TENANTS:,} tenants."]})
    params = {"action": action, "names": chosen, "reason": reason[:500], "chosenAt": timezone.now().isoformat()}
    return start_job(kind=KIND, params=params, actor=actor)


@jobs.register(KIND)
def run_bulk(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """The runner. Starting over repeats nothing: each action is idempotent, and what is gone is skipped."""
    names: list[str] = [name for name in params["names"] if job.only_keys is None or name in job.only_keys]
    write = _writer(params["action"], params.get("reason", ""), actor)
    chosen_at = datetime.datetime.fromisoformat(params["chosenAt"])
    counts: dict[str, int] = {}
    done = 0
    job.progress(0, len(names))
    for start in range(0, len(names), BATCH):
        job.checkpoint()
        batch = names[start : start + BATCH]
        strangers = set(Tenant.objects.filter(name__in=batch, created_at__gt=chosen_at).values_list("name", flat=True))
        begun = {name: None if name in strangers else _begin(write, name) for name in batch}
        deadline = timezone.now() + datetime.timedelta(seconds=BATCH_WAIT_SECONDS)
        for name, started in begun.items():
            outcome, message = _end(params["action"], started, deadline)
            job.item(name, outcome, message)
            counts[outcome] = counts.get(outcome, 0) + 1
            done += 1
            job.progress(done, len(names))
    return {"action": params["action"], "counts": counts}


def _writer(action: str, reason: str, actor: Actor) -> Callable[[str], Write]:
    match action:
        case "suspend":
            return lambda name: lifecycle.suspend_tenant(name=name, reason=reason, actor=actor)
        case "resume":
            return lambda name: lifecycle.resume_tenant(name=name, reason=reason, actor=actor)
        case "delete":
            return lambda name: lifecycle.delete_tenant(name=name, reason=reason, actor=actor)
    return lambda name: lifecycle.resync_tenant(name=name, actor=actor)


def _begin(write: Callable[[str], Write], name: str) -> Write | DomainError:
    try:
        return write(name)
    except DomainError as exc:
        return exc


def _end(action: str, started: Write | DomainError | None, deadline: datetime.datetime) -> tuple[str, str]:
    """What became of one tenant: an outcome and a sentence."""
    if started is None:
        return JobItem.Outcome.SKIPPED, "A tenant of this name was made after the selection; it was left alone."
    if isinstance(started, NotFoundError):
        return JobItem.Outcome.SKIPPED, "There is no such tenant any more."
    if isinstance(started, DomainError):
        return JobItem.Outcome.FAILED, " ".join(filter(None, [started.message, started.detail]))
    try:
        started.wait(max(0.0, (deadline - timezone.now()).total_seconds()))
    except TimedOutError:
        return "queued", "Saved and queued; the cluster has not confirmed it yet."
    except DomainError as exc:
        return JobItem.Outcome.FAILED, " ".join(filter(None, [exc.message, exc.detail]))
    return ACTIONS[action], ""
