"""The audit trail and the jobs: what was done, and what takes longer than a request."""

import uuid

from django.db import models
from django.db.models import Func, Q
from django.db.models.functions import Cast, Now

from opencrane.encryption import EncryptedTextField
from opencrane.jsonfield import ValueField


def current_transaction() -> Cast:
    """The number of the transaction that inserts, as pg_current_snapshot() lists it while it is under way."""
    return Cast(Cast(Func(function="pg_current_xact_id"), models.TextField()), models.BigIntegerField())


def clock_timestamp() -> Func:
    """The moment itself; the transaction may have begun long before."""
    return Func(function="clock_timestamp", output_field=models.DateTimeField())


class AuditEntry(models.Model):
    """One thing that happened. Append-only: triggers refuse UPDATE, DELETE and TRUNCATE.

    Names are copied, so that an entry outlives what it speaks of; `tenant_id` tells a new tenant of an old name from
    the old one. `before` and `after` are masked. Read newest first by (timestamp, id): `id` comes from a sequence, so
    entries that share a microsecond still have one order. `xid` lets a reader find what was written before, but
    committed after, the page it belongs to was read: see operations/audit_pages.py.
    """

    id = models.BigAutoField(primary_key=True)
    # Before `timestamp`, so that the transaction has its number when the clock is read.
    xid = models.BigIntegerField(db_default=current_transaction(), editable=False)
    timestamp = models.DateTimeField(db_default=clock_timestamp())
    tenant = models.TextField(blank=True, db_default="")
    tenant_id = models.UUIDField(null=True, blank=True)
    action = models.TextField()
    resource = models.TextField()
    message = models.TextField()
    actor_kind = models.TextField()
    actor_name = models.TextField()
    actor_id = models.BigIntegerField(null=True, blank=True)
    actor_token = models.TextField(blank=True, db_default="")
    request_id = models.TextField(blank=True, db_default="")
    address = models.TextField(blank=True, db_default="")
    before = ValueField(null=True, blank=True)
    after = ValueField(null=True, blank=True)

    class Meta:
        ordering = ["-timestamp", "-id"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(name="audit_newest", fields=["-timestamp", "-id"]),
            models.Index(name="audit_by_transaction", fields=["xid", "id"]),
            models.Index(name="audit_by_tenant", fields=["tenant", "-timestamp", "-id"]),
            models.Index(
                name="audit_by_tenant_id",
                fields=["tenant_id", "-timestamp", "-id"],
                condition=Q(tenant_id__isnull=False),
            ),
            models.Index(name="audit_by_action", fields=["action", "-timestamp", "-id"]),
            models.Index(name="audit_by_resource", fields=["resource", "-timestamp", "-id"]),
            models.Index(name="audit_by_actor", fields=["actor_name", "-timestamp", "-id"]),
            models.Index(
                name="audit_by_request",
                fields=["request_id", "-timestamp", "-id"],
                condition=~Q(request_id=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.timestamp:%Y-%m-%d %H:%M:%S} {self.action} {self.resource}"


class AuditSeal(models.Model):
    """A batch of audit entries as they were when they were sealed; each seal covers the one before it.

    Append-only like the trail itself. `entries` holds, in the order of (xid, id), 24 bytes for each entry: its id and
    the first 16 bytes of its SHA-256. A chain ends where the database was restored into another PostgreSQL cluster,
    whose transaction numbers begin anew; the next one covers entries above `floor_id`. See operations/sealing.py.
    """

    id = models.BigAutoField(primary_key=True)
    version = models.SmallIntegerField(help_text="How entries and seals are written down to be hashed.")
    chain = models.IntegerField()
    floor_id = models.BigIntegerField()
    last_xid = models.BigIntegerField()
    last_id = models.BigIntegerField()
    max_id = models.BigIntegerField()
    rows = models.IntegerField()
    entries = models.BinaryField()
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)
    sealed_at = models.DateTimeField(db_default=clock_timestamp())

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"Seal {self.pk} of {self.rows} entries"


class AuditVerification(models.Model):
    """How far the scheduled check of the seals has come, and the first thing it found broken. One row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    next_seal = models.BigIntegerField(default=0)
    checked_at = models.DateTimeField(null=True, blank=True)
    round_finished_at = models.DateTimeField(null=True, blank=True)
    broken_seal = models.BigIntegerField(null=True, blank=True)
    broken_entry = models.BigIntegerField(null=True, blank=True)
    broken_why = models.TextField(blank=True)
    broken_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(name="audit_verification_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return self.broken_why or "intact"


class Job(models.Model):
    """Work that can outlast a request: a repair, an import, a bulk action.

    A worker holds a job by `lease` and keeps `heartbeat_at` fresh; when it dies, the sweep hands the job to another,
    which starts over. Runners are therefore repeatable.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE = (Status.QUEUED, Status.RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=100)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.QUEUED)
    params = ValueField(default=dict)
    exclusive_key = models.CharField(max_length=200, blank=True)
    done = models.PositiveBigIntegerField(default=0)
    total = models.PositiveBigIntegerField(null=True, blank=True)
    result = ValueField(null=True, blank=True)
    error = models.TextField(blank=True)
    cancel_requested = models.BooleanField(default=False)
    retry_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retries")
    actor_kind = models.TextField()
    actor_name = models.TextField()
    actor_id = models.BigIntegerField(null=True, blank=True)
    actor_token = models.TextField(blank=True, db_default="")
    request_id = models.TextField(blank=True)
    address = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    lease = models.UUIDField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=clock_timestamp())
    started_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                name="job_exclusive",
                fields=["exclusive_key"],
                condition=~Q(exclusive_key="") & Q(status__in=["queued", "running"]),
            ),
        ]
        indexes = [
            models.Index(name="job_newest", fields=["-created_at", "-id"]),
            models.Index(name="job_active", fields=["created_at"], condition=Q(status__in=["queued", "running"])),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id} ({self.status})"

    @property
    def is_finished(self) -> bool:
        """Whether the job has ended, well or badly."""
        return self.status not in self.ACTIVE


