"""Write the audit trail, always inside the transaction of the change it tells about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from cluster.rows import insert
from opencrane.actor import Actor
from opencrane.masking import mask, mask_text
from operations.models import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one audit entry says, without who did it; see `record` for the fields."""

    action: str
    resource: str
    message: str
    tenant: str = ""
    tenant_id: UUID | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


def record(
    *,
    action: str,
    resource: str,
    tenant: str = "",
    tenant_id: UUID | None = None,
    message: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    actor: Actor,
) -> None:
    """Insert one audit entry in the caller's transaction.

    Args:
        action: `noun.past_tense`, for example `tenant.suspended`; public and never renamed.
        resource: kind and name, for example `Tenant/anna`.
        tenant: the tenant it concerns, if any, by name; copied.
        tenant_id: the same tenant's UUID, which tells it from a later one of the same name.
        message: one sentence for people.
        before: the changed fields as they were; JSON values. Credential-like keys are masked here.
        after: the changed fields as they are.
        actor: who asked.

    Raises:
        TransactionManagementError: there is no transaction, so the entry could outlive or miss its change.
    """
    change = Change(
        action=action,
        resource=resource,
        tenant=tenant,
        tenant_id=tenant_id,
        message=message,
        before=before,
        after=after,
    )
    _require_transaction()
    insert(_entry(change, actor))


@dataclass(frozen=True, slots=True)
class Trail:
    """The entries about one kind of object.

    Attributes:
        noun: of its actions, as in `group.created`.
        kind: of its resources, as in `Group/engineers`.
    """

    noun: str
    kind: str

    def record(self, name: str, verb: str, message: str, before: Any, after: Any, actor: Actor) -> None:
        """Insert one entry in the caller's transaction; see `record` of this module."""
        resource = f"{self.kind}/{name}"
        record(
            action=f"{self.noun}.{verb}", resource=resource, message=message, before=before, after=after, actor=actor
        )


def record_many(changes: Sequence[Change], *, actor: Actor) -> None:
    """Insert one entry for each change, in their order and in one statement; otherwise as `record`."""
    _require_transaction()
    AuditEntry.objects.bulk_create([_entry(change, actor) for change in changes], batch_size=1000)


def _require_transaction() -> None:
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("An audit entry needs the transaction of the change it records.")


def _entry(change: Change, actor: Actor) -> AuditEntry:
    return AuditEntry(
        action=change.action,
        resource=change.resource,
        tenant=change.tenant,
        tenant_id=change.tenant_id,
        message=mask_text(change.message),
        before=None if change.before is None else mask(dict(change.before)),
        after=None if change.after is None else mask(dict(change.after)),
        actor_kind=actor.kind,
        actor_name=actor.name,
        actor_id=actor.user_id,
        actor_token=actor.token,
        request_id=actor.request_id,
        address=actor.address,
    )
