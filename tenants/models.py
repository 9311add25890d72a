"""Tenants and what belongs to them."""

import uuid

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Case, F, GeneratedField, Q, Value, When
from django.db.models.functions import Now

from cluster.models import SyncedModel
from opencrane.jsonfield import ValueField


class Phase(models.TextChoices):
    """What an operator is shown; the custom resource's own `status.phase` has the same values."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    ERROR = "Error"


class Tenant(SyncedModel):
    """One employee's agent: intent, sync record and projection of the custom resource `tenants.opencrane.io`.

    Money is US dollars per calendar month. Empty text and None both mean that a field is not set; a `skill_allowlist`
    of None lets a tenant use every skill it is entitled to, an empty list none.
    """

    display_name = models.CharField(max_length=200)
    email = models.EmailField(max_length=254)
    team = models.CharField(max_length=63, blank=True, default="")
    monthly_budget_usd = models.DecimalField(max_digits=18, decimal_places=6, null=True, blank=True)
    resources = ValueField(null=True, blank=True)
    skill_allowlist = ValueField(null=True, blank=True)
    policy_ref = models.CharField(max_length=253, blank=True, default="")
    config_overrides = ValueField(null=True, blank=True)
    openclaw_version = models.CharField(max_length=128, blank=True, default="")
    openclaw_image = models.CharField(max_length=512, blank=True, default="")
    cluster_tenant_ref = models.CharField(max_length=253, blank=True, default="")
    mcp_policy = ValueField(null=True, blank=True)
    awareness_wave = models.CharField(max_length=63, blank=True, default="")
    suspended = models.BooleanField(default=False)
    # The uid in the names of its volume claim and key: that of the resource they were first made for. Copied from the
    # status, and kept when the resource goes, so that one made again gets the same data.
    data_uid = models.CharField(max_length=64, blank=True, default="", editable=False)
    # Of a tenant that is being deleted: its data goes too.
    is_purged = models.BooleanField(default=False, editable=False)

    status_phase = models.CharField(max_length=20, blank=True, default="", editable=False)
    status_observed_generation = models.PositiveBigIntegerField(default=0, editable=False)
    pod_name = models.CharField(max_length=253, blank=True, default="", editable=False)
    ingress_host = models.CharField(max_length=253, blank=True, default="", editable=False)
    status_message = models.TextField(blank=True, default="", editable=False)

    # Suspended while it is meant to be; Pending while the status is older than the spec; else the cluster's word.
    phase = GeneratedField(
        expression=Case(
            When(suspended=True, then=Value("Suspended")),
            When(
                Q(status_phase="") | Q(status_observed_generation__lt=F("resource_generation")), then=Value("Pending")
            ),
            default=F("status_phase"),
        ),
        output_field=models.CharField(max_length=20, choices=Phase),
        db_persist=True,
    )
    # What lists give of the row, up to the phase: written when it changes and not at every reading; the migration makes
    # the function.
    document = GeneratedField(
        expression=models.Func(
            *(F(name) for name in ("name", "display_name", "email", "team", "ingress_host", "suspended", "created_at")),
            function="tenants_tenant_document",
        ),
        output_field=models.TextField(),
        db_persist=True,
    )

    class Meta(SyncedModel.Meta):
        indexes = [
            *SyncedModel.Meta.indexes,
            models.Index(fields=["phase", "-created_at", "-id"], name="tenant_phase"),
            models.Index(fields=["team", "-created_at", "-id"], name="tenant_team"),
            models.Index(models.functions.Lower("email"), name="tenant_email"),
            models.Index(fields=["policy_ref"], name="tenant_policy_ref", condition=~Q(policy_ref="")),
            models.Index(fields=["cluster_tenant_ref"], name="tenant_cluster_ref", condition=~Q(cluster_tenant_ref="")),
            GinIndex(fields=["resource_labels"], name="tenant_labels", opclasses=["jsonb_path_ops"]),
        ]


class RetainedData(models.Model):
    """Volume and encryption key that a deleted tenant has left in the cluster.

    A new tenant of the name gets them only if an administrator says so. `is_going` is set once somebody has asked for
    them to be deleted.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.CharField(max_length=253, db_collation="C")
    data_uid = models.CharField(max_length=64)
    namespace = models.CharField(max_length=253)
    is_going = models.BooleanField(default=False)
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "data_uid"], name="retained_data_once")]
        indexes = [models.Index(fields=["-created_at", "-id"], name="retained_data_newest")]

    def __str__(self) -> str:
        return f"{self.tenant} {self.data_uid}"


class ClusterTenant(SyncedModel):
    """A customer, the unit of isolation: a namespace, a quota, node placement and a base domain.

    Kept as a row and as a cluster-scoped custom resource `clustertenants.opencrane.io`.
    """

    class IsolationTier(models.TextChoices):
        SHARED = "shared"
        DEDICATED_NODES = "dedicatedNodes"
        DEDICATED_CLUSTER = "dedicatedCluster"

    display_name = models.CharField(max_length=200, blank=True, default="")
    base_domain = models.CharField(max_length=253, blank=True, default="")
    isolation_tier = models.CharField(max_length=20, choices=IsolationTier, default=IsolationTier.SHARED)
    compute = ValueField(default=dict)
    resources = ValueField(default=dict)

    status_phase = models.CharField(max_length=20, blank=True, default="", editable=False)
    status_message = models.TextField(blank=True, default="", editable=False)
    bound_namespace = models.CharField(max_length=253, blank=True, default="", editable=False)
    provisioner = models.CharField(max_length=40, blank=True, default="", editable=False)
    kubeconfig_secret_ref = models.CharField(max_length=600, blank=True, default="", editable=False)

    # What the provisioner has done, and when it has to look again.
    provisioned_generation = models.PositiveBigIntegerField(default=0, editable=False)
    provision_attempts = models.PositiveIntegerField(default=0, editable=False)
    provision_not_before = models.DateTimeField(db_default=Now(), editable=False)
    purge = models.BooleanField(default=False, editable=False)

    class Meta(SyncedModel.Meta):
        indexes = [
            *SyncedModel.Meta.indexes,
            models.Index(fields=["provision_not_before"], name="clustertenant_provision_due"),
        ]


class Deprovisioning(models.Model):
    """What a cluster tenant that is gone has left to be cleared away; outlives the row until it is done.

    Its name is not free before that. With `purge` the namespace goes, and what is in it.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    name = models.CharField(max_length=253, db_collation="C")
    namespace = models.CharField(max_length=253)
    provisioner = models.CharField(max_length=40)
    purge = models.BooleanField(default=False)
    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["created_at"]
        constraints = [models.UniqueConstraint(fields=["name"], name="deprovisioning_name_key")]

    def __str__(self) -> str:
        return self.name


class DatasetMembership(models.Model):
    """One dataset that a tenant may read, by scope. `org` needs no row: everyone has its `default`."""

    class Scope(models.TextChoices):
        TEAM = "team"
        PROJECT = "project"
        PERSONAL = "personal"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    scope = models.CharField(max_length=10, choices=Scope)
    dataset = models.CharField(max_length=253, db_collation="C")

    class Meta:
        ordering = ["scope", "dataset"]
        constraints = [models.UniqueConstraint(fields=["tenant", "scope", "dataset"], name="dataset_membership_once")]

    def __str__(self) -> str:
        return f"{self.scope}/{self.dataset}"
