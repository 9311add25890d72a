"""Push every published bundle, as a job: `skills.backfill`. Starting over repeats nothing."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from cluster.locks import object_lock
from cluster.wait import waiting_slot
from opencrane.actor import Actor
from operations import jobs
from operations.jobs import JobRun
from operations.models import Job, JobItem
from operations.repairs import refusal
from operations.services.jobs import start_job, wait_for_job
from skills.errors import OciStoreNotConfiguredError
from skills.models import SkillBundle
from skills.oci.artifact import Artifact
from skills.oci.errors import RegistryError, RegistryUnavailableError
from skills.oci.store import OciStore, Pushed, store
from skills.services.publishing import LOCK, NO_CONTENT, artifact_for, note_failure, note_pushed

KIND: Final = "skills.backfill"
PUSHED, SKIPPED, FAILED = "pushed", JobItem.Outcome.SKIPPED.value, JobItem.Outcome.FAILED.value
# How many are pushed side by side, and how much content of theirs is in memory at a time.
PUSHERS = 4
BATCH = 16
BATCH_BYTES = 16 * 1024 * 1024
# How often a bundle is tried that fails while the registry itself answers.
TRIES = 2
# How long the whole run waits for a registry that is away; what is left then is tried again by the sweep.
PATIENCE_SECONDS = 900.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.25, 5.0
ALREADY_THERE = "The store has it already."
BUSY = "Somebody else is pushing it right now."


def start_backfill(*, actor: Actor) -> Job:
    """Start the job.

    Raises:
        OciStoreNotConfiguredError
        JobConflictError: one is under way.
    """
    if store() is None:
        raise OciStoreNotConfiguredError
    return start_job(kind=KIND, params={}, actor=actor, exclusive_key=KIND)


def backfill_and_wait(*, actor: Actor) -> Job:
    """Start the job and give it as long as a repair to end; what is returned may still be running.

    Raises:
        OciStoreNotConfiguredError, JobConflictError
    """
    job = start_backfill(actor=actor)
    with waiting_slot() as taken:
        if taken:
            job = wait_for_job(job.pk, settings.REPAIR_WAIT_SECONDS)
    if job.status == Job.Status.FAILED and (job.result or {}).get("code"):
        raise refusal(job)
    return job


class _Registry:
    """The registry as one run sees it: whether to go on waiting for it."""

    def __init__(self, target: OciStore, job: JobRun) -> None:
        self.target = target
        self._job = job
        self._patience = PATIENCE_SECONDS
        self.is_given_up = False

    def answers(self) -> bool:
        try:
            self.target.ping()
        except RegistryUnavailableError:
            return False
        except RegistryError:
            # It says no, so it is there.
            return True
        return True

    def wait(self) -> bool:
        """Until it answers; False when the run's patience has come to its end.

        Raises:
            JobCancelledError, JobLostError
        """
        pause = _FIRST_PAUSE_SECONDS
        while not self.is_given_up:
            began = time.monotonic()
            if self.answers():
                return True
            self._job.checkpoint()
            time.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE_SECONDS)
            self._patience -= time.monotonic() - began
            self.is_given_up = self._patience <= 0
        return False


@jobs.register(KIND)
def run_backfill(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """The runner: one item for each bundle, named `name@version`. A bundle that fails stops nobody else's.

    While the registry is away the run waits, within limits; what then is left stays with the sweep, so that it is
    pushed once the registry is back.
    """
    target = store()
    if target is None:
        raise OciStoreNotConfiguredError
    registry = _Registry(target, job)
    results: list[dict[str, Any]] = []
    counts = {PUSHED: 0, SKIPPED: 0, FAILED: 0}
    wanted = _wanted(job.only_keys)
    job.progress(0, len(wanted))
    done = 0
    with ThreadPoolExecutor(PUSHERS, thread_name_prefix="backfill") as pool:
        for batch in _batches(wanted):
            job.checkpoint()
            for bundle, outcome, reason in _brought(batch, registry, pool, job, actor):
                entry = {"id": str(bundle.pk), "name": bundle.name, "digest": bundle.digest, "outcome": outcome}
                results.append(entry | ({"reason": reason} if reason else {}))
                counts[outcome] += 1
                job.item(_key(bundle), outcome, reason, entry)
            done += len(batch)
            job.progress(done, len(wanted))
    return {"total": len(results), **counts, "results": results}


def _key(bundle: SkillBundle) -> str:
    return f"{bundle.name}@{bundle.version}"


def _wanted(only_keys: frozenset[str] | None) -> list[tuple[UUID, int]]:
    """Ids of the published bundles, by name and version, with the size of their content."""
    rows = SkillBundle.objects.filter(status=SkillBundle.Status.PUBLISHED).order_by("name", "version")
    return [
        (bundle_id, size or 0)
        for bundle_id, name, version, size in rows.values_list("pk", "name", "version", "content_size")
        if only_keys is None or f"{name}@{version}" in only_keys
    ]


def _batches(wanted: list[tuple[UUID, int]]) -> Iterator[list[UUID]]:
    """As many as fit into memory with their content."""
    batch: list[UUID] = []
    total = 0
    for bundle_id, size in wanted:
        if batch and (len(batch) >= BATCH or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(bundle_id)
        total += size
    if batch:
        yield batch


def _brought(
    ids: list[UUID], registry: _Registry, pool: ThreadPoolExecutor, job: JobRun, actor: Actor
) -> list[tuple[SkillBundle, str, str]]:
    """What became of some bundles: pushed side by side, for a registry takes its time with each request.

    Whoever was deleted meanwhile is not among them: there is nothing to say about it.
    """
    with ExitStack() as locks:
        held = {bundle_id for bundle_id in ids if _locked(bundle_id, locks)}
        bundles = list(SkillBundle.objects.filter(pk__in=ids).order_by("name", "version"))
        mine = [bundle for bundle in bundles if bundle.pk in held]
        tried: dict[UUID, _Result | RegistryError] = {}
        if not registry.is_given_up:
            waiting = [(bundle, pool.submit(_tried, registry.target, *_ready(bundle))) for bundle in mine]
            tried = {bundle.pk: future.result() for bundle, future in waiting}
        told = []
        news: list[tuple[SkillBundle, Pushed]] = []
        for bundle in bundles:
            if bundle.pk not in held:
                told.append((bundle, FAILED, BUSY))
                continue
            result = tried.get(bundle.pk) or RegistryUnavailableError("The registry does not answer.")
            if isinstance(result, RegistryUnavailableError):
                result = _patiently(bundle, result, registry, job)
            if isinstance(result, RegistryError):
                told.append((bundle, FAILED, _failed(bundle, result)))
                continue
            if result.pushed is not None:
                news.append((bundle, result.pushed))
            told.append((bundle, result.outcome, result.reason))
        note_pushed(news, actor)
    return told


def _locked(bundle_id: UUID, locks: ExitStack) -> bool:
    """Hold a bundle's lock until the batch is done; waits for a push that is under way."""
    at_once = locks.enter_context(object_lock(LOCK, bundle_id))
    return at_once or locks.enter_context(object_lock(LOCK, bundle_id, wait_seconds=10))


