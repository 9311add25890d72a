"""Comparing every custom resource with its row, in one pass over both, in order of name.

Both sides come in pages, so memory stays flat whatever the size of the fleet; the next page of the cluster is fetched
while the present one is compared. What looks like a mismatch is read again on both sides before it is reported: while
a listing runs, the fleet moves on.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from django.db import connection
from psycopg import sql

from cluster.client import ClusterClient, cluster_client
from cluster.errors import KubeTransientError
from cluster.kinds import Kind, row_id_of, same
from cluster.models import SyncedModel, Tombstone
from cluster.resources import FIELD_MANAGER, KubeObject

PAGE = 500
MISSING_SOURCE = "missing-source"
MISSING_PROJECTION = "missing-projection"
FIELD_MISMATCH = "field-mismatch"
IDENTITY = "metadata.uid"


class RowState(NamedTuple):
    """The part of a row that drift looks at. A plain tuple, because a fleet has many."""

    name: str
    in_flight: bool
    uid: str
    confirmed: str


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
    rows = _rows(kind, counts)
    row = next(rows, None)
    last = ""
    for page in _read_ahead(client, kind):
        concerned = [live for live in page if kind.concerns(live)]
        counts.source_count += len(concerned)
        suspects: list[str] = []
        for live in concerned:
            metadata = live["metadata"]
            name = metadata["name"]
            if name <= last:
                raise KubeTransientError(f"the list of {kind.resource.plural} did not come in order of name")
            last = name
            while row is not None and row[0] < name:
                _without_resource(row, suspects, counts)
                row = next(rows, None)
            if row is None or row[0] != name:
                suspects.append(name)
                continue
            _, in_flight, uid, confirmed = row
            if in_flight:
                counts.pending_count += 1
            elif metadata["uid"] != uid or live.get("spec") != orjson.loads(confirmed):
                suspects.append(name)
            row = next(rows, None)
        yield from _confirmed_mismatches(kind, client, suspects, counts)
    suspects = []
    while row is not None:
        _without_resource(row, suspects, counts)
        row = next(rows, None)
        if len(suspects) >= PAGE:
            yield from _confirmed_mismatches(kind, client, suspects, counts)
            suspects = []
    yield from _confirmed_mismatches(kind, client, suspects, counts)


def _without_resource(row: RowState, suspects: list[str], counts: Comparison) -> None:
    if row.in_flight:
        counts.pending_count += 1
    else:
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


def _rows(kind: Kind[Any], counts: Comparison) -> Iterator[RowState]:
    """The rows of a kind in order of name, read in pages by keyset; one query per page."""
    query = sql.SQL(
        "SELECT name, observed_generation < generation, cluster_uid, coalesce(confirmed_spec, 'null')::text"
        " FROM {} WHERE name > %s ORDER BY name LIMIT %s"
    ).format(sql.Identifier(kind.model._meta.db_table))
    last = ""
    while True:
        with connection.cursor() as cursor:
            cursor.execute(query.as_string(cursor.connection), [last, PAGE])
            found = cursor.fetchall()
        counts.projection_count += len(found)
        yield from map(RowState._make, found)
        if len(found) < PAGE:
            return
        last = found[-1][0]
