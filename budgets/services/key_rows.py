"""What the modules of virtual keys share: what they are called, the row of one that is wanted, the audit trail."""

import hashlib
from typing import Any

from budgets.models import LitellmKey
from cluster.errors import KubeError
from opencrane.actor import Actor
from opencrane.errors import UpstreamError
from operations.services import audit
from tenants.models import Tenant
from tenants.workloads import namespace_of

TASK = "budgets.sync_key"
SECRET_KEY = "api-key"  # noqa: S105  (what the value is called in the Secret)
KEY_ID = "opencrane.io/litellm-key-id"

State = LitellmKey.State
LIVE = (State.WANTED, State.ACTIVE, State.RETIRING, State.REVOKING)


def alias_of(tenant: str) -> str:
    return f"opencrane-{tenant}"


def secret_of(tenant: str) -> str:
    return f"openclaw-{tenant}-litellm-key"


def token_of(value: str) -> str:
    """What LiteLLM calls a key."""
    return hashlib.sha256(value.encode()).hexdigest()


def home_of(cluster_tenant: str) -> str:
    """Where a tenant's Secret belongs.

    Raises:
        UpstreamError: no cluster is configured.
    """
    try:
        return namespace_of(cluster_tenant)
    except KubeError as exc:
        raise UpstreamError("The cluster is not configured.", detail=exc.message) from exc


def wanted_key(tenant: Tenant, *, replaces: LitellmKey | None = None, grace_seconds: int = 0) -> LitellmKey:
    """Note in the caller's transaction that a tenant is to have a key, and return its row."""
    return LitellmKey.objects.create(
        tenant_id=tenant.pk,
        tenant=tenant.name,
        alias=alias_of(tenant.name),
        namespace=home_of(tenant.cluster_tenant_ref),
        secret_name=secret_of(tenant.name),
        replaces=replaces.pk if replaces else None,
        grace_seconds=grace_seconds,
    )


def record(key: LitellmKey, verb: str, message: str, actor: Actor, *, before: Any = None, after: Any = None) -> None:
    """Write an audit entry about a key in the caller's transaction."""
    audit.record(
        action=f"litellm_key.{verb}",
        resource=f"LitellmKey/{key.tenant}",
        tenant=key.tenant,
        tenant_id=key.tenant_id,
        message=message,
        before=before,
        after=after,
        actor=actor,
    )
