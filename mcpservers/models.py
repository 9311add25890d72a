"""MCP servers, their credentials by reference, and what probes have found out about them."""

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opencrane.jsonfield import ValueField


class McpServer(models.Model):
    """An MCP server that grants can give to tenants. `status` is the operator's word, health the probe's.

    `next_probe_at` is when a probe is due, `is_probe_wanted` that somebody asked for one whatever the status is.
    """

    class Transport(models.TextChoices):
        STREAMABLE_HTTP = "streamable-http"
        SSE = "sse"
        WEBSOCKET = "websocket"

    class Status(models.TextChoices):
        ACTIVE = "active"
        DEGRADED = "degraded"
        DRAFT = "draft"

    class Scope(models.TextChoices):
        ORG = "org"
        DEPARTMENT = "department"
        PROJECT = "project"
        PERSONAL = "personal"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=253, db_collation="C")
    description = models.TextField(blank=True, default="")
    endpoint = models.CharField(max_length=2048)
    transport = models.CharField(max_length=20, choices=Transport)
    scope = models.CharField(max_length=20, choices=Scope, default=Scope.ORG)
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT)
    capabilities = ValueField(null=True, blank=True)
    source_id = models.CharField(max_length=64, blank=True, default="")
    generation = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    next_probe_at = models.DateTimeField(db_default=Now(), editable=False)
    is_probe_wanted = models.BooleanField(default=False, editable=False)
    # What answers give of the row, written when it changes and not at every reading; the migration makes the function.
    document = models.GeneratedField(
        expression=models.Func(
            *(
                models.F(name)
                for name in (
                    "id", "name", "description", "endpoint", "transport", "scope", "status", "capabilities",
                    "source_id", "created_at", "updated_at",
                )
            ),
            function="mcpservers_server_document",
        ),
        output_field=models.TextField(),
        db_persist=True,
    )  # fmt: skip

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["name"], name="mcp_server_name_key")]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="mcp_server_newest"),
            models.Index(
                fields=["next_probe_at"],
                name="mcp_server_due",
                condition=Q(status="active") | Q(is_probe_wanted=True),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class McpCredential(models.Model):
    """How a server is logged in to: a reference to a secret, or the user's own token, exchanged. Never a value."""

    class Mode(models.TextChoices):
        STATIC = "static"
        OBO = "obo"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    server = models.ForeignKey(McpServer, on_delete=models.CASCADE, related_name="credentials")
    display_name = models.CharField(max_length=200)
    brokering_mode = models.CharField(max_length=10, choices=Mode, default=Mode.STATIC)
    secret_ref = models.CharField(max_length=600, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [
            models.CheckConstraint(
                name="credential_has_what_it_needs",
                condition=Q(brokering_mode="static") & ~Q(secret_ref="") | Q(brokering_mode="obo", secret_ref=""),
            )
        ]

    def __str__(self) -> str:
        return self.display_name


class McpHealth(models.Model):
    """What probes say about a server. It changes its word only after several probes agree."""

    class State(models.TextChoices):
        UNKNOWN = "unknown"
        HEALTHY = "healthy"
        UNHEALTHY = "unhealthy"

    server = models.OneToOneField(McpServer, on_delete=models.CASCADE, primary_key=True, related_name="health")
    state = models.CharField(max_length=10, choices=State, default=State.UNKNOWN)
    since = models.DateTimeField(db_default=Now())
    successes = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    probed_at = models.DateTimeField(null=True)
    latency_ms = models.FloatField(null=True)
    error = models.TextField(blank=True, default="")
    server_name = models.CharField(max_length=200, blank=True, default="")
    server_version = models.CharField(max_length=200, blank=True, default="")
    protocol_version = models.CharField(max_length=40, blank=True, default="")
    tools = ValueField(default=list)
    # As `McpServer.document`.
    document = models.GeneratedField(
        expression=models.Func(
            *(
                models.F(name)
                for name in (
                    "state", "since", "failures", "probed_at", "latency_ms", "error", "server_name", "server_version",
                    "protocol_version", "tools",
                )
            ),
            function="mcpservers_health_document",
        ),
        output_field=models.TextField(),
        db_persist=True,
    )  # fmt: skip

    class Meta:
        verbose_name_plural = "MCP health"

    def __str__(self) -> str:
        return f"{self.server_id}: {self.state}"


class McpProbe(models.Model):
    """One probe; only the newest of each server are kept."""

    server = models.ForeignKey(McpServer, on_delete=models.CASCADE, related_name="probes", db_index=False)
    at = models.DateTimeField(db_default=Now())
    ok = models.BooleanField()
    latency_ms = models.FloatField(null=True)
    error = models.TextField(blank=True, default="")
    tool_count = models.PositiveIntegerField(null=True)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [models.Index(fields=["server", "-at", "-id"], name="mcp_probe_newest")]

    def __str__(self) -> str:
        return f"{self.server_id} {'ok' if self.ok else self.error}"
