"""Reads of the audit trail and of jobs."""

import math
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Case, Count, Exists, F, Min, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from cluster.kinds import Kind
from cluster.models import ClusterHealth, Definition, DriftEvaluation, DriftFinding, Outcome, Revision
from opencrane.rows import one
from operations.errors import DeliveryNotFoundError, JobNotFoundError, WebhookNotFoundError
from operations.models import (
    AuditEntry,
    AuditSeal,
    AuditVerification,
    Delivery,
    DnsRequest,
    DriftAlert,
    DriftSample,
    Job,
    JobItem,
    ServerSample,
    Webhook,
    WebhookEvent,
)

# A worker beats every 5 s; one that has been silent for this long is taken for dead.
SILENT = timedelta(seconds=30)
# A queued job younger than this is still on its way through the broker.
ON_ITS_WAY = timedelta(seconds=8)


def unconfirmed_writes(object_id: UUID) -> list[Revision]:
    """Accepted writes of an object that the cluster has not confirmed yet, oldest first."""
    return list(Revision.objects.filter(object_id=object_id).order_by("generation")[:50])


def recent_outcomes(object_id: UUID) -> list[Outcome]:
    """How an object's writes of the last hour ended, newest first."""
    return list(Outcome.objects.filter(object_id=object_id).order_by("-generation")[:20])


def is_drifted(kind: str, name: str) -> bool:
    """Whether the last drift check found the object's resource different from its row."""
    return DriftFinding.objects.filter(kind=kind, name=name).exists()


def job_by_id(job_id: UUID) -> Job:
    """The job.

    Raises:
        JobNotFoundError: there is none.
    """
    return one(Job.objects, JobNotFoundError, pk=job_id)


def job_for_update(job_id: UUID) -> Job:
    """The job, its row locked until the transaction ends.

    Raises:
        JobNotFoundError: there is none.
    """
    return one(Job.objects.select_for_update(), JobNotFoundError, pk=job_id)


def jobs_to_start(limit: int = 500) -> list[UUID]:
    """Jobs no worker has: queued ones whose message seems lost, and running ones whose worker has gone silent."""
    lost = Q(status=Job.Status.QUEUED, created_at__lt=Now() - ON_ITS_WAY)
    silent = Q(status=Job.Status.RUNNING, heartbeat_at__lt=Now() - SILENT)
    return list(Job.objects.filter(lost | silent).order_by("created_at").values_list("pk", flat=True)[:limit])


# -- console ----------------------------------------------------------------------------------------------------------


def audit_entry(entry_id: int) -> AuditEntry | None:
    """One entry of the audit trail."""
    return AuditEntry.objects.filter(pk=entry_id).first()


def audit_verification() -> AuditVerification | None:
    """What the scheduled check of the audit trail's seals has found; None before its first run."""
    return AuditVerification.objects.filter(pk=1).first()


def newest_seal() -> AuditSeal | None:
    """The last seal of the audit trail, without its list of entries."""
    return AuditSeal.objects.order_by("-id").defer("entries").first()


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


def definitions() -> list[Definition]:
    """What the cluster's definitions of our kinds were last found to be like, by name; none before the first check."""
    return list(Definition.objects.all())


def definition_problems(name: str = "") -> list[Definition]:
    """Those that will not do; of the one named only, if one is."""
    found = Definition.objects.exclude(problem="")
    return list(found.filter(name=name) if name else found)


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


# -- webhooks ---------------------------------------------------------------------------------------------------------

# A delivery younger than this is still on its way through the broker.
DELIVERY_ON_ITS_WAY = timedelta(seconds=2)
REPLAYED_AT_MOST = 10_000


def webhook_by_id(webhook_id: UUID | None) -> Webhook:
    """The webhook.

    Raises:
        WebhookNotFoundError
    """
    return one(Webhook.objects, WebhookNotFoundError, pk=webhook_id)


def webhook_for_update(webhook_id: UUID | None) -> Webhook:
    """The webhook, its row locked until the transaction ends.

    Raises:
        WebhookNotFoundError
    """
    return one(Webhook.objects.select_for_update(no_key=True), WebhookNotFoundError, pk=webhook_id)


def webhooks_matching(filters: dict[str, Any]) -> QuerySet[Webhook]:
    """Webhooks that fit `q` (name, address), `event` and `enabled`, each with `pending` and `failed`: how many
    deliveries wait, and have failed for good. Unordered."""
    counted = Delivery.objects.filter(webhook=OuterRef("pk")).order_by().values("webhook").annotate(many=Count("pk"))
    states = {"pending": Delivery.Status.PENDING, "failed": Delivery.Status.FAILED}
    found = Webhook.objects.order_by().annotate(
        **{name: Coalesce(Subquery(counted.filter(status=state).values("many")), 0) for name, state in states.items()}
    )
    if text := filters.get("q"):
        found = found.filter(Q(name__icontains=text) | Q(url__icontains=text))
    if event := filters.get("event"):
        found = found.filter(events__contains=[event])
    if "enabled" in filters:
        found = found.filter(enabled=filters["enabled"])
    return found


def webhook_with_counts(webhook_id: UUID | None) -> Webhook:
    """The webhook, with `pending` and `failed`.

    Raises:
        WebhookNotFoundError
    """
    return one(webhooks_matching({}), WebhookNotFoundError, pk=webhook_id)


def deliveries_of(webhook: Webhook, *, status: str = "", event: str = "") -> QuerySet[Delivery]:
    """What a webhook was sent or is to be sent, each with its event; unordered."""
    found = Delivery.objects.filter(webhook=webhook).select_related("event")
    if status:
        found = found.filter(status=status)
    return found.filter(event__event=event) if event else found


