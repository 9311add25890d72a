"""Comparing every custom resource with its row, in one pass over both, in order of name.

Both sides come in pages, so memory stays flat whatever the size of the fleet; the next page of the cluster is fetched
while the present one is compared. What looks like a mismatch is read again on both sides before it is reported: while
a listing runs, the fleet moves on.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from django.db import connection
from psycopg import sql

from cluster.client import ClusterClient, cluster_client
from cluster.errors import KubeTransientError
from cluster.kinds import Kind, Spec, row_id_of, same
from cluster.models import SyncedModel, Tombstone
from cluster.resources import FIELD_MANAGER, KubeObject

PAGE = 500
MISSING_SOURCE = "missing-source"
MISSING_PROJECTION = "missing-projection"
FIELD_MISMATCH = "field-mismatch"
IDENTITY = "metadata.uid"


@dataclass(frozen=True, slots=True)
class RowState:
    """The part of a row that drift looks at."""

    id: UUID
    name: str
    in_flight: bool
    uid: str
    confirmed: Spec


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Cluster and row disagree.

    Attributes:
        issue: `missing-source` (no resource), `missing-projection` (no row) or `field-mismatch`.
        fields: sorted spec names.
        differences: `{field, cluster, row}` for each of them; None where a side has no value.
        managers: for each field, who else holds it in the cluster, as `metadata.managedFields` says.
    """

    name: str
    issue: str
    fields: list[str] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    managers: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Comparison:
    """A whole comparison. The counts are complete once `mismatches` is exhausted."""

    source_count: int = 0
    projection_count: int = 0
    pending_count: int = 0
    drift_count: int = 0


def compare(kind: Kind[Any], counts: Comparison) -> Iterator[Mismatch]:
    """Confirmed mismatches in order of name; fills in `counts` on the way.

    Raises:
        KubeError: the listing failed; what was yielded before stands, the rest is unknown.
    """
    client = cluster_client()
    rows = _Rows(kind)
    last = ""
    for page in _read_ahead(client, kind):
        counts.source_count += len(page)
        suspects: list[str] = []
        for live in page:
            name = live["metadata"]["name"]
            if name <= last:
                raise KubeTransientError(f"the list of {kind.resource.plural} did not come in order of name")
            last = name
            for gone in rows.before(name):
                _sort_out(gone, None, suspects, counts)
            row = rows.take(name)
            if row is None:
                suspects.append(name)
            else:
                _sort_out(row, live, suspects, counts)
        yield from _confirmed_mismatches(kind, client, suspects, counts)
    suspects = []
    for gone in rows.rest():
        _sort_out(gone, None, suspects, counts)
        if len(suspects) >= PAGE:
            yield from _confirmed_mismatches(kind, client, suspects, counts)
            suspects = []
    yield from _confirmed_mismatches(kind, client, suspects, counts)
    counts.projection_count = rows.count


def _sort_out(row: RowState, live: KubeObject | None, suspects: list[str], counts: Comparison) -> None:
    if row.in_flight:
        counts.pending_count += 1
    elif live is None or live["metadata"]["uid"] != row.uid or live.get("spec") != row.confirmed:
        suspects.append(row.name)


def _read_ahead(client: ClusterClient, kind: Kind[Any]) -> Iterator[list[KubeObject]]:
    pages = client.list_pages(kind.resource, limit=PAGE)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="drift-list") as reader:
        coming = reader.submit(next, pages, None)
        while (page := coming.result()) is not None:
            coming = reader.submit(next, pages, None)
            yield page[0]


