"""A drift check that someone asked for, as a job: `cluster.check_drift`."""

from typing import Any

from cluster.kinds import kind_named
from opencrane.actor import Actor
from opencrane.errors import ConflictError, UpstreamError
from operations import jobs
from operations.jobs import JobRun
from operations.models import Job
from operations.services import drift_metrics
from operations.services.jobs import start_job

CHECK = "cluster.check_drift"


def start_check(kind_name: str, *, actor: Actor) -> Job:
    """Start comparing every resource of a kind with its row.

    Raises:
        ConflictError: a check of this kind is under way.
    """
    return start_job(kind=CHECK, params={"kind": kind_name}, actor=actor, exclusive_key=f"{CHECK}:{kind_name}")


@jobs.register(CHECK)
def run_check(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """The runner; leaves its findings where the scheduled check does.

    Raises:
        ConflictError: the scheduled check is at it.
        UpstreamError: the cluster could not be listed to the end; the findings of before stay.
    """
    kind = kind_named(params["kind"])
    found = drift_metrics.evaluate(kind.name)
    if found is None:
        raise ConflictError("Another check is under way.", detail="Its result will be there in a moment.")
    if found.failed_at is not None:
        raise UpstreamError("The Kubernetes cluster could not be listed.", detail=found.error)
    job.progress(found.source_count, found.source_count)
    return {
        "resource": kind.name,
        "sourceCount": found.source_count,
        "projectionCount": found.projection_count,
        "driftCount": found.drift_count,
        "pendingCount": found.pending_count,
    }
