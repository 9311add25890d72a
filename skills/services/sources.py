"""Third-party sources: make, change, approve, delete; and take over what they offer."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from mcpservers.errors import McpServerExistsError
from mcpservers.models import McpServer
from mcpservers.services import servers
from opencrane.actor import Actor
from opencrane.errors import ConflictError, InvalidError
from opencrane.rows import REQUIRED, Fields, unique
from operations.services import audit
from skills import source_reading, source_rules
from skills.errors import SkillBundleExistsError, ThirdPartySourceExistsError
from skills.models import SkillBundle, SourceImport, SourceItem, ThirdPartySource
from skills.services import bundles

Precondition = Callable[[int], None]
Values = dict[str, Any]
_FIELDS = Fields(
    {
        "name": REQUIRED,
        "type": REQUIRED,
        "url": REQUIRED,
        "ref": "",
        "sync_mode": ThirdPartySource.SyncMode.MANUAL.value,
    },
    {"sync_mode": "syncMode"},
)
_record = audit.Trail("third_party_source", "ThirdPartySource").record
# What was approved is a place and the way it is read.
_APPROVED = {"type", "url", "ref"}
_PENDING = ThirdPartySource.State.PENDING_APPROVAL


def create_source(*, values: Values, actor: Actor) -> UUID:
    """Make a source, which waits for its approval, and return its id.

    Raises:
        ThirdPartySourceExistsError: the name is taken.
        InvalidError: the address does not fit the type.
    """
    source = ThirdPartySource()
    _FIELDS.fill(source, values)
    _check(source)
    with _named(source.name), transaction.atomic(durable=True):
        source.save(force_insert=True)
        created = f"Created third-party source {source.name}."
        _record(source.name, "created", created, None, _FIELDS.shown(source), actor)
    return source.pk


def update_source(
    *, source_id: UUID | None, changes: Values, precondition: Precondition = lambda _: None, actor: Actor
) -> None:
    """Set what `changes` holds; None clears. A source that is to be read elsewhere waits for approval again.

    Changing nothing writes and audits nothing.

    Raises:
        ThirdPartySourceNotFoundError, PreconditionFailedError, and as `create_source`.
    """
    with _named(changes.get("name")), transaction.atomic(durable=True):
        source = source_reading.source_for_update(source_id)
        precondition(source.generation)
        before, after = _FIELDS.change(source, changes)
        if not after:
            return
        _check(source)
        if _APPROVED & set(after) and source.state != _PENDING:
            before["syncStatus"], after["syncStatus"] = source.state, str(_PENDING)
            source.state, source.approved_by, source.approved_at = _PENDING, "", None
            source.sync_error = source.revision = ""
        source.generation += 1
        source.updated_at = source.next_sync_at = timezone.now()
        source.save()
        changed = ", ".join(sorted(after))
        _record(source.name, "updated", f"Changed {changed} of third-party source {source.name}.", before, after, actor)


def delete_source(*, source_id: UUID | None, precondition: Precondition = lambda _: None, actor: Actor) -> None:
    """Remove a source with its inventory; what was imported from it stays.

    Raises:
        ThirdPartySourceNotFoundError, PreconditionFailedError.
    """
    with transaction.atomic(durable=True):
        source = source_reading.source_for_update(source_id)
        precondition(source.generation)
        before = {"name": source.name, "type": source.type, "url": source.url}
        source.delete()
        message = f"Deleted third-party source {source.name} and its inventory."
        _record(source.name, "deleted", message, before, None, actor)


def approve_source(
    *, source_id: UUID | None, precondition: Precondition = lambda _: None, actor: Actor
) -> ThirdPartySource:
    """Let a source be read. Approving an approved one changes nothing.

    Raises:
        ThirdPartySourceNotFoundError, PreconditionFailedError.
    """
    with transaction.atomic(durable=True):
        source = source_reading.source_for_update(source_id)
        precondition(source.generation)
        if source.state != _PENDING:
            return source
        source.state = ThirdPartySource.State.HEALTHY
        source.approved_by, source.approved_at = actor.name[:254], timezone.now()
        source.generation += 1
        source.updated_at = source.next_sync_at = timezone.now()
        source.save()
        _record(
            source.name,
            "approved",
            f"Approved third-party source {source.name}, {source.url}.",
            {"syncStatus": str(_PENDING)},
            {"syncStatus": str(source.state)},
            actor,
        )
    return source


# -- import -----------------------------------------------------------------------------------------------------------


def import_item(*, source_id: UUID | None, item_id: UUID | None, scope: str = "org", actor: Actor) -> SourceImport:
    """Make a draft of an item as it is in the inventory, and keep the link.

    What was imported before is never touched: a later version becomes a draft of its own. Importing the same once more
    gives the import that there is.

    Args:
        scope: the new bundle's or server's.

    Raises:
        ThirdPartySourceNotFoundError, SourceItemNotFoundError
        ConflictError: the item cannot be imported, or the source has not been approved.
        SkillBundleExistsError, McpServerExistsError: somebody else's has that name.
    """
    source = source_reading.source_by_id(source_id)
    item = source_reading.item_of(source, item_id)
    if source.state == _PENDING:
        raise ConflictError("The source waits for approval; nothing is imported from it before that.")
    if item.problem:
        raise ConflictError("The item cannot be imported.", detail=item.problem)
    done = source_reading.import_of(item)
    if done is not None:
        return done
    if item.kind == SourceItem.Kind.SKILL:
        return _linked(source, item, actor, bundle_id=_bundle(source, item, scope, actor))
    return _linked(source, item, actor, server_id=_server(source, item, scope, actor))


def _bundle(source: ThirdPartySource, item: SourceItem, scope: str, actor: Actor) -> UUID:
    content = source_reading.content_of(item)
    if content is None:
        raise ConflictError("The item cannot be imported.", detail="Its content is gone; sync the source first.")
    values: Values = {
        "name": item.name,
        "description": item.description,
        "scope": scope,
        "content": content,
        "content_type": item.content_type,
        "source_name": source.name,
    }
    # The second is for content that changed while its version did not.
    for version in source_rules.versions_for(item.version, item.digest):
        mine = SkillBundle.objects.filter(name=item.name, version=version, source_name=source.name, digest=item.digest)
        # Made by an earlier try that was cut off before it could note the link.
        found = mine.filter(imports=None).values_list("pk", flat=True).first()
        if found is not None:
            return found
        taken = SkillBundle.objects.filter(name=item.name, version=version)
        if source_reading.has_other_import(item) and taken.filter(source_name=source.name).exists():
            continue
        return bundles.create_bundle(values=values | {"version": version}, actor=actor)
    raise SkillBundleExistsError(f"There is a bundle {item.name} {item.version} already.")


def _server(source: ThirdPartySource, item: SourceItem, scope: str, actor: Actor) -> UUID:
    if scope not in McpServer.Scope.values:
        raise InvalidError(fields={"scope": [f"Has to be one of {', '.join(McpServer.Scope.values)}."]})
    values: Values = {
        "description": item.description,
        "endpoint": item.details.get("endpoint", ""),
        "transport": item.details.get("transport", ""),
        "scope": scope,
        "status": McpServer.Status.DRAFT,
        "source_id": str(source.pk),
    }
    names = source_rules.server_names(item.name, item.version, item.digest)
    for name in names if source_reading.has_other_import(item) else names[:1]:
        row = McpServer.objects.filter(name=name).first()
        if row is None:
            return servers.create_server(values=values | {"name": name}, actor=actor)
        is_mine = row.source_id == str(source.pk) and row.endpoint == values["endpoint"]
        if is_mine and not SourceImport.objects.filter(server=row).exists():
            return row.pk
    raise McpServerExistsError(f"There is an MCP server named {item.name} already.")


@transaction.atomic(durable=True)
def _linked(
    source: ThirdPartySource,
    item: SourceItem,
    actor: Actor,
    *,
    bundle_id: UUID | None = None,
    server_id: UUID | None = None,
) -> SourceImport:
    made = SourceImport.objects.create(
        item=item,
        bundle_id=bundle_id,
        server_id=server_id,
        version=item.version,
        digest=item.digest,
        imported_by=actor.name[:254],
    )
    what = {"item": item.upstream_id, "version": item.version, "digest": item.digest}
    made_of = {"bundleId": str(bundle_id)} if bundle_id else {"serverId": str(server_id)}
    message = f"Imported {item.kind} {item.name} {item.version} from third-party source {source.name} as a draft."
    _record(source.name, "item_imported", message, None, what | made_of, actor)
    return made


# -- common -----------------------------------------------------------------------------------------------------------


def _check(source: ThirdPartySource) -> None:
    try:
        source_rules.check_address(source.url, source.type)
    except ValueError as exc:
        raise InvalidError(fields={"url": [str(exc)]}) from exc
    if source.ref and source.type not in source_rules.GIT_TYPES:
        raise InvalidError(fields={"ref": ["Only repositories have branches and tags."]})
    if source.type == ThirdPartySource.Type.MANUAL_UPLOAD and source.sync_mode == ThirdPartySource.SyncMode.SCHEDULED:
        raise InvalidError(fields={"syncMode": ["What is uploaded by hand is not synced."]})


def _named(name: str | None) -> AbstractContextManager[None]:
    taken = ThirdPartySourceExistsError(f"There is a third-party source named {name} already.")
    return unique("skill_source_name_key", taken)