class JobItem(models.Model):
    """What became of one thing that a job worked on; a job that starts over replaces it."""

    class Outcome(models.TextChoices):
        """Outcomes that mean "look here"; runners may use any other short word for what went well."""

        FAILED = "failed"
        SKIPPED = "skipped"

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="items")
    key = models.TextField()
    outcome = models.CharField(max_length=40)
    message = models.TextField(blank=True)
    detail = ValueField(null=True, blank=True)
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(name="job_item_once", fields=["job", "key"])]
        indexes = [models.Index(name="job_item_order", fields=["job", "id"])]

    def __str__(self) -> str:
        return f"{self.key}: {self.outcome}"


class JobChunk(models.Model):
    """A part of the file that a job made, compressed by zlib; kept for some days."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="chunks")
    number = models.PositiveIntegerField()
    content = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["job", "number"]
        constraints = [models.UniqueConstraint(name="job_chunk_once", fields=["job", "number"])]
        indexes = [models.Index(name="job_chunk_age", fields=["created_at"])]

    def __str__(self) -> str:
        return f"Part {self.number} of job {self.job_id}"


class TaskTiming(models.Model):
    """How often a Celery task ran and how long it took, summed up over all workers; workers add to it now and then."""

    id = models.BigAutoField(primary_key=True)
    task = models.CharField(max_length=200)
    outcome = models.CharField(max_length=20)
    runs = models.PositiveBigIntegerField(default=0)
    seconds = models.FloatField(default=0.0)

    class Meta:
        ordering = ["task", "outcome"]
        constraints = [models.UniqueConstraint(name="task_timing_once", fields=["task", "outcome"])]

    def __str__(self) -> str:
        return f"{self.task} {self.outcome}: {self.runs}"


class Webhook(models.Model):
    """An address that is told when certain things happen.

    `failures` counts attempts in a row that got no answer, or one that says the receiver is in trouble; until
    `not_before` nothing more is sent there, so that a dead receiver costs one attempt in a while and not one for each
    delivery. `built_in` names the setting that the row stands for; such rows follow the settings and nobody edits them.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200, db_collation="C")
    description = models.TextField(blank=True, default="")
    url = models.CharField(max_length=2048)
    events = ValueField(default=list)
    secret = EncryptedTextField(blank=True, default="")
    enabled = models.BooleanField(default=True)
    built_in = models.CharField(max_length=100, blank=True, default="", editable=False)
    generation = models.PositiveBigIntegerField(default=1, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False)
    failing_since = models.DateTimeField(null=True, editable=False)
    not_before = models.DateTimeField(db_default=Now(), editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(name="webhook_name_key", fields=["name"]),
            models.UniqueConstraint(name="webhook_built_in_once", fields=["built_in"], condition=~Q(built_in="")),
        ]

    def __str__(self) -> str:
        return self.name


