"""Reading third-party sources, their inventory, and what was imported."""

from typing import Any
from uuid import UUID

from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Cast, Concat
from django.utils import timezone

from mcpservers.models import McpServer
from opencrane.api.keyset import Keyset
from opencrane.rows import one
from operations.models import Job
from skills.errors import SourceItemNotFoundError, ThirdPartySourceNotFoundError
from skills.models import SkillBundle, SourceImport, SourceItem, ThirdPartySource

SYNC = "skills.sync_source"
NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="third-party sources")
BUNDLES_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="bundles of a third-party source")
ITEMS_BY_NAME = Keyset([("name", "asc"), ("id", "asc")], name="items of a third-party source", default_limit=100)
SYNCING = "syncing"
SYNC_STATUSES = [*ThirdPartySource.State.values[:2], SYNCING, ThirdPartySource.State.ERROR.value]
NEW, IMPORTED, UPDATE, GONE, UNUSABLE = "new", "imported", "update", "gone", "unusable"
ITEM_STATES = [NEW, UPDATE, IMPORTED, UNUSABLE, GONE]


def exclusive_key(source_id: object) -> str:
    """What the one sync of a source that may be under way is known by."""
    return f"{SYNC}:{source_id}"


def sources() -> QuerySet[Any]:
    """Sources with `sync_status`: that a sync is under way, else what the last one left; unordered."""
    key = Concat(Value(f"{SYNC}:"), OuterRef("text_id"), output_field=CharField())
    under_way = Job.objects.filter(exclusive_key=key, status__in=Job.ACTIVE)
    found = ThirdPartySource.objects.order_by().annotate(text_id=Cast("id", CharField()))
    return found.annotate(sync_status=Case(When(Exists(under_way), then=Value(SYNCING)), default=F("state")))


def sources_matching(filters: dict[str, str]) -> QuerySet[Any]:
    """Sources that fit `q` (name, URL), `type` and `sync_status`, with `item_count`."""
    counted = SourceItem.objects.filter(source=OuterRef("pk"), is_gone=False).order_by().values("source")
    found: QuerySet[Any] = sources().annotate(item_count=Subquery(counted.annotate(many=Count("pk")).values("many")))
    if text := filters.get("q"):
        found = found.filter(Q(name__icontains=text) | Q(url__icontains=text))
    if "type" in filters:
        found = found.filter(type=filters["type"])
    if "sync_status" in filters:
        found = found.filter(sync_status=filters["sync_status"])
    return found


def source_json(source: Any) -> dict[str, Any]:
    """A source of `sources_matching`, as the API gives it."""
    return {
        "id": source.pk,
        "name": source.name,
        "type": source.type,
        "url": source.url,
        "ref": source.ref or None,
        "syncMode": source.sync_mode,
        "syncStatus": source.sync_status,
        "syncError": source.sync_error or None,
        "lastSyncedAt": source.last_synced_at,
        "nextSyncAt": source.next_sync_at if is_scheduled(source) else None,
        "revision": source.revision or None,
        "itemCount": source.item_count or 0,
        "approvedBy": source.approved_by or None,
        "approvedAt": source.approved_at,
        "createdAt": source.created_at,
        "updatedAt": source.updated_at,
    }


def is_scheduled(source: ThirdPartySource) -> bool:
    """Whether it is synced by itself."""
    is_wanted = source.sync_mode == ThirdPartySource.SyncMode.SCHEDULED
    return is_wanted and source.state != ThirdPartySource.State.PENDING_APPROVAL


def source_shown(source_id: UUID | None) -> Any:
    """One source of `sources_matching`.

    Raises:
        ThirdPartySourceNotFoundError
    """
    return one(sources_matching({}), ThirdPartySourceNotFoundError, pk=source_id)


def source_by_id(source_id: UUID | None) -> ThirdPartySource:
    """The source.

    Raises:
        ThirdPartySourceNotFoundError
    """
    return one(ThirdPartySource.objects, ThirdPartySourceNotFoundError, pk=source_id)


def source_named(name: str) -> ThirdPartySource | None:
    """The source of that name."""
    return ThirdPartySource.objects.filter(name=name).first()


def source_for_update(source_id: UUID | None) -> ThirdPartySource:
    """The source, its row locked until the transaction ends.

    Raises:
        ThirdPartySourceNotFoundError
    """
    return one(ThirdPartySource.objects.select_for_update(), ThirdPartySourceNotFoundError, pk=source_id)


