"""Read the audit trail page by page, at the same cost at any depth and any size.

The trail is ordered by (timestamp, id), both fixed when an entry is written. That alone would lose entries: one that is
written at 12:00:00.001 by a transaction that commits at 12:00:00.005 is missing from a page read at 12:00:00.003, and
the next page begins below it. So a cursor also carries the transactions that were under way when its page was read;
whatever those wrote into the part already passed is shown with the next page, a little late, instead of never.
"""

import datetime
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.db import connection

from opencrane.api.keyset import Keyset, Page

NEWEST = Keyset([("timestamp", "desc"), ("id", "desc")], name="audit", default_limit=100)

# A text search walks the trail from the newest entry; it gives up after this many and lets the caller go on from there.
SEARCH_WINDOW = 20_000
# Each costs an index lookup and a few bytes of cursor; more writers at once than this are not expected.
_MOST_PENDING = 64

_COLUMNS = (
    "id, timestamp, tenant, tenant_id, action, resource, message, actor_kind, actor_name, request_id, address,"
    " before::text, after::text"
)
_IS_LATE = 13  # index of the column that follows
_TABLE = "operations_auditentry"
_ORDER = NEWEST.order_by()

Row = tuple[Any, ...]
Position = tuple[datetime.datetime, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """What to look for; None leaves a field open.

    Attributes:
        tenant: exact name.
        tenant_id: one tenant, whatever others of its name did.
        action: exact, or with a trailing `*` every action that begins so, for example `tenant.*`.
        resource: exact, for example `Tenant/anna`, or a kind alone with a trailing `/*`.
        actor: exact name.
        request_id: exact.
        since, until: bounds of the time; `since` is included, `until` is not.
        q: text within message, resource or action, ignoring case.
    """

    tenant: str | None = None
    tenant_id: UUID | None = None
    action: str | None = None
    resource: str | None = None
    actor: str | None = None
    request_id: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """One page: the entries as the API shows them, and where it goes on."""

    entries: list[dict[str, Any]]
    next_cursor: str | None


# Transactions that were under way while the part above the cursor was read, each with the position below which its
# entries are still to be shown.
Pending = dict[int, Position]
_ABOVE_ALL: Position = (datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC), 0)