class WebhookEvent(models.Model):
    """Something that happened and that webhooks may want to know, whether or not one did."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    event = models.CharField(max_length=100)
    payload = ValueField(default=dict)
    dedupe_key = models.CharField(max_length=300, blank=True, default="")
    created_at = models.DateTimeField(db_default=clock_timestamp(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                name="webhook_event_once", fields=["event", "dedupe_key"], condition=~Q(dedupe_key="")
            )
        ]
        indexes = [models.Index(name="webhook_event_age", fields=["created_at"])]

    def __str__(self) -> str:
        return f"{self.event} {self.id}"


class Delivery(models.Model):
    """One event on its way to one webhook. `log` has its last attempts: `{at, status, error, latencyMs}`."""

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    event = models.ForeignKey(WebhookEvent, on_delete=models.CASCADE, related_name="deliveries")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    error = models.TextField(blank=True, default="")
    response_status = models.PositiveSmallIntegerField(null=True)
    log = ValueField(default=list)
    created_at = models.DateTimeField(db_default=clock_timestamp(), editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(name="delivery_newest", fields=["webhook", "-created_at", "-id"]),
            models.Index(
                name="delivery_unfinished", fields=["webhook", "status", "not_before"], condition=~Q(status="delivered")
            ),
            models.Index(name="delivery_age", fields=["created_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.event_id} to {self.webhook_id}: {self.status}"


class ServerSample(models.Model):
    """How busy the machines were at one moment; CPU in percent of all cores, sizes in bytes.

    `source` says whose CPU and memory it is; storage is always that of the host that took the sample, since the metrics
    API knows nothing of it.
    """

    class Source(models.TextChoices):
        CLUSTER = "metrics.k8s.io"
        HOST = "host"

    at = models.DateTimeField(db_default=clock_timestamp())
    source = models.CharField(max_length=20, choices=Source)
    cpu_percent = models.FloatField()
    memory_used = models.PositiveBigIntegerField()
    memory_total = models.PositiveBigIntegerField()
    storage_used = models.PositiveBigIntegerField()
    storage_total = models.PositiveBigIntegerField()
    active_tenants = models.PositiveIntegerField()

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [models.Index(name="server_sample_newest", fields=["-at"])]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.cpu_percent:.0f} %"


class DriftSample(models.Model):
    """What one comparison of a kind found. `lag_seconds` is the age of the oldest write that was not confirmed then."""

    kind = models.CharField(max_length=40)
    at = models.DateTimeField()
    source_count = models.PositiveIntegerField()
    projection_count = models.PositiveIntegerField()
    drift_count = models.PositiveIntegerField()
    pending_count = models.PositiveIntegerField()
    lag_seconds = models.FloatField()

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(name="drift_sample_newest", fields=["kind", "-at"]),
            models.Index(name="drift_sample_age", fields=["at"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.at:%Y-%m-%d %H:%M}: {self.drift_count}"


class DriftAlert(models.Model):
    """Whether drift is at or above its threshold, so that crossing it is announced once. One row, key 1."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    is_above = models.BooleanField(default=False)
    since = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.CheckConstraint(name="drift_alert_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return "above" if self.is_above else "below"


class DnsRequest(models.Model):
    """What somebody last asked platform DNS to be, for one issuer; the issuer in the cluster is the truth.

    A worker brings the cluster there. The API token waits here, sealed, until it stands in its Secret. How the newest
    generation ended is in `outcome`: empty while it is under way, `applied`, or the code of the refusal.
    """

    kind = models.CharField(max_length=20)
    name = models.CharField(max_length=253, db_collation="C")
    provider = models.CharField(max_length=63)
    zone = models.CharField(max_length=253)
    email = models.CharField(max_length=254)
    server = models.CharField(max_length=2048)
    solver_config = ValueField(null=True)
    api_token = EncryptedTextField(blank=True, default="")
    # The provider whose Secret has been written.
    secret_of = models.CharField(max_length=63, blank=True, default="")
    generation = models.PositiveBigIntegerField(default=1)
    observed_generation = models.PositiveBigIntegerField(default=0)
    outcome = models.CharField(max_length=40, blank=True, default="")
    message = models.TextField(blank=True, default="")
    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(name="dns_request_once", fields=["kind", "name"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
