"""MCP servers: make, change, delete; grants and credentials go with them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from mcpservers import rules, selectors
from mcpservers.errors import McpServerExistsError
from mcpservers.models import McpCredential, McpHealth, McpServer
from opencrane.actor import Actor
from opencrane.errors import InvalidError
from opencrane.rows import REQUIRED, Fields, unique
from operations.services import audit
from policies.models import Grant
from policies.services.grants import delete_grants, set_grants

Precondition = Callable[[int], None]
Values = dict[str, Any]
_FIELDS = Fields(
    {
        "name": REQUIRED,
        "endpoint": REQUIRED,
        "transport": REQUIRED,
        "description": "",
        "scope": McpServer.Scope.ORG.value,
        "status": McpServer.Status.DRAFT.value,
        "capabilities": None,
        "source_id": "",
    },
    {"source_id": "sourceId"},
)
_record = audit.Trail("mcp_server", "McpServer").record


def create_server(*, values: Values, actor: Actor) -> UUID:
    """Make a server and return its id.

    Args:
        values: fields of McpServer, `grants` (as `resolve_grants` takes them) and `credentials`, checked by the caller.

    Raises:
        McpServerExistsError: the name is taken.
        InvalidError: endpoint and transport do not fit, or a grant makes no sense.
        ReferenceNotFoundError: a grant names what does not exist.
    """
    server = McpServer()
    _FIELDS.fill(server, values)
    _check_endpoint(server)
    with _named(server.name), transaction.atomic(durable=True):
        server.save(force_insert=True)
        after = _FIELDS.shown(server) | _set_parts(server, values)[1]
        _record(server.name, "created", f"Created MCP server {server.name}.", None, after, actor)
    return server.pk


def update_server(
    *, server_id: UUID | None, changes: Values, precondition: Precondition = lambda _: None, actor: Actor
) -> None:
    """Set what `changes` holds; None clears. A list of grants or credentials replaces the old one whole.

    Changing nothing writes and audits nothing. A new endpoint or transport makes what probes found out void.

    Raises:
        McpServerNotFoundError, PreconditionFailedError, and as `create_server`.
    """
    with _named(changes.get("name")), transaction.atomic(durable=True):
        server = selectors.server_for_update(server_id)
        precondition(server.generation)
        before, after = _FIELDS.change(server, changes)
        _check_endpoint(server)
        gone, new_parts = _set_parts(server, changes)
        before |= gone
        after |= new_parts
        if not (before or after):
            return
        if {"endpoint", "transport"} & set(after):
            McpHealth.objects.filter(server=server).delete()
        server.generation += 1
        server.updated_at = server.next_probe_at = timezone.now()
        server.save()
        changed = ", ".join(sorted({*before, *after}))
        _record(server.name, "updated", f"Changed {changed} of MCP server {server.name}.", before, after, actor)


def delete_server(*, server_id: UUID | None, precondition: Precondition = lambda _: None, actor: Actor) -> None:
    """Remove a server with its credentials, and every grant about it.

    Raises:
        McpServerNotFoundError, PreconditionFailedError.
    """
    with transaction.atomic(durable=True):
        server = selectors.server_for_update(server_id)
        precondition(server.generation)
        grants = delete_grants(Grant.PayloadType.MCP_SERVER, str(server.pk))
        before = {"name": server.name, "endpoint": server.endpoint, "transport": server.transport}
        server.delete()
        message = f"Deleted MCP server {server.name}" + (f" and {grants} grants about it." if grants else ".")
        _record(server.name, "deleted", message, before, None, actor)


def add_credential(*, server_id: UUID | None, values: Values, actor: Actor) -> McpCredential:
    """Add a credential to a server.

    Raises:
        McpServerNotFoundError
    """
    with transaction.atomic(durable=True):
        server = selectors.server_for_update(server_id)
        credential = _credential(server, values)
        credential.save(force_insert=True)
        credential.refresh_from_db(fields=["created_at"])
        _touch(server)
        message = f"Added credential {credential.display_name} to MCP server {server.name}."
        _record(server.name, "credential_added", message, None, _audited(credential), actor)
    return credential


def delete_credential(*, server_id: UUID | None, credential_id: UUID | None, actor: Actor) -> None:
    """Remove a credential from a server.

    Raises:
        McpServerNotFoundError, McpCredentialNotFoundError.
    """
    with transaction.atomic(durable=True):
        server = selectors.server_for_update(server_id)
        credential = selectors.credential_for_update(server, credential_id)
        before = _audited(credential)
        credential.delete()
        _touch(server)
        message = f"Removed credential {before['displayName']} from MCP server {server.name}."
        _record(server.name, "credential_removed", message, before, None, actor)


def _set_parts(server: McpServer, values: Values) -> tuple[Values, Values]:
    """Replace grants and credentials where `values` has them; what went and what came."""
    before: Values = {}
    after: Values = {}
    if "grants" in values:
        before["grants"], after["grants"] = set_grants(
            Grant.PayloadType.MCP_SERVER, str(server.pk), values["grants"] or [], scope=server.scope
        )
    if "credentials" in values:
        before["credentials"], after["credentials"] = _replace_credentials(server, values["credentials"] or [])
    return {key: value for key, value in before.items() if value}, {key: value for key, value in after.items() if value}


def _replace_credentials(server: McpServer, wanted: list[Values]) -> tuple[list[Values], list[Values]]:
    """Make the server have exactly these; one that names its id, or says the same, stays the row it is."""
    present = {str(row.pk): row for row in McpCredential.objects.filter(server=server)}
    gone, came = [], []
    for values in wanted:
        new = _credential(server, values)
        match = present.get(str(values.get("id") or ""))
        match = match or next((row for row in present.values() if _audited(row) == _audited(new)), None)
        if match is None:
            new.save(force_insert=True)
            came.append(_audited(new))
            continue
        del present[str(match.pk)]
        if _audited(match) != _audited(new):
            gone.append(_audited(match))
            came.append(_audited(new))
            new.pk, new.created_at = match.pk, match.created_at
            new.save(force_update=True)
    gone += [_audited(row) for row in present.values()]
    McpCredential.objects.filter(pk__in=list(present)).delete()
    return gone, came


def _credential(server: McpServer, values: Values) -> McpCredential:
    return McpCredential(
        server=server,
        display_name=values["display_name"],
        brokering_mode=values.get("brokering_mode") or McpCredential.Mode.STATIC,
        secret_ref=values.get("secret_ref") or "",
    )


def _audited(credential: McpCredential) -> Values:
    found = {"displayName": credential.display_name, "brokeringMode": str(credential.brokering_mode)}
    return found | ({"secretRef": credential.secret_ref} if credential.secret_ref else {})


def _touch(server: McpServer) -> None:
    server.generation += 1
    server.updated_at = timezone.now()
    server.save(update_fields=["generation", "updated_at"])


def _check_endpoint(server: McpServer) -> None:
    try:
        rules.check_endpoint(server.endpoint, server.transport)
    except ValueError as exc:
        raise InvalidError(fields={"endpoint": [str(exc)]}) from exc


def _named(name: str | None) -> AbstractContextManager[None]:
    return unique("mcp_server_name_key", McpServerExistsError(f"There is an MCP server named {name} already."))