def audit_page(wanted: AuditFilter, page: Page) -> AuditPage:
    """One page, newest first, in one query.

    Walked to its end, a listing shows every entry exactly once that was written before the walk began, however many
    share a timestamp, whatever arrives meanwhile, and also when it is committed only during the walk.

    With `q` a page may hold fewer entries than its limit, or none, and still have a next one: each page looks at no
    more than SEARCH_WINDOW entries.
    """
    limit = page.limit or 100
    pending: Pending = {xid: _unpack(bound) for xid, *bound in page.state or []}
    conditions, values = _conditions(wanted)
    near_where, near_values = NEWEST.where(page)
    near = f"SELECT * FROM {_TABLE} WHERE {' AND '.join([near_where, *conditions])} ORDER BY {_ORDER} LIMIT %s"  # noqa: S608
    near_values += [*values, limit + 1 if wanted.q is None else SEARCH_WINDOW]
    late, late_values = _late(pending, page, conditions, values)
    match, match_values = _match(wanted.q)
    # The edge is the last entry of a search's window, match or not: a full window goes on from there.
    edge = f"(SELECT timestamp FROM near ORDER BY {_ORDER} OFFSET {SEARCH_WINDOW - 1} LIMIT 1)" if wanted.q else "NULL"
    edge_id = f"(SELECT id FROM near ORDER BY {_ORDER} OFFSET {SEARCH_WINDOW - 1} LIMIT 1)" if wanted.q else "NULL"
    sql = f"""
        WITH near AS MATERIALIZED ({near})
        SELECT found.*, pg_current_snapshot()::text, {edge}, {edge_id}
          FROM (SELECT) AS always LEFT JOIN (
            SELECT {_COLUMNS}, is_late FROM (SELECT *, false AS is_late FROM near {late}) AS both_parts
             WHERE {match} ORDER BY {_ORDER} LIMIT %s
          ) AS found ON true
         ORDER BY found.timestamp DESC, found.id DESC
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [*near_values, *late_values, *match_values, limit + 1])
        rows: list[Row] = cursor.fetchall()
    snapshot, edge_position = rows[0][-3], rows[0][-2:]
    if rows[0][0] is None:
        rows = []
    shown = rows[:limit]
    entries = [_entry(row) for row in shown]
    if len(rows) > limit:
        return AuditPage(entries, _next(page, pending, shown, snapshot))
    if edge_position[0] is not None:
        return AuditPage(entries, _next(page, pending, shown, snapshot, edge_position))
    return AuditPage(entries, None)


def _late(pending: Pending, page: Page, conditions: list[str], values: list[Any]) -> tuple[str, list[Any]]:
    """The second part of a page: what pending transactions wrote into the part already passed."""
    if not pending or page.after is None:
        return "", []
    choices = " OR ".join(["(xid = %s AND (timestamp, id) < (%s, %s))"] * len(pending))
    where = " AND ".join([f"({choices})", "(timestamp, id) > (%s, %s)", *conditions])
    params = [value for xid, bound in pending.items() for value in (xid, *bound)]
    return f"UNION ALL SELECT *, true FROM {_TABLE} WHERE {where}", [*params, *page.after, *values]  # noqa: S608


def _next(page: Page, pending: Pending, shown: list[Row], snapshot: str, edge: Position | None = None) -> str:
    """The cursor of the page that follows.

    Args:
        page: the present one.
        pending: as the present page had it.
        shown: the rows of the present page.
        snapshot: what the present page's query saw.
        edge: where the search's window ended, when that is what ended the page.
    """
    in_time = [row for row in shown if not row[_IS_LATE]]
    after = edge or (_position(in_time[-1]) if in_time else page.after)
    assert after is not None, "a first page shows nothing late"
    under_way = _under_way(snapshot)
    still = {xid: pending.get(xid, _ABOVE_ALL) for xid in under_way}
    if edge is None and shown[-1][_IS_LATE]:
        # There was more from committed transactions than fits on the page, so nothing in time was shown either.
        last = _position(shown[-1])
        still |= {xid: min(bound, last) for xid, bound in pending.items() if xid not in still}
    kept = sorted(still.items(), reverse=True)[:_MOST_PENDING]
    return NEWEST.encode(after, [[xid, *_pack(bound)] for xid, bound in kept] or None)


def _under_way(snapshot: str) -> list[int]:
    """The transactions that a snapshot does not see though they have begun: `xmin:xmax:xip,xip,…`."""
    return [int(xid) for xid in snapshot.rpartition(":")[2].split(",") if xid]


def _match(text: str | None) -> tuple[str, list[str]]:
    if text is None:
        return "true", []
    pattern = "%" + text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
    return "(message ILIKE %s OR resource ILIKE %s OR action ILIKE %s)", [pattern] * 3


def _conditions(wanted: AuditFilter) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, value: Any) -> None:
        if value is not None:
            conditions.append(condition)
            values.append(value)

    add("tenant = %s", wanted.tenant)
    add("tenant_id = %s", wanted.tenant_id)
    for column, value in (("action", wanted.action), ("resource", wanted.resource)):
        if value is not None and value.endswith("*"):
            add(f"starts_with({column}, %s)", value[:-1])
        else:
            add(f"{column} = %s", value)
    add("actor_name = %s", wanted.actor)
    # The second half lets the partial index be used, whatever the parameter turns out to be.
    add("request_id = %s AND request_id <> ''", wanted.request_id)
    add("timestamp >= %s", wanted.since)
    add("timestamp < %s", wanted.until)
    return conditions, values


def _position(row: Row) -> Position:
    return row[1], row[0]


def _pack(position: Position) -> list[Any]:
    return [position[0].isoformat(), position[1]]


def _unpack(packed: list[Any]) -> Position:
    return datetime.datetime.fromisoformat(packed[0]), packed[1]


def _entry(row: Row) -> dict[str, Any]:
    entry_id, timestamp, tenant, tenant_id, action, resource, message, kind, name, request_id, address, before, after = (
        row[:13]
    )
    return {
        "id": str(entry_id),
        "timestamp": timestamp,
        "tenant": tenant,
        "tenantId": tenant_id,
        "action": action,
        "resource": resource,
        "message": message,
        "actor": {"kind": kind, "name": name},
        "requestId": request_id,
        "address": address,
        "before": before if before is None else orjson.Fragment(before),
        "after": after if after is None else orjson.Fragment(after),
    }
