"""Skill bundles: what an agent can be taught, what scans have found in them, and how far they are to reach."""

import uuid

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opencrane.jsonfield import ValueField
from policies.models import Scope


class BundleManager(models.Manager["SkillBundle"]):
    """Leaves the content, which may be 10 MiB, in the database until somebody asks for it."""

    def get_queryset(self) -> models.QuerySet["SkillBundle"]:
        return super().get_queryset().defer("content")


class SkillBundle(models.Model):
    """One version of one skill.

    `content` is None where the bundle is known by its digest alone; `content_size` says so without loading it.
    `scan_status` and the findings are about the content with `digest`; `is_cleared` is what the last scan of it that
    came to an end has said, so that a published bundle that is scanned again stays where it is used meanwhile.
    `oci_*` say how far the OCI store has it: `pending` waits for a worker from `oci_not_before` on, `failed` has been
    given up until somebody asks again.
    """

    class Status(models.TextChoices):
        DRAFT = "draft"
        REVIEW = "review"
        PUBLISHED = "published"
        DEPRECATED = "deprecated"

    class ScanStatus(models.TextChoices):
        PENDING = "pending"
        SCANNING = "scanning"
        PASSED = "passed"
        FAILED = "failed"
        UNAVAILABLE = "unavailable"

    class OciState(models.TextChoices):
        NONE = "none"
        PENDING = "pending"
        PUSHED = "pushed"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=253, db_collation="C")
    version = models.CharField(max_length=128, db_collation="C")
    description = models.TextField(blank=True, default="")
    scope = models.CharField(max_length=20, choices=Scope)
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT)
    tags = ValueField(default=list, blank=True)
    source_name = models.CharField(max_length=253, blank=True, default="", db_collation="C")
    published_at = models.DateTimeField(null=True, blank=True)
    generation = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    content = models.BinaryField(null=True, blank=True)
    content_size = models.PositiveIntegerField(null=True, blank=True)
    content_type = models.CharField(max_length=255, default="text/markdown")
    digest = models.CharField(max_length=71, db_collation="C")

    scan_status = models.CharField(max_length=12, choices=ScanStatus, default=ScanStatus.PENDING, editable=False)
    is_cleared = models.BooleanField(default=False, editable=False)
    scan_error = models.TextField(blank=True, default="", editable=False)
    scan_attempts = models.PositiveIntegerField(default=0, editable=False)
    scan_not_before = models.DateTimeField(db_default=Now(), editable=False)
    scanned_at = models.DateTimeField(null=True, editable=False)
    # Which scanners ran, in order: [{name, version, seconds, findings}].
    scanners = ValueField(default=list, editable=False)
    # How many findings there are of each severity that has any.
    severities = ValueField(default=dict, editable=False)

    oci_state = models.CharField(max_length=10, choices=OciState, default=OciState.NONE, editable=False)
    oci_digest = models.CharField(max_length=71, blank=True, default="", editable=False)
    oci_reference = models.CharField(max_length=512, blank=True, default="", editable=False)
    oci_error = models.TextField(blank=True, default="", editable=False)
    oci_attempts = models.PositiveIntegerField(default=0, editable=False)
    oci_not_before = models.DateTimeField(db_default=Now(), editable=False)
    oci_pushed_at = models.DateTimeField(null=True, editable=False)

    objects = BundleManager()

    class Meta:
        base_manager_name = "objects"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["name", "version"], name="skill_bundle_version_key"),
            models.CheckConstraint(
                name="skill_bundle_size",
                condition=Q(content=None, content_size=None) | Q(content__isnull=False, content_size__isnull=False),
            ),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="skill_bundle_newest"),
            models.Index(fields=["digest"], name="skill_bundle_digest"),
            GinIndex(fields=["tags"], name="skill_bundle_tags", opclasses=["jsonb_path_ops"]),
            models.Index(
                fields=["scan_not_before"],
                name="skill_bundle_scan_due",
                condition=Q(scan_status__in=["pending", "scanning"]),
            ),
            models.Index(fields=["oci_not_before"], name="skill_bundle_push_due", condition=Q(oci_state="pending")),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class ScanFinding(models.Model):
    """What a scanner has found in a bundle's present content. Of secrets the place is kept, never the text.

    `path` is the file inside an archive, empty for content that is one text; `line` counts from 1, None where a
    finding is about the whole.
    """

    class Severity(models.TextChoices):
        CRITICAL = "critical"
        HIGH = "high"
        MEDIUM = "medium"
        LOW = "low"
        INFO = "info"

    bundle = models.ForeignKey(SkillBundle, on_delete=models.CASCADE, related_name="findings", db_index=False)
    position = models.PositiveIntegerField()
    scanner = models.CharField(max_length=40)
    rule = models.CharField(max_length=120)
    severity = models.CharField(max_length=10, choices=Severity)
    path = models.CharField(max_length=1024, blank=True, default="")
    line = models.PositiveIntegerField(null=True)
    message = models.TextField()

    class Meta:
        ordering = ["bundle", "position"]
        constraints = [models.UniqueConstraint(fields=["bundle", "position"], name="scan_finding_order")]

    def __str__(self) -> str:
        return f"{self.severity} {self.rule}"


