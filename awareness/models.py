"""The awareness contract's rollout, what tenants report about it, and what sessions may see."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opencrane.jsonfield import ValueField


class RolloutState(models.Model):
    """How far the target version has come. One row for the fleet, key 1; no row means the pinned version for all.

    The first `frontier` of the `waves` are promoted. `is_blank` is only seen inside the transaction of the first
    definition, which makes the row in order to lock it.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    target_version = models.CharField(max_length=64)
    stable_version = models.CharField(max_length=64)
    waves = ValueField()
    frontier = models.PositiveSmallIntegerField(default=0)
    shadow_mode = models.BooleanField(default=False)
    is_blank = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.CheckConstraint(name="rollout_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return f"{self.stable_version} to {self.target_version}"


class Participation(models.Model):
    """What is known of one tenant's pod from its own reports.

    Attributes:
        last_seen_at: of the latest report; late ones do not move it back.
        running_contract_version: as of `version_seen_at`; empty until the pod has said it.
        policy_violations: among the reports that are still kept.
    """

    tenant = models.OneToOneField(
        "tenants.Tenant", on_delete=models.CASCADE, primary_key=True, related_name="participation"
    )
    last_seen_at = models.DateTimeField()
    running_contract_version = models.CharField(max_length=64, blank=True, default="")
    version_seen_at = models.DateTimeField(null=True)
    policy_violations = models.PositiveIntegerField(default=0)
    # What the report gives of the row, written with it: forming ten thousand timestamps takes a quarter of a reading.
    document = models.GeneratedField(
        expression=models.Func(
            models.F("last_seen_at"), models.F("running_contract_version"), function="awareness_participation_document"
        ),
        output_field=models.TextField(),
        db_persist=True,
    )

    class Meta:
        ordering = ["tenant_id"]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.running_contract_version}"


class ParticipationEvent(models.Model):
    """One report of a pod, once per tenant and idempotency key; purged after a setting's days.

    Without a foreign key on purpose: its check would lock the tenant's row with every heartbeat. The service that drops
    a tenant's participation drops these too.
    """

    class Kind(models.TextChoices):
        HEARTBEAT = "heartbeat"
        AGENT_CARD = "agent_card"
        SKILL_EXECUTION = "skill_execution"

    class Outcome(models.TextChoices):
        OK = "ok"
        POLICY_VIOLATION = "policy-violation"

    tenant_id = models.UUIDField()
    idempotency_key = models.CharField(max_length=200, db_collation="C")
    kind = models.CharField(max_length=20, choices=Kind)
    outcome = models.CharField(max_length=20, blank=True, default="")
    contract_version = models.CharField(max_length=64, blank=True, default="")
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField(db_default=Now())
    payload = ValueField(null=True)

    class Meta:
        ordering = ["-received_at"]
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "idempotency_key"], name="participation_event_once")
        ]
        indexes = [models.Index(fields=["received_at"], name="participation_event_age")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.kind} {self.idempotency_key}"


class SessionScope(models.Model):
    """What one session of an agent may see: never more than its principal is granted, see awareness/sessions.py.

    `scopes` are pairs `{scope, payloadId}` as they were granted when the scope was set. `tenant` is the principal's row
    when the principal is a tenant: a later tenant of the same name does not inherit the session. Otherwise the
    principal is a lower-case e-mail address.
    """

    session_key = models.CharField(max_length=512, primary_key=True, db_collation="C")
    principal = models.CharField(max_length=254, db_collation="C")
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, null=True, related_name="session_scopes")
    scopes = ValueField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-session_key"]
        indexes = [models.Index(fields=["-created_at", "-session_key"], name="session_scope_newest")]

    def __str__(self) -> str:
        return self.session_key
