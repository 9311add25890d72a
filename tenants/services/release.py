"""Letting go of a tenant that its finalizer keeps, when the operator that should do it does not."""

import logging

from django.db import transaction

from cluster import intent
from cluster.client import cluster_client
from cluster.errors import KubeConflictError, KubeError
from cluster.resources import TENANTS
from opencrane.actor import Actor
from opencrane.errors import ConflictError
from opencrane.tasks import enqueue_on_commit
from tenants.errors import TenantNotFoundError
from tenants.services.kind import TENANT
from workloads.naming import FINALIZER

log = logging.getLogger(__name__)

RELEASE_TASK = "tenants.release_tenant"


@transaction.atomic(durable=True)
def release_tenant(*, name: str, reason: str = "", actor: Actor) -> None:
    """Have the finalizer of a tenant that is being deleted taken away; whatever runs may stay behind.

    Raises:
        TenantNotFoundError: it is gone.
        ConflictError: nobody has asked for it to be deleted.
    """
    tenant = intent.locked_row(TENANT, name)
    if tenant is None:
        raise TenantNotFoundError(f"There is no tenant named {name}.")
    if not tenant.deleting:
        raise ConflictError(f"{name} is not being deleted.", detail="Delete it first.")
    message = f"Let go of tenant {name} without waiting for its objects to be removed."
    TENANT.record(tenant, "released", message + (f" Reason: {reason}" if reason else ""), actor=actor)
    enqueue_on_commit(RELEASE_TASK, name)


def take_finalizer(name: str) -> None:
    """Take the operator's finalizer from a resource that is being deleted. Repeatable."""
    client = cluster_client()
    try:
        live = client.get(TENANTS, name)
        finalizers = ((live or {}).get("metadata") or {}).get("finalizers") or []
        if live is None or not live["metadata"].get("deletionTimestamp") or FINALIZER not in finalizers:
            return
        path = f"/metadata/finalizers/{finalizers.index(FINALIZER)}"
        client.json_patch(
            TENANTS,
            name,
            [
                {"op": "test", "path": "/metadata/uid", "value": live["metadata"]["uid"]},
                {"op": "test", "path": path, "value": FINALIZER},
                {"op": "remove", "path": path},
            ],
        )
    except KubeConflictError as exc:
        log.info("tenant %s changed while it was let go: %s", name, exc.message)
    except KubeError as exc:
        log.warning("tenant %s could not be let go: %s", name, exc.message)
