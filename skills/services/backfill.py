"""Push every published bundle, as a job: `skills.backfill`. Starting over repeats nothing."""

import time
from typing import Any, Final

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
from skills.oci.errors import RegistryError, RegistryUnavailableError
from skills.oci.store import OciStore, store
from skills.services.publishing import LOCK, NO_CONTENT, artifact_for, note_failure, note_pushed

KIND: Final = "skills.backfill"
PUSHED, SKIPPED, FAILED = "pushed", JobItem.Outcome.SKIPPED.value, JobItem.Outcome.FAILED.value
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
    rows = SkillBundle.objects.filter(status=SkillBundle.Status.PUBLISHED).order_by("name", "version")
    wanted = [
        (bundle_id, f"{name}@{version}")
        for bundle_id, name, version in rows.values_list("pk", "name", "version")
        if job.only_keys is None or f"{name}@{version}" in job.only_keys
    ]
    registry = _Registry(target, job)
    results: list[dict[str, Any]] = []
    counts = {PUSHED: 0, SKIPPED: 0, FAILED: 0}
    job.progress(0, len(wanted))
    for done, (bundle_id, key) in enumerate(wanted, start=1):
        job.checkpoint()
        bundle = SkillBundle.objects.filter(pk=bundle_id).first()
        if bundle is None:
            # Deleted meanwhile; there is nothing to say about it.
            job.progress(done, len(wanted))
            continue
        with object_lock(LOCK, bundle_id, wait_seconds=10) as held:
            outcome, reason = _brought(bundle, key, registry, job, actor) if held else (FAILED, BUSY)
        entry = {"id": str(bundle.pk), "name": bundle.name, "digest": bundle.digest, "outcome": outcome}
        results.append(entry | ({"reason": reason} if reason else {}))
        counts[outcome] += 1
        job.item(key, outcome, reason, entry)
        job.progress(done, len(wanted))
    return {"total": len(results), **counts, "results": results}


def _brought(bundle: SkillBundle, key: str, registry: _Registry, job: JobRun, actor: Actor) -> tuple[str, str]:
    """What became of one bundle, and why if there is something to say."""
    error = RegistryError("The registry does not answer.")
    tries = 0
    while not registry.is_given_up:
        try:
            return _once(bundle, registry.target, actor)
        except RegistryUnavailableError as exc:
            error = exc
        except RegistryError as exc:
            note_failure(bundle, exc, is_final=True)
            return FAILED, exc.message
        job.item(key, "queued", f"Waiting for the registry. {error.message}")
        tries += registry.answers()
        if tries >= TRIES or not registry.wait():
            break
    note_failure(bundle, error, is_final=False)
    return FAILED, f"{error.message} It stays queued and is pushed when the registry takes it."


def _once(bundle: SkillBundle, target: OciStore, actor: Actor) -> tuple[str, str]:
    artifact = artifact_for(bundle)
    if artifact is None:
        return SKIPPED, ALREADY_THERE if target.has_blob(bundle.digest) else NO_CONTENT
    if bundle.oci_state == SkillBundle.OciState.PUSHED and target.has(artifact):
        return SKIPPED, ALREADY_THERE
    pushed = target.push(artifact)
    note_pushed(bundle, pushed, actor)
    return (PUSHED, "") if pushed.is_new else (SKIPPED, ALREADY_THERE)
