"""What deleted tenants leave in the cluster: kept on record, taken over, or deleted, each only when asked for.

A volume claim and its key carry the uid of the resource they were made for in their names, so a new tenant of an old
name cannot get them by accident. The record is what makes that visible before a name is used again.
"""

import logging
from uuid import UUID

from django.db import transaction

from cluster.client import cluster_client
from cluster.errors import KubeError
from cluster.resources import SECRETS, VOLUME_CLAIMS
from opencrane.actor import Actor
from opencrane.errors import ReferenceNotFoundError
from opencrane.tasks import enqueue_on_commit
from operations.services import audit
from tenants.errors import RetainedDataError, RetainedDataNotFoundError
from tenants.models import RetainedData, Tenant
from tenants.workloads import namespace_of
from workloads import naming

log = logging.getLogger(__name__)

PURGE_TASK = "tenants.purge_retained"
CHECKED_AT_ONCE = 500


def keep(tenant: Tenant) -> None:
    """Put on record what a tenant leaves, in the caller's transaction; nothing when it never had a volume."""
    if tenant.data_uid:
        RetainedData.objects.update_or_create(
            tenant=tenant.name,
            data_uid=tenant.data_uid,
            defaults={"namespace": namespace_of(tenant.cluster_tenant_ref), "is_going": False, "error": ""},
        )


def take_over(tenant: Tenant, *, adopt: bool) -> None:
    """Settle what a new tenant of an old name has to do with its data; in the transaction that makes it.

    Args:
        adopt: whether it gets the newest data that a tenant of its name has left.

    Raises:
        RetainedDataError: there is some, and nothing was said about it.
        ReferenceNotFoundError: there is none to adopt.
    """
    found = RetainedData.objects.select_for_update().filter(tenant=tenant.name).first()
    if found is None:
        if adopt:
            raise ReferenceNotFoundError(fields={"adoptRetained": [f"No tenant named {tenant.name} has left data."]})
        return
    if not adopt or found.is_going:
        raise RetainedDataError(
            f"A deleted tenant named {tenant.name} has left data in the cluster.",
            detail="It is being deleted; try again soon."
            if found.is_going
            else "An administrator may take it over with adoptRetained, or delete it: see /api/v1/retained-data.",
        )
    tenant.data_uid = found.data_uid
    found.delete()


@transaction.atomic(durable=True)
def delete_retained(*, data_id: UUID | None, reason: str = "", actor: Actor) -> RetainedData:
    """Ask for retained data to be deleted for good; a worker does it. A second call changes nothing.

    Raises:
        RetainedDataNotFoundError: it is gone, or was taken over, or `data_id` is none.
    """
    found = None if data_id is None else RetainedData.objects.select_for_update().filter(pk=data_id).first()
    if found is None:
        raise RetainedDataNotFoundError
    if not found.is_going:
        found.is_going = True
        found.save(update_fields=["is_going"])
        message = f"Asked for the data that tenant {found.tenant} left to be deleted."
        audit.record(
            action="retained_data.delete_requested",
            resource=f"RetainedData/{found.tenant}",
            tenant=found.tenant,
            message=message + (f" Reason: {reason}" if reason else ""),
            before={"dataUid": found.data_uid, "namespace": found.namespace},
            actor=actor,
        )
    enqueue_on_commit(PURGE_TASK, str(found.pk))
    return found


def purge(data_id: UUID) -> None:
    """Delete volume claim and key of retained data, then the record. Repeatable; a failure is noted on the record."""
    found = RetainedData.objects.filter(pk=data_id, is_going=True).first()
    if found is None:
        return
    names = {
        VOLUME_CLAIMS: naming.claim_name(found.tenant, found.data_uid),
        SECRETS: naming.key_name(found.tenant, found.data_uid),
    }
    try:
        client = cluster_client()
        for resource, name in names.items():
            live = client.get(resource, name, namespace=found.namespace)
            if live is not None:
                client.delete(resource, name, uid=live["metadata"]["uid"], namespace=found.namespace)
    except KubeError as exc:
        RetainedData.objects.filter(pk=data_id).update(error=exc.message)
        log.warning("data of %s could not be deleted: %s", found.tenant, exc.message)
        return
    found.delete()


def sweep() -> None:
    """Delete what was asked for and not done yet, and forget records of data that somebody has deleted."""
    for data_id in RetainedData.objects.filter(is_going=True).values_list("pk", flat=True)[:CHECKED_AT_ONCE]:
        purge(data_id)
    for found in RetainedData.objects.filter(is_going=False).order_by("?")[:CHECKED_AT_ONCE]:
        name = naming.claim_name(found.tenant, found.data_uid)
        try:
            is_there = cluster_client().get(VOLUME_CLAIMS, name, namespace=found.namespace) is not None
        except KubeError as exc:
            log.warning("cannot tell whether the data of %s is there: %s", found.tenant, exc.message)
            return
        if not is_there:
            found.delete()
