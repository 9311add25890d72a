"""Access policies, groups, grants, and the pushes of what they give to Cognee."""

import uuid

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from cluster.models import SyncedModel
from opencrane.jsonfield import ValueField


class AccessPolicy(SyncedModel):
    """Egress and MCP rules for some tenants, kept as a row and as a custom resource `accesspolicies.opencrane.io`.

    None and empty text mean that a field is not set. A `tenant_selector` of None picks nobody (the policy is then only
    for tenants that name it), an empty one everybody, as selectors in Kubernetes do.
    """

    description = models.TextField(blank=True, default="")
    tenant_selector = ValueField(null=True, blank=True)
    domains = ValueField(null=True, blank=True)
    egress_rules = ValueField(null=True, blank=True)
    mcp_servers = ValueField(null=True, blank=True)

    class Meta(SyncedModel.Meta):
        verbose_name_plural = "access policies"


class Scope(models.TextChoices):
    """How far something reaches. `team` is for skills alone."""

    ORG = "org"
    DEPARTMENT = "department"
    TEAM = "team"
    PROJECT = "project"
    PERSONAL = "personal"


class Group(models.Model):
    """Tenants and people whom grants can name together. `generation` counts changes, also of members and grants."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=253, db_collation="C")
    scope = models.CharField(max_length=20, choices=Scope, default=Scope.ORG)
    description = models.TextField(blank=True, default="")
    generation = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["name"], name="group_name_key")]
        indexes = [models.Index(fields=["-created_at", "-id"], name="group_newest")]

    def __str__(self) -> str:
        return self.name


class GroupMember(models.Model):
    """A tenant or a lower-case e-mail address in a group.

    A tenant is held by its row, so that a later tenant of the same name does not inherit the membership.
    """

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="members")
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, null=True, db_index=False, related_name="+")
    email = models.CharField(max_length=254, blank=True, default="", db_collation="C")

    class Meta:
        ordering = ["group", "id"]
        constraints = [
            models.UniqueConstraint(fields=["group", "tenant", "email"], name="member_once", nulls_distinct=False),
            models.CheckConstraint(
                name="member_is_one", condition=Q(tenant=None) & ~Q(email="") | Q(tenant__isnull=False, email="")
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "group"], name="member_tenant", condition=Q(tenant__isnull=False)),
            models.Index(fields=["email", "group"], name="member_email", condition=~Q(email="")),
        ]

    def __str__(self) -> str:
        return self.email or str(self.tenant_id)


class Grant(models.Model):
    """Allow or deny of one payload to one subject.

    The subject is a row, or for `user` a lower-case name, in practice an e-mail address. `listed_in` is the group in
    whose list an awareness grant stands, which is not always the group it is for. Grants are never changed: a list that
    is replaced keeps the rows that stay the same, so that `created_at` says how long a grant has been as it is.
    """

    class PayloadType(models.TextChoices):
        AWARENESS = "awareness"
        MCP_SERVER = "mcp-server"
        SKILL = "skill-bundle"

    class SubjectType(models.TextChoices):
        TENANT = "tenant"
        USER = "user"
        GROUP = "group"

    class Access(models.TextChoices):
        ALLOW = "allow"
        DENY = "deny"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    payload_type = models.CharField(max_length=20, choices=PayloadType)
    payload_id = models.CharField(max_length=253, db_collation="C")
    subject_type = models.CharField(max_length=10, choices=SubjectType)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, null=True, db_index=False, related_name="+")
    group = models.ForeignKey(Group, on_delete=models.CASCADE, null=True, db_index=False, related_name="+")
    user = models.CharField(max_length=254, blank=True, default="", db_collation="C")
    listed_in = models.ForeignKey(Group, on_delete=models.CASCADE, null=True, related_name="grants")
    access = models.CharField(max_length=5, choices=Access)
    scope = models.CharField(max_length=20, choices=Scope)
    priority = models.IntegerField(default=0)
    note = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # Grants never change, so PostgreSQL writes their JSON once, up to the subject's name, which may change: lists of
    # thousands of grants cost a third of what they would otherwise. The function is made by the migration.
    document = models.GeneratedField(
        expression=models.Func(
            *(
                models.F(name)
                for name in (
                    "id", "payload_id", "scope", "subject_type", "group_id", "tenant_id", "user", "access", "priority",
                    "note", "created_at",
                )
            ),
            function="policies_grant_document",
        ),
        output_field=models.TextField(),
        db_persist=True,
    )  # fmt: skip

    class Meta:
        ordering = ["-priority", "access", "-created_at", "id"]
        constraints = [
            models.CheckConstraint(
                name="grant_has_one_subject",
                condition=Q(subject_type="tenant", tenant__isnull=False, group=None, user="")
                | Q(subject_type="group", tenant=None, group__isnull=False, user="")
                | Q(subject_type="user", tenant=None, group=None) & ~Q(user=""),
            ),
        ]
        indexes = [
            # In the order in which they decide: `deny` comes after `allow` in the alphabet.
            models.Index(
                fields=["payload_type", "payload_id", "-priority", "-access", "-created_at", "id"],
                name="grant_payload_order",
            ),
            models.Index(fields=["tenant", "payload_type"], name="grant_tenant", condition=Q(tenant__isnull=False)),
            models.Index(fields=["group", "payload_type"], name="grant_group", condition=Q(group__isnull=False)),
            models.Index(fields=["user", "payload_type"], name="grant_user", condition=~Q(user="")),
        ]

    def __str__(self) -> str:
        return f"{self.access} {self.payload_type} {self.payload_id}"


class AwarenessPush(models.Model):
    """What Cognee has yet to be told about one tenant's awareness grants. Changes meanwhile join it."""

    tenant = models.OneToOneField("tenants.Tenant", on_delete=models.CASCADE, primary_key=True, related_name="+")
    wanted = models.PositiveBigIntegerField(default=1)
    pushed = models.PositiveBigIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    last_error = models.TextField(blank=True, default="")
    pushed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["not_before"]
        constraints = [models.CheckConstraint(name="push_not_ahead", condition=Q(pushed__lte=F("wanted")))]
        indexes = [models.Index(fields=["not_before"], name="push_due", condition=Q(pushed__lt=F("wanted")))]

    def __str__(self) -> str:
        return f"{self.tenant_id}: {self.wanted - self.pushed} behind"
