"""Set and clear what a session may see."""

from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from awareness import sessions
from awareness.errors import OverScopeError, SessionScopeNotFoundError
from awareness.models import SessionScope
from awareness.sessions import Selector
from opencrane.actor import Actor
from operations.services import audit
from tenants.models import Tenant


@transaction.atomic(durable=True)
def set_session_scope(
    *, session_key: str, principal: str, scopes: Sequence[Selector], actor: Actor
) -> tuple[SessionScope, list[Selector]]:
    """Let a session see what is both asked for and granted to its principal; returns the row and what was rejected.

    Args:
        session_key: 1 to 512 characters; a scope that the session has already is replaced, whoever's it was.
        principal: a tenant's name, or a person's e-mail address.
        scopes: pairs `{scope, payloadId}`. The grant's scope counts, never the one given.
        actor: who asked.

    Raises:
        OverScopeError: nothing of it is granted, or nobody knows the principal; what is stored stays as it is.
    """
    found = sessions.principal_named(principal)
    if found is None:
        raise OverScopeError(detail="The principal is neither a tenant nor an e-mail address.")
    who, tenant = found
    if tenant is not None:
        _hold(tenant)
    granted, rejected = sessions.intersect(scopes, sessions.granted_scopes(who))
    if not granted:
        raise OverScopeError(detail="No grant allows the principal any of these payloads; nothing was stored.")
    name = tenant.name if tenant is not None else who.email
    row = SessionScope.objects.select_for_update().filter(pk=session_key).first()
    before = None if row is None else _shown(row)
    if row is not None and row.scopes == granted and row.principal == name and row.tenant_id == _id(tenant):
        return row, rejected
    values: dict[str, Any] = {
        "principal": name,
        "tenant": tenant,
        "scopes": granted,
        "updated_at": timezone.now(),
    }
    row, _ = SessionScope.objects.update_or_create(
        pk=session_key, defaults=values, create_defaults=values | {"created_at": values["updated_at"]}
    )
    audit.record(
        action="session_scope.set",
        resource=f"SessionScope/{session_key}",
        tenant=tenant.name if tenant is not None else "",
        tenant_id=_id(tenant),
        message=f"Set the scope of a session of {name}: {len(granted)} granted, {len(rejected)} rejected.",
        before=before,
        after=_shown(row),
        actor=actor,
    )
    return row, rejected


@transaction.atomic(durable=True)
def clear_session_scope(*, session_key: str, actor: Actor) -> None:
    """Take away what a session may see.

    Raises:
        SessionScopeNotFoundError
    """
    row = SessionScope.objects.select_for_update(of=("self",)).select_related("tenant").filter(pk=session_key).first()
    if row is None:
        raise SessionScopeNotFoundError
    row.delete()
    audit.record(
        action="session_scope.cleared",
        resource=f"SessionScope/{session_key}",
        tenant=row.tenant.name if row.tenant is not None else "",
        tenant_id=row.tenant_id,
        message=f"Cleared the scope of a session of {row.principal}.",
        before=_shown(row),
        actor=actor,
    )


def _hold(tenant: Tenant) -> None:
    """Keep the tenant's row from going until the transaction ends; what comes later drops the session with it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM tenants_tenant WHERE id = %s AND NOT deleting FOR KEY SHARE", [tenant.pk])
        if cursor.fetchone() is None:
            raise OverScopeError(detail="The tenant is being deleted.")


def _id(tenant: Tenant | None) -> Any:
    return None if tenant is None else tenant.pk


def _shown(row: SessionScope) -> dict[str, Any]:
    return {"principal": row.principal, "scopes": row.scopes}