def sources_due(limit: int) -> list[UUID]:
    """Approved, scheduled sources whose time has come."""
    due = ThirdPartySource.objects.filter(
        sync_mode=ThirdPartySource.SyncMode.SCHEDULED, next_sync_at__lte=timezone.now()
    ).exclude(state=ThirdPartySource.State.PENDING_APPROVAL)
    return list(due.order_by("next_sync_at").values_list("pk", flat=True)[:limit])


# -- inventory --------------------------------------------------------------------------------------------------------


def items_of(source: ThirdPartySource, filters: dict[str, str]) -> QuerySet[Any]:
    """The inventory, with what the newest import made of each item and its `import_state`; unordered.

    Args:
        filters: any of `q` (name, description, upstream id), `kind`, `state`.
    """
    newest = SourceImport.objects.filter(item=OuterRef("pk")).order_by("-imported_at", "-id")
    found: QuerySet[Any] = (
        SourceItem.objects.filter(source=source)
        .order_by()
        .annotate(
            **{
                f"imported_{column}": Subquery(newest.values(column)[:1])
                for column in ("digest", "version", "bundle_id", "server_id", "imported_at", "imported_by")
            }
        )
    )
    found = found.annotate(
        import_state=Case(
            When(is_gone=True, then=Value(GONE)),
            When(imported_digest=F("digest"), then=Value(IMPORTED)),
            When(~Q(problem=""), then=Value(UNUSABLE)),
            When(imported_digest__isnull=False, then=Value(UPDATE)),
            default=Value(NEW),
            output_field=CharField(),
        )
    )
    if text := filters.get("q"):
        about = Q(name__icontains=text) | Q(description__icontains=text) | Q(upstream_id__icontains=text)
        found = found.filter(about)
    if "kind" in filters:
        found = found.filter(kind=filters["kind"])
    if "state" in filters:
        found = found.filter(import_state=filters["state"])
    return found


def item_json(item: Any) -> dict[str, Any]:
    """An item of `items_of`, as the API gives it; never its content."""
    imported = None
    if item.imported_digest is not None:
        imported = {
            "version": item.imported_version,
            "digest": item.imported_digest,
            "bundleId": item.imported_bundle_id,
            "serverId": item.imported_server_id,
            "importedAt": item.imported_imported_at,
            "importedBy": item.imported_imported_by,
        }
    return {
        "id": item.pk,
        "kind": item.kind,
        "name": item.name,
        "upstreamId": item.upstream_id,
        "version": item.version,
        "digest": item.digest,
        "description": item.description or None,
        "details": item.details,
        "state": item.import_state,
        "problem": item.problem or None,
        "imported": imported,
        "foundAt": item.found_at,
        "changedAt": item.changed_at,
    }


def item_counts(source: ThirdPartySource) -> dict[str, int]:
    """How many items are in which import state."""
    rows = items_of(source, {}).values("import_state").annotate(many=Count("pk")).order_by()
    return {row["import_state"]: row["many"] for row in rows}


def item_of(source: ThirdPartySource, item_id: UUID | None) -> SourceItem:
    """An item of that source.

    Raises:
        SourceItemNotFoundError
    """
    return one(SourceItem.objects, SourceItemNotFoundError, source=source, pk=item_id)


def item_names(item_ids: list[UUID]) -> dict[UUID, str]:
    """Name and version of items, for people."""
    rows = SourceItem.objects.filter(pk__in=item_ids).values_list("pk", "name", "version")
    return {pk: f"{name} {version}" for pk, name, version in rows}


def content_of(item: SourceItem) -> bytes | None:
    """The content that the last sync found, if it is still the item's."""
    rows = SourceItem.objects.filter(pk=item.pk, digest=item.digest)
    content = rows.values_list("content", flat=True).first()
    return None if content is None else bytes(content)


def import_of(item: SourceItem) -> SourceImport | None:
    """The newest import of the item as it is now."""
    return SourceImport.objects.filter(item=item, digest=item.digest, version=item.version).first()


def has_other_import(item: SourceItem) -> bool:
    """Whether an earlier form of the item was imported."""
    return SourceImport.objects.filter(item=item).exists()


def imports_from(source: ThirdPartySource) -> QuerySet[SkillBundle]:
    """Bundles that say that they are from a source; unordered."""
    return SkillBundle.objects.filter(source_name=source.name).order_by()


def servers_from(source: ThirdPartySource, limit: int = 100) -> list[McpServer]:
    """MCP servers that were imported from a source, newest first."""
    return list(McpServer.objects.filter(source_id=str(source.pk)).order_by("-created_at", "-id")[:limit])


def syncs_of(source: ThirdPartySource, limit: int) -> list[Job]:
    """The newest syncs of a source."""
    found = Job.objects.filter(kind=SYNC, params__sourceId=str(source.pk))
    return list(found.order_by("-created_at", "-id")[:limit])