def delivery_of(webhook: Webhook, delivery_id: UUID | None) -> Delivery:
    """One delivery of a webhook, with its event.

    Raises:
        DeliveryNotFoundError
    """
    return one(Delivery.objects.select_related("event"), DeliveryNotFoundError, webhook=webhook, pk=delivery_id)


def events_to_replay(webhook: Webhook, *, since: Any, until: Any, only_failed: bool) -> list[UUID]:
    """Events that a webhook was sent in a span of time and that are not on their way to it now, oldest first.

    With `only_failed`, those of which no delivery got through. No more than REPLAYED_AT_MOST.
    """
    sent = Delivery.objects.filter(webhook=webhook, event=OuterRef("pk"))
    found = WebhookEvent.objects.filter(Exists(sent)).exclude(Exists(sent.filter(status=Delivery.Status.PENDING)))
    if only_failed:
        found = found.exclude(Exists(sent.filter(status=Delivery.Status.DELIVERED)))
    if since is not None:
        found = found.filter(created_at__gte=since)
    if until is not None:
        found = found.filter(created_at__lt=until)
    return list(found.order_by("created_at").values_list("pk", flat=True)[:REPLAYED_AT_MOST])


def webhooks_due(limit: int = 200) -> list[UUID]:
    """Webhooks that have something to be sent now whose message was lost, or whose turn has come again."""
    due = Delivery.objects.filter(
        webhook=OuterRef("pk"), status=Delivery.Status.PENDING, not_before__lt=Now() - DELIVERY_ON_ITS_WAY
    )
    found = Webhook.objects.filter(Exists(due), enabled=True, not_before__lte=Now())
    return list(found.order_by("not_before").values_list("pk", flat=True)[:limit])


# -- metrics ----------------------------------------------------------------------------------------------------------

# Enough for a chart; the rest is averaged away.
POINTS = 300
_SERVER_HISTORY = """
SELECT date_bin(%(step)s, at, %(since)s) AS bin, avg(cpu_percent), avg(memory_used), max(memory_total),
       avg(storage_used), max(storage_total), avg(active_tenants)
  FROM operations_serversample
 WHERE at >= %(since)s AND at < %(until)s
   AND source = (SELECT source FROM operations_serversample WHERE at < %(until)s ORDER BY at DESC LIMIT 1)
 GROUP BY bin ORDER BY bin
"""
_DRIFT_HISTORY = """
SELECT date_bin(%(step)s, at, %(since)s) AS bin, kind, max(drift_count), max(pending_count), max(lag_seconds)
  FROM operations_driftsample WHERE at >= %(since)s AND at < %(until)s GROUP BY bin, kind ORDER BY bin, kind
"""


def newest_server_sample() -> ServerSample | None:
    """The last sample of the machines; None before the first."""
    return ServerSample.objects.order_by("-at").first()


def server_history(since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Averages of the samples of a span of time, oldest first, at most POINTS; of the newest one's source alone."""
    return [
        {
            "at": at,
            "cpuPercent": round(cpu, 2),
            "memoryUsedBytes": round(memory),
            "memoryTotalBytes": memory_total,
            "storageUsedBytes": round(storage),
            "storageTotalBytes": storage_total,
            "activeTenants": round(tenants),
        }
        for at, cpu, memory, memory_total, storage, storage_total, tenants in _history(_SERVER_HISTORY, since, until)
    ]


def drift_history(since: datetime, until: datetime) -> list[dict[str, Any]]:
    """The most drift, writes in flight and lag of each kind within each of at most POINTS spans, oldest first."""
    return [
        {"at": at, "kind": kind, "driftCount": drift, "pendingCount": pending, "maxProjectionLagSeconds": round(lag, 3)}
        for at, kind, drift, pending, lag in _history(_DRIFT_HISTORY, since, until)
    ]


def _history(sql: str, since: datetime, until: datetime) -> list[Any]:
    # Whole minutes: finer than the samples themselves makes holes.
    step = max(timedelta(minutes=1), timedelta(minutes=math.ceil((until - since) / POINTS / timedelta(minutes=1))))
    with connection.cursor() as cursor:
        cursor.execute(sql, dict[str, Any](step=step, since=since, until=until))
        return cursor.fetchall()


def projection_lag(kind: str) -> float:
    """Seconds since the oldest write of a kind that the cluster has not confirmed; 0 when there is none."""
    oldest = Revision.objects.filter(kind=kind).aggregate(oldest=Min("created_at"))["oldest"]
    return 0.0 if oldest is None else max(0.0, (timezone.now() - oldest).total_seconds())


def drift_alert() -> DriftAlert:
    """Whether drift is above its threshold, and since when; as the last evaluation left it."""
    return DriftAlert.objects.filter(pk=1).first() or DriftAlert()


def newest_drift_samples(kind: str, limit: int) -> list[DriftSample]:
    """The last evaluations of a kind, newest first."""
    return list(DriftSample.objects.filter(kind=kind).order_by("-at")[:limit])


# -- platform DNS -----------------------------------------------------------------------------------------------------


def dns_due() -> list[int]:
    """Requests to platform DNS that no worker has finished, where it is time to try."""
    due = DnsRequest.objects.filter(observed_generation__lt=F("generation"), not_before__lt=Now() - ON_ITS_WAY)
    return list(due.values_list("pk", flat=True))


def dns_request(kind: str, name: str) -> DnsRequest | None:
    """What was last asked for, for one issuer."""
    return DnsRequest.objects.filter(kind=kind, name=name, generation__gt=0).first()
