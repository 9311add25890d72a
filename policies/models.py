"""Access policies: egress and MCP rules for the tenants that a selector picks."""

from django.db import models

from cluster.models import SyncedModel
from opencrane.jsonfield import ValueField


class AccessPolicy(SyncedModel):
    """A policy, kept as a row and as a custom resource `accesspolicies.opencrane.io`."""

    description = models.TextField(blank=True, default="")
    tenant_selector = ValueField(default=dict)
    domains = ValueField(default=dict)
    egress_rules = ValueField(default=list)
    mcp_servers = ValueField(default=dict)

    class Meta(SyncedModel.Meta):
        verbose_name_plural = "access policies"