class SkillPromotion(models.Model):
    """A wish, and what became of it, that a bundle reaches further than it does."""

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        APPROVED = "approved"
        REJECTED = "rejected"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    bundle = models.ForeignKey(SkillBundle, on_delete=models.CASCADE, related_name="promotions")
    from_scope = models.CharField(max_length=20, choices=Scope)
    to_scope = models.CharField(max_length=20, choices=Scope)
    promoted_by = models.CharField(max_length=254, blank=True, default="")
    status = models.CharField(max_length=10, choices=Status, default=Status.PROPOSED)
    notes = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return f"{self.from_scope} to {self.to_scope}: {self.status}"


class ThirdPartySource(models.Model):
    """A place that skills and MCP servers are taken from, once an operator has approved it.

    `state` is what the last sync, or the lack of an approval, left; whether a sync is under way its job says. A source
    that changes its address or type waits for approval again.
    """

    class Type(models.TextChoices):
        MCP_REGISTRY = "mcp-registry"
        ANTHROPIC_SKILLS = "anthropic-skills"
        GIT_REPOSITORY = "git-repository"
        MANUAL_UPLOAD = "manual-upload"

    class SyncMode(models.TextChoices):
        SCHEDULED = "scheduled"
        MANUAL = "manual"

    class State(models.TextChoices):
        PENDING_APPROVAL = "pending-approval"
        HEALTHY = "healthy"
        ERROR = "error"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=253, db_collation="C")
    type = models.CharField(max_length=20, choices=Type)
    url = models.CharField(max_length=2048)
    # A branch or tag of a repository; empty for the one that the repository itself prefers.
    ref = models.CharField(max_length=200, blank=True, default="")
    sync_mode = models.CharField(max_length=10, choices=SyncMode, default=SyncMode.MANUAL)
    state = models.CharField(max_length=20, choices=State, default=State.PENDING_APPROVAL, editable=False)
    sync_error = models.TextField(blank=True, default="", editable=False)
    # What was read last: a commit, or nothing for a registry.
    revision = models.CharField(max_length=64, blank=True, default="", editable=False)
    approved_by = models.CharField(max_length=254, blank=True, default="", editable=False)
    approved_at = models.DateTimeField(null=True, editable=False)
    last_synced_at = models.DateTimeField(null=True, editable=False)
    next_sync_at = models.DateTimeField(db_default=Now(), editable=False)
    generation = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["name"], name="skill_source_name_key")]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="skill_source_newest"),
            models.Index(
                fields=["next_sync_at"],
                name="skill_source_due",
                condition=Q(sync_mode="scheduled") & ~Q(state="pending-approval"),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class SourceItemManager(models.Manager["SourceItem"]):
    """Leaves the content in the database until somebody asks for it."""

    def get_queryset(self) -> models.QuerySet["SourceItem"]:
        return super().get_queryset().defer("content")


class SourceItem(models.Model):
    """Something that a source offers, as its last sync found it; `is_gone` when it no longer did.

    `problem` says why it cannot be imported, empty when it can. A skill has its `content`; of an MCP server `details`
    holds `endpoint` and `transport`.
    """

    class Kind(models.TextChoices):
        SKILL = "skill"
        MCP_SERVER = "mcp-server"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source = models.ForeignKey(ThirdPartySource, on_delete=models.CASCADE, related_name="items", db_index=False)
    kind = models.CharField(max_length=10, choices=Kind)
    upstream_id = models.CharField(max_length=1024, db_collation="C")
    name = models.CharField(max_length=253, db_collation="C")
    version = models.CharField(max_length=128)
    digest = models.CharField(max_length=71)
    description = models.TextField(blank=True, default="")
    details = ValueField(default=dict)
    content = models.BinaryField(null=True)
    content_type = models.CharField(max_length=255, blank=True, default="")
    problem = models.TextField(blank=True, default="")
    is_gone = models.BooleanField(default=False)
    found_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    objects = SourceItemManager()

    class Meta:
        base_manager_name = "objects"
        ordering = ["name", "id"]
        constraints = [models.UniqueConstraint(fields=["source", "kind", "upstream_id"], name="source_item_key")]
        indexes = [models.Index(fields=["source", "name", "id"], name="source_item_order")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.version}"


class SourceImport(models.Model):
    """What became of an item: a bundle or an MCP server, made from it as it was then."""

    id = models.BigAutoField(primary_key=True)
    item = models.ForeignKey(SourceItem, on_delete=models.CASCADE, related_name="imports", db_index=False)
    bundle = models.ForeignKey(SkillBundle, on_delete=models.CASCADE, null=True, related_name="imports")
    server = models.ForeignKey("mcpservers.McpServer", on_delete=models.CASCADE, null=True, related_name="+")
    version = models.CharField(max_length=128)
    digest = models.CharField(max_length=71)
    imported_by = models.CharField(max_length=254, blank=True, default="")
    imported_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-imported_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="source_import_is_one",
                condition=Q(bundle=None, server__isnull=False) | Q(bundle__isnull=False, server=None),
            )
        ]
        indexes = [models.Index(fields=["item", "-imported_at", "-id"], name="source_import_newest")]

    def __str__(self) -> str:
        return f"{self.item_id}: {self.version}"
