"""The same thing done to many objects of one kind, as a job. Each app says what can be done to its own.

TENANTS = BulkKind(job="tenants.bulk", noun="tenant", model=Tenant, actions={"suspend": BulkAction(...)})
bulk.register(TENANTS)          # in a module that the app's tasks.py imports
"""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import F, Model, QuerySet
from django.db.models.expressions import Combinable
from django.utils import timezone

from cluster.wait import Write
from opencrane.actor import Actor
from opencrane.errors import DomainError, InvalidError, NotFoundError, TimedOutError
from operations import jobs
from operations.jobs import JobRun
from operations.models import Job, JobItem
from operations.services.jobs import start_job

MAX_OBJECTS: Final = 2_000
# Writes are committed in batches and then waited for together: the cluster takes many at once.
BATCH = 50
BATCH_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class BulkAction:
    """One thing that can be done to many objects.

    Attributes:
        label, icon: of the button.
        future: completes “… will be”.
        done: what the result of one object is called.
        run: does it to the object of that name, for a reason (may be empty), by an actor. Repeating it does no harm.
            Returns the write to wait for, or None when it is done at once.
        warning: what people should know before they confirm.
        is_grave: the number of objects has to be typed.
        takes_reason: whether the reason goes anywhere.
    """

    label: str
    icon: str
    future: str
    done: str
    run: Callable[[str, str, Actor], Write | None]
    warning: str = ""
    is_grave: bool = False
    takes_reason: bool = False


def deletion(run: Callable[[str, str, Actor], Write | None], warning: str, *, takes_reason: bool = False) -> BulkAction:
    """The action that deletes objects: always a grave one."""
    return BulkAction(
        label="Delete",
        icon="delete",
        future="deleted",
        done="deleted",
        warning=warning,
        is_grave=True,
        takes_reason=takes_reason,
        run=run,
    )


_BY_NAME: Final = F("name")


@dataclass(frozen=True)
class BulkKind:
    """Objects that things can be done to in bulk; `model` has `created_at`.

    Attributes:
        job: the kind of its jobs.
        noun: `tenant`, or `policy,policies`.
        name: what people call one, as an expression over `model` that no two share.
    """

    job: str
    noun: str
    model: type[Model]
    actions: Mapping[str, BulkAction]
    name: Combinable = _BY_NAME

    def named(self, names: list[str]) -> QuerySet[Any]:
        """Those of the objects that there are, in no order; `bulk_name` is what each is called."""
        return self.model._default_manager.order_by().annotate(bulk_name=self.name).filter(bulk_name__in=names)

    def names(self, count: int) -> str:
        """`1 tenant`, `2 tenants`."""
        one, _, many = self.noun.partition(",")
        return f"{count:,} {one if count == 1 else many or one + 's'}"

    @property
    def plural(self) -> str:
        one, _, many = self.noun.partition(",")
        return many or one + "s"


def register(kind: BulkKind) -> None:
    """Make workers able to run the jobs of a kind."""

    @jobs.register(kind.job)
    def run(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
        return run_bulk(kind, job, params, actor)


def start_bulk(kind: BulkKind, *, action: str, names: list[str], reason: str = "", actor: Actor) -> Job:
    """Start a job that does one thing to the named objects.

    An object made after this moment is left alone, even if it has the name of one that was chosen.

    Args:
        action: a key of the kind's actions.
        names: 1 to MAX_OBJECTS.
        reason: goes into each object's audit entry, where the action takes one.

    Raises:
        InvalidError: an unknown action, no names, or too many.
    """
    chosen = sorted(set(names))
    if action not in kind.actions:
        raise InvalidError(fields={"action": [f"Has to be one of {', '.join(kind.actions)}."]})
    if not 1 <= len(chosen) <= MAX_OBJECTS:
        raise InvalidError(fields={"names": [f"Has to be 1 to {MAX_OBJECTS:,} {kind.plural}."]})
    params = {"action": action, "names": chosen, "reason": reason[:500], "chosenAt": timezone.now().isoformat()}
    return start_job(kind=kind.job, params=params, actor=actor)


def run_bulk(kind: BulkKind, job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """The runner. Starting over repeats nothing: each action is idempotent, and what is gone is skipped."""
    action = kind.actions[params["action"]]
    names: list[str] = [name for name in params["names"] if job.only_keys is None or name in job.only_keys]
    reason = params.get("reason", "")
    chosen_at = datetime.datetime.fromisoformat(params["chosenAt"])
    counts: dict[str, int] = {}
    done = 0
    job.progress(0, len(names))
    for start in range(0, len(names), BATCH):
        job.checkpoint()
        batch = names[start : start + BATCH]
        strangers = set(kind.named(batch).filter(created_at__gt=chosen_at).values_list("bulk_name", flat=True))
        deadline = timezone.now() + datetime.timedelta(seconds=BATCH_WAIT_SECONDS)
        begun = [(name, _begin(action, name, reason, actor)) for name in batch if name not in strangers]
        outcomes = [(name, *_end(action, started, deadline)) for name, started in begun]
        outcomes += [(name, JobItem.Outcome.SKIPPED.value, _STRANGER) for name in sorted(strangers)]
        for name, outcome, message in outcomes:
            job.item(name, outcome, message)
            counts[outcome] = counts.get(outcome, 0) + 1
            done += 1
            job.progress(done, len(names))
    return {"action": params["action"], "counts": counts}


_STRANGER = "It was made after the selection; it was left alone."


def _begin(action: BulkAction, name: str, reason: str, actor: Actor) -> Write | DomainError | None:
    try:
        return action.run(name, reason, actor)
    except DomainError as exc:
        return exc


def _end(action: BulkAction, started: Write | DomainError | None, deadline: datetime.datetime) -> tuple[str, str]:
    """What became of one object: an outcome and a sentence."""
    if isinstance(started, NotFoundError):
        return JobItem.Outcome.SKIPPED, "It is gone already."
    if isinstance(started, DomainError):
        return JobItem.Outcome.FAILED, " ".join(filter(None, [started.message, started.detail]))
    try:
        if started is not None:
            started.wait(max(0.0, (deadline - timezone.now()).total_seconds()))
    except TimedOutError:
        return "queued", "Saved and queued; the cluster has not confirmed it yet."
    except DomainError as exc:
        return JobItem.Outcome.FAILED, " ".join(filter(None, [exc.message, exc.detail]))
    return action.done, ""