def _confirmed_mismatches(
    kind: Kind[Any], client: ClusterClient, suspects: list[str], counts: Comparison
) -> Iterator[Mismatch]:
    """Read each suspect again, both sides, and yield what still disagrees."""
    if not suspects:
        return
    with ThreadPoolExecutor(max_workers=min(8, len(suspects)), thread_name_prefix="drift-confirm") as readers:
        fresh = dict(zip(suspects, readers.map(lambda name: client.get(kind.resource, name), suspects), strict=True))
    rows = {row.name: row for row in kind.model._default_manager.filter(name__in=suspects)}
    buried = {
        str(pk) for pk in Tombstone.objects.filter(name__in=suspects, kind=kind.name).values_list("pk", flat=True)
    }
    for name in suspects:
        row, live = rows.get(name), fresh[name]
        if (row is not None and row.in_flight) or (row is None and live is not None and row_id_of(live) in buried):
            counts.pending_count += 1
            continue
        mismatch = mismatch_of(kind, name, row, live)
        if mismatch is not None:
            counts.drift_count += 1
            yield mismatch


def mismatch_of(kind: Kind[Any], name: str, row: SyncedModel | None, live: KubeObject | None) -> Mismatch | None:
    """What is wrong between one row (without a write in flight) and one resource, if anything."""
    if row is None:
        return None if live is None else Mismatch(name, MISSING_PROJECTION)
    if live is None:
        return Mismatch(name, MISSING_SOURCE)
    wanted, confirmed, spec = kind.spec(row), row.confirmed_spec or {}, live.get("spec") or {}
    # Equal to what the server made of our last apply is no drift either: it fills in defaults and normal forms.
    fields = sorted(
        f for f in kind.fields if not same(spec.get(f), wanted.get(f)) and not same(spec.get(f), confirmed.get(f))
    )
    differences = [{"field": f, "cluster": spec.get(f), "row": wanted.get(f)} for f in fields]
    uid = live["metadata"]["uid"]
    if row.cluster_uid != uid:
        fields = [*fields, IDENTITY]
        differences.append({"field": IDENTITY, "cluster": uid, "row": row.cluster_uid or None})
    if not fields:
        return None
    return Mismatch(name, FIELD_MISMATCH, fields, differences, {f: holders(live, f) for f in fields if f != IDENTITY})


def holders(live: KubeObject, spec_field: str) -> list[str]:
    """Field managers other than ours that hold a spec field, newest first."""
    entries = [
        entry
        for entry in live["metadata"].get("managedFields") or []
        if f"f:{spec_field}" in (entry.get("fieldsV1") or {}).get("f:spec", {}) and entry["manager"] != FIELD_MANAGER
    ]
    entries.sort(key=lambda entry: entry.get("time") or "", reverse=True)
    return [f"{entry['manager']} ({entry['operation']}, {entry.get('time', 'unknown time')})" for entry in entries]


class _Rows:
    """The rows of a kind in order of name, read in pages by keyset; one query per page."""

    def __init__(self, kind: Kind[Any]) -> None:
        self._table = kind.model._meta.db_table
        self._last = ""
        self._page: list[RowState] = []
        self._at = 0
        self._ended = False
        self.count = 0

    def _peek(self) -> RowState | None:
        if self._at == len(self._page) and not self._ended:
            self._load()
        return self._page[self._at] if self._at < len(self._page) else None

    def _load(self) -> None:
        query = sql.SQL(
            "SELECT id, name, observed_generation < generation, cluster_uid, confirmed_spec::text"
            " FROM {} WHERE name > %s ORDER BY name LIMIT %s"
        ).format(sql.Identifier(self._table))
        with connection.cursor() as cursor:
            cursor.execute(query.as_string(cursor.connection), [self._last, PAGE])
            found = cursor.fetchall()
        self._page = [RowState(*row[:4], orjson.loads(row[4] or b"null")) for row in found]
        self._at = 0
        self._ended = len(found) < PAGE
        self.count += len(found)
        if found:
            self._last = self._page[-1].name

    def before(self, name: str) -> Iterator[RowState]:
        """Rows whose name sorts before `name`, taken."""
        while (row := self._peek()) is not None and row.name < name:
            self._at += 1
            yield row

    def take(self, name: str) -> RowState | None:
        row = self._peek()
        if row is None or row.name != name:
            return None
        self._at += 1
        return row

    def rest(self) -> Iterator[RowState]:
        while (row := self._peek()) is not None:
            self._at += 1
            yield row
