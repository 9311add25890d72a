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

from django.db import connection

from opencrane.api.keyset import Keyset, Page

NEWEST = Keyset([("timestamp", "desc"), ("id", "desc")], name="audit", default_limit=100)

# A text search walks the trail from the newest entry; it gives up after this many and lets the caller go on from there.
SEARCH_WINDOW = 20_000
# Each costs an index lookup and a few bytes of cursor; more writers at once than this are not expected.
_MOST_PENDING = 64

# PostgreSQL writes the JSON: what it costs to make a page is mostly the turning of values into Python's and back. A row
# is turned into JSON faster than a list of names and values.
_ENTRY = """(SELECT row_to_json(entry)::text FROM (SELECT id::text,
 to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS timestamp, tenant, tenant_id AS "tenantId",
 action, resource, message, CASE WHEN actor_token = ''
 THEN (SELECT row_to_json(actor) FROM (SELECT actor_kind AS kind, actor_name AS name) AS actor)
 ELSE (SELECT row_to_json(actor) FROM (SELECT actor_kind AS kind, actor_name AS name, actor_token AS token) AS actor)
 END AS actor, request_id AS "requestId", address, before, after) AS entry)"""
# What the page itself needs of a row, as text: only the last row's time is ever read.
_JSON, _TIME, _ID, _IS_LATE, _SNAPSHOT = range(5)
# Named, because ORDER BY timestamp would else mean the text: sorted without the index.
_COLUMNS = f"{_ENTRY}, timestamp::text AS written_at, id"
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
    """One page: the entries as a JSON array, as the API shows them, and where it goes on."""

    entries: bytes
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
    where, params = NEWEST.where(page)
    where = " AND ".join([where, *conditions])
    params += values
    late, late_params = _late(pending, page, conditions, values)
    if wanted.q is not None:
        return _search(wanted.q, page, pending, (where, params), (late, late_params))
    part = f"{_TABLE} WHERE {where} ORDER BY {_ORDER} LIMIT %s"
    params.append(limit + 1)
    if late:
        sql = f"""
            SELECT {_COLUMNS}, is_late, pg_current_snapshot()::text
              FROM ((SELECT *, false AS is_late FROM {part}) {late}) AS both_parts ORDER BY {_ORDER} LIMIT %s
        """  # noqa: S608
        params += [*late_params, limit + 1]
    else:
        sql = f"SELECT {_COLUMNS}, false, pg_current_snapshot()::text FROM {part}"  # noqa: S608
    rows = _rows(sql, params)
    shown = rows[:limit]
    return AuditPage(_array(shown), _next(page, pending, shown) if len(rows) > limit else None)


def _search(
    text: str, page: Page, pending: Pending, near: tuple[str, list[Any]], late: tuple[str, list[Any]]
) -> AuditPage:
    """A page of what matches `text` within the next SEARCH_WINDOW entries."""
    limit = page.limit or 100
    pattern = "%" + text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
    # The first row is the edge, the last entry of the window, match or not: a full window is followed by another.
    sql = f"""
        WITH near AS MATERIALIZED (SELECT * FROM {_TABLE} WHERE {near[0]} ORDER BY {_ORDER} LIMIT %s)
        SELECT edge.* FROM (SELECT) AS always LEFT JOIN (
            SELECT NULL, timestamp::text AS written_at, id, NULL::boolean, pg_current_snapshot()::text
              FROM near ORDER BY {_ORDER} OFFSET %s LIMIT 1
        ) AS edge ON true
        UNION ALL (
            SELECT {_COLUMNS}, is_late, pg_current_snapshot()::text
              FROM (SELECT *, false AS is_late FROM near {late[0]}) AS both_parts
             WHERE message ILIKE %s OR resource ILIKE %s OR action ILIKE %s ORDER BY {_ORDER} LIMIT %s
        )
    """  # noqa: S608
    params = [*near[1], SEARCH_WINDOW, SEARCH_WINDOW - 1, *late[1], pattern, pattern, pattern, limit + 1]
    edge, *rows = _rows(sql, params)
    shown = rows[:limit]
    if len(rows) > limit:
        return AuditPage(_array(shown), _next(page, pending, shown))
    if edge[_ID] is not None:
        return AuditPage(_array(shown), _next(page, pending, shown, edge))
    return AuditPage(_array(shown), None)


def _rows(sql: str, params: list[Any]) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


def _array(rows: list[Row]) -> bytes:
    return f"[{','.join([row[_JSON] for row in rows])}]".encode()


def _late(pending: Pending, page: Page, conditions: list[str], values: list[Any]) -> tuple[str, list[Any]]:
    """The second part of a page: what pending transactions wrote into the part already passed."""
    if not pending or page.after is None:
        return "", []
    choices = " OR ".join(["(xid = %s AND (timestamp, id) < (%s, %s))"] * len(pending))
    where = " AND ".join([f"({choices})", "(timestamp, id) > (%s, %s)", *conditions])
    params = [value for xid, bound in pending.items() for value in (xid, *bound)]
    # OFFSET 0 keeps the planner from walking another index through all that has been passed.
    written = f"(SELECT * FROM {_TABLE} WHERE xid = ANY(%s) OFFSET 0) AS written"  # noqa: S608
    late = f"UNION ALL SELECT *, true FROM {written} WHERE {where}"  # noqa: S608
    return late, [list(pending), *params, *page.after, *values]


def _next(page: Page, pending: Pending, shown: list[Row], edge: Row | None = None) -> str:
    """The cursor of the page that follows.

    Args:
        page: the present one.
        pending: as the present page had it.
        shown: the rows of the present page.
        edge: where the search's window ended, when that is what ended the page.
    """
    in_time = [row for row in shown if not row[_IS_LATE]]
    last_in_time = edge or (in_time[-1] if in_time else None)
    # Only a page that has one before it can hold nothing but late entries.
    after = page.after or () if last_in_time is None else _position(last_in_time)
    still = {xid: pending.get(xid, _ABOVE_ALL) for xid in _under_way((edge or shown[-1])[_SNAPSHOT])}
    if edge is None and shown[-1][_IS_LATE]:
        # There was more from committed transactions than fits on the page, so nothing in time was shown either.
        last = _position(shown[-1])
        still |= {xid: min(bound, last) for xid, bound in pending.items() if xid not in still}
    kept = sorted(still.items(), reverse=True)[:_MOST_PENDING]
    return NEWEST.encode(after, [[xid, *_pack(bound)] for xid, bound in kept] or None)


def _under_way(snapshot: str) -> list[int]:
    """The transactions that a snapshot does not see though they have begun: `xmin:xmax:xip,xip,…`."""
    return [int(xid) for xid in snapshot.rpartition(":")[2].split(",") if xid]


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
    # PostgreSQL writes `+00`, which Python reads from 3.11 on.
    return datetime.datetime.fromisoformat(row[_TIME]), row[_ID]


def _pack(position: Position) -> list[Any]:
    return [position[0].isoformat(), position[1]]


def _unpack(packed: list[Any]) -> Position:
    return datetime.datetime.fromisoformat(packed[0]), packed[1]
