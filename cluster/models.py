"""How far the cluster lags behind the rows: the sync engine's state.

The columns of `SyncedModel` are the one sync record per object. Revisions, outcomes and tombstones hang on the
object's id without a foreign key on purpose: they outlive the row.
"""

import uuid
from typing import Any

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from opencrane.jsonfield import ValueField

SYNC_STATES = ("synced", "waiting", "failing", "deleting")


class SyncedModel(models.Model):
    """A row that has a custom resource: intent, sync record and projection of what the cluster says.

    Intent is what people wrote; the domain's own columns belong to it. `generation` counts the writes and
    `observed_generation` says which of them the cluster has confirmed, as in Kubernetes. The projection is copied from
    the watch stream; it moves neither `generation` nor `updated_at`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=253, db_collation="C")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    generation = models.PositiveBigIntegerField(default=0, editable=False)
    observed_generation = models.PositiveBigIntegerField(default=0, editable=False)
    deleting = models.BooleanField(default=False, editable=False)
    confirmed_spec = ValueField(null=True, editable=False)
    cluster_uid = models.CharField(max_length=64, blank=True, default="", editable=False)
    resource_generation = models.PositiveBigIntegerField(default=0, editable=False)
    sync_attempts = models.PositiveIntegerField(default=0, editable=False)
    sync_not_before = models.DateTimeField(db_default=Now(), editable=False)
    sync_swept_at = models.DateTimeField(null=True, editable=False)
    sync_error = models.TextField(blank=True, default="", editable=False)
    sync_failing_since = models.DateTimeField(null=True, editable=False)

    status = ValueField(default=dict, editable=False)
    status_revision = models.PositiveBigIntegerField(default=0, editable=False)
    resource_labels = ValueField(default=dict, editable=False)

    class Meta:
        abstract = True
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["name"], name="%(class)s_name_key"),
            models.CheckConstraint(name="%(class)s_not_ahead", condition=Q(observed_generation__lte=F("generation"))),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="%(class)s_newest"),
            models.Index(
                fields=["sync_not_before"],
                name="%(class)s_due",
                condition=Q(observed_generation__lt=F("generation")),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def in_flight(self) -> bool:
        """Whether a write waits for the cluster."""
        return self.observed_generation < self.generation

    @property
    def sync_state(self) -> str:
        """How far the cluster follows the row: one of SYNC_STATES."""
        if self.deleting:
            return "deleting"
        if not self.in_flight:
            return "synced"
        return "failing" if self.sync_failing_since else "waiting"

    def shown_state(self, *, is_drifted: bool) -> str:
        """The one word of the sync chip: that state, or `drifted` for what is in sync but was changed there."""
        return "drifted" if is_drifted and self.sync_state == "synced" else self.sync_state

    def sync_detail(self) -> dict[str, Any]:
        """How the cluster follows the row, as the API shows it."""
        return {
            "state": self.sync_state,
            "generation": self.generation,
            "observedGeneration": self.observed_generation,
            "attempts": self.sync_attempts,
            "error": self.sync_error or None,
            "failingSince": self.sync_failing_since,
            "nextAttemptAt": self.sync_not_before if self.in_flight else None,
        }

    @property
    def etag(self) -> str:
        return f'"{self.generation}.{self.status_revision}"'


class Revision(models.Model):
    """One accepted write that the cluster has not confirmed yet.

    `fields` are the spec names that the write named, `before` and `after` their values as in the spec (absent: not
    set). Gone once confirmed or refused.
    """

    class Action(models.TextChoices):
        CREATE = "create"
        UPDATE = "update"
        RESYNC = "resync"
        DELETE = "delete"

    kind = models.CharField(max_length=40)
    object_id = models.UUIDField()
    generation = models.PositiveBigIntegerField()
    action = models.CharField(max_length=10, choices=Action)
    fields = ValueField(default=list)
    before = ValueField(default=dict)
    after = ValueField(default=dict)
    actor = ValueField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["object_id", "generation"]
        constraints = [models.UniqueConstraint(fields=["object_id", "generation"], name="revision_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id} {self.action} {self.generation}"


class Outcome(models.Model):
    """How one write ended, kept for an hour so that whoever waits for it learns it even when the row is gone."""

    class State(models.TextChoices):
        CONFIRMED = "confirmed"
        REJECTED = "rejected"

    kind = models.CharField(max_length=40)
    object_id = models.UUIDField()
    generation = models.PositiveBigIntegerField()
    state = models.CharField(max_length=10, choices=State)
    code = models.CharField(max_length=40, blank=True, default="")
    message = models.TextField(blank=True, default="")
    detail = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["object_id", "generation"], name="outcome_once")]
        indexes = [models.Index(fields=["created_at"], name="outcome_age")]

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id} {self.generation}: {self.state}"


class Tombstone(models.Model):
    """A row that is gone. A resource that still carries its id, because a late worker made it, is deleted."""

    object_id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=40)
    name = models.CharField(max_length=253)
    created_at = models.DateTimeField(db_default=Now())
    checks = models.PositiveSmallIntegerField(default=0)
    next_check_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["created_at"], name="tombstone_age"),
            models.Index(fields=["next_check_at"], name="tombstone_due"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class ClusterHealth(models.Model):
    """What the workers last saw of the API server. One row, key 1; no row means that nothing was wrong yet."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    unreachable_since = models.DateTimeField(null=True)
    last_unreachable_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        constraints = [models.CheckConstraint(name="cluster_health_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return self.error or "reachable"


class Definition(models.Model):
    """What the cluster's definition of one of our kinds was last found to be like.

    Attributes:
        problem: what is missing and what to do about it; empty when nothing is.
        since: when it became so.
    """

    name = models.CharField(max_length=253, primary_key=True)
    problem = models.TextField(blank=True, default="")
    since = models.DateTimeField()
    checked_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.problem or f"{self.name} is as it should be"


class DriftEvaluation(models.Model):
    """The last scheduled comparison of one kind: its summary, or why there is none."""

    kind = models.CharField(max_length=40, primary_key=True)
    evaluated_at = models.DateTimeField()
    source_count = models.PositiveIntegerField(default=0)
    projection_count = models.PositiveIntegerField(default=0)
    drift_count = models.PositiveIntegerField(default=0)
    pending_count = models.PositiveIntegerField(default=0)
    duration_seconds = models.FloatField(default=0)
    failed_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["kind"]

    def __str__(self) -> str:
        return f"{self.kind}: {self.drift_count} drifted"


class DriftFinding(models.Model):
    """One mismatch between cluster and row, as the last evaluation found it; `since` survives re-evaluation."""

    kind = models.CharField(max_length=40)
    name = models.CharField(max_length=253, db_collation="C")
    issue = models.CharField(max_length=20)
    fields = ValueField(default=list)
    differences = ValueField(default=list)
    managers = ValueField(default=dict)
    since = models.DateTimeField()
    evaluated_at = models.DateTimeField()

    class Meta:
        ordering = ["kind", "name"]
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="drift_finding_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.issue}"