@dataclass(frozen=True, slots=True)
class _Result:
    """How it went with one bundle; `pushed` when the registry is known to have it."""

    outcome: str
    reason: str = ""
    pushed: Pushed | None = None


def _ready(bundle: SkillBundle) -> tuple[SkillBundle, Artifact | RegistryError | None]:
    try:
        return bundle, artifact_for(bundle)
    except RegistryError as exc:
        return bundle, exc


def _tried(
    target: OciStore, bundle: SkillBundle, artifact: Artifact | RegistryError | None
) -> "_Result | RegistryError":
    """One try, which needs no database and so may run in any thread."""
    try:
        if isinstance(artifact, RegistryError):
            return artifact
        if artifact is None:
            return _Result(SKIPPED, ALREADY_THERE if target.has_blob(bundle.digest) else NO_CONTENT)
        if bundle.oci_state == SkillBundle.OciState.PUSHED and target.has(artifact):
            return _Result(SKIPPED, ALREADY_THERE)
        pushed = target.push(artifact)
    except RegistryError as exc:
        return exc
    return _Result(PUSHED, pushed=pushed) if pushed.is_new else _Result(SKIPPED, ALREADY_THERE, pushed)


def _patiently(
    bundle: SkillBundle, error: RegistryError, registry: _Registry, job: JobRun
) -> "_Result | RegistryError":
    """Try again once the registry answers; what it was at last."""
    tries = 1
    result: _Result | RegistryError = error
    while not registry.is_given_up and isinstance(result, RegistryUnavailableError):
        job.item(_key(bundle), "queued", f"Waiting for the registry. {result.message}")
        tries += registry.answers()
        if tries > TRIES or not registry.wait():
            break
        result = _tried(registry.target, *_ready(bundle))
    return result


def _failed(bundle: SkillBundle, error: RegistryError) -> str:
    is_final = not isinstance(error, RegistryUnavailableError)
    note_failure(bundle, error, is_final=is_final)
    return error.message if is_final else f"{error.message} It stays queued and is pushed when the registry takes it."
