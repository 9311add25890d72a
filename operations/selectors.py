"""Reads of the audit trail and of jobs."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Case, Count, F, Min, Q, QuerySet, When
from django.db.models.functions import Now

from cluster.kinds import Kind
from cluster.models import ClusterHealth, DriftEvaluation, DriftFinding, Revision
from operations.errors import JobNotFoundError
from operations.models import AuditEntry, Job, JobItem

# A worker beats every 5 s; one that has been silent for this long is taken for dead.
SILENT = timedelta(seconds=30)
# A queued job younger than this is still on its way through the broker.
ON_ITS_WAY = timedelta(seconds=8)


def job_by_id(job_id: UUID) -> Job:
    """The job.

    Raises:
        JobNotFoundError: there is none.
    """
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise JobNotFoundError
    return job


def job_for_update(job_id: UUID) -> Job:
    """The job, its row locked until the transaction ends.

    Raises:
        JobNotFoundError: there is none.
    """
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        raise JobNotFoundError
    return job


def jobs_to_start(limit: int = 500) -> list[UUID]:
    """Jobs no worker has: queued ones whose message seems lost, and running ones whose worker has gone silent."""
    lost = Q(status=Job.Status.QUEUED, created_at__lt=Now() - ON_ITS_WAY)
    silent = Q(status=Job.Status.RUNNING, heartbeat_at__lt=Now() - SILENT)
    return list(Job.objects.filter(lost | silent).order_by("created_at").values_list("pk", flat=True)[:limit])


# -- console ----------------------------------------------------------------------------------------------------------


def audit_entry(entry_id: int) -> AuditEntry | None:
    """One entry of the audit trail."""
    return AuditEntry.objects.filter(pk=entry_id).first()


def jobs_matching(filters: dict[str, str]) -> QuerySet[Job]:
    """Jobs that fit every filter given: `status`, `kind`, `actor`; unordered, without their results."""
    columns = {"status": "status", "kind": "kind", "actor": "actor_name"}
    return Job.objects.filter(**{columns[name]: value for name, value in filters.items()}).defer("result")


def jobs_to_look_at(limit: int) -> list[Job]:
    """Jobs that are under way, then those that failed within a day, newest first."""
    active = Q(status__in=Job.ACTIVE)
    failed = Q(status=Job.Status.FAILED, created_at__gt=Now() - timedelta(days=1))
    found = Job.objects.filter(active | failed).defer("result")
    return list(found.order_by(Case(When(active, then=0), default=1), "-created_at")[:limit])


def job_items(job: Job, outcome: str) -> QuerySet[JobItem]:
    """What became of each thing a job worked on; of one outcome only, if one is named. Unordered."""
    items = JobItem.objects.filter(job=job)
    return items.filter(outcome=outcome) if outcome else items


def job_failures(job: Job, limit: int) -> list[JobItem]:
    """The first things that failed."""
    return list(JobItem.objects.filter(job=job, outcome=JobItem.Outcome.FAILED).order_by("id")[:limit])


def job_outcomes(job: Job) -> dict[str, int]:
    """How many things had which outcome; those to look at first."""
    first = Case(When(outcome=JobItem.Outcome.FAILED, then=0), When(outcome=JobItem.Outcome.SKIPPED, then=1), default=2)
    counted = JobItem.objects.filter(job=job).values("outcome").annotate(count=Count("id")).order_by(first, "outcome")
    return {row["outcome"]: row["count"] for row in counted}


def job_under_way(exclusive_key: str) -> Job | None:
    """The unfinished job that holds a key, if any."""
    return Job.objects.filter(exclusive_key=exclusive_key, status__in=Job.ACTIVE).first()


def drift_evaluation(kind: str) -> DriftEvaluation | None:
    """The last scheduled comparison of a kind; None before the first."""
    return DriftEvaluation.objects.filter(kind=kind).first()


def drift_evaluations() -> dict[str, DriftEvaluation]:
    """The last comparison of every kind that had one."""
    return {each.kind: each for each in DriftEvaluation.objects.all()}


def drift_counts() -> dict[str, int]:
    """Mismatches of each kind that has any, as the last check found them."""
    counted = DriftFinding.objects.order_by().values("kind").annotate(count=Count("pk"))
    return {row["kind"]: row["count"] for row in counted}


def drift_findings(kind: str, *, issue: str = "", text: str = "") -> QuerySet[DriftFinding]:
    """Mismatches of a kind as the last check found them; unordered."""
    found = DriftFinding.objects.filter(kind=kind)
    if issue:
        found = found.filter(issue=issue)
    return found.filter(name__icontains=text) if text else found


def cluster_health() -> ClusterHealth | None:
    """What the workers last saw of the API server; None when nothing was ever wrong."""
    return ClusterHealth.objects.filter(pk=1).first()


def sync_backlog(kind: Kind[Any], cap: int) -> dict[str, Any]:
    """Writes of a kind that the cluster has not confirmed.

    Returns:
        `count` and `failing`, each counted no further than one beyond `cap`; `oldest`, when the oldest was accepted.
    """
    lagging = kind.model._default_manager.filter(observed_generation__lt=F("generation")).order_by()
    return {
        "count": lagging.values("pk")[: cap + 1].count(),
        "failing": lagging.filter(sync_failing_since__isnull=False).values("pk")[: cap + 1].count(),
        "oldest": Revision.objects.filter(kind=kind.name).aggregate(oldest=Min("created_at"))["oldest"],
    }
