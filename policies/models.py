"""Access policies: egress and MCP rules for the tenants that a selector picks."""

from typing import Any

from django.db import models

from cluster.models import SyncedModel


class AccessPolicy(SyncedModel):
    """A policy, kept as a row and as a custom resource `accesspolicies.opencrane.io`."""

    description = models.TextField(blank=True, default="")
    tenant_selector: models.JSONField[Any, Any] = models.JSONField(default=dict)
    domains: models.JSONField[Any, Any] = models.JSONField(default=dict)
    egress_rules: models.JSONField[Any, Any] = models.JSONField(default=list)
    mcp_servers: models.JSONField[Any, Any] = models.JSONField(default=dict)

    class Meta(SyncedModel.Meta):
        verbose_name_plural = "access policies"
