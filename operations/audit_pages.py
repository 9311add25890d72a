"""Read the audit trail page by page, at the same cost at any depth and any size."""

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

_COLUMNS = (
    "id, timestamp, tenant, tenant_id, action, resource, message, actor_kind, actor_name, request_id, address,"
    " before::text, after::text"
)


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


def audit_page(wanted: AuditFilter, page: Page) -> AuditPage:
    """One page, newest first, in one query.

    Every entry that was there when the first page was read comes exactly once, however many share a timestamp and
    whatever arrives meanwhile: the order (timestamp, id) is fixed when an entry is written.

    With `q` a page may hold fewer entries than its limit, or none, and still have a next one: each page looks at no
    more than SEARCH_WINDOW entries.
    """
    limit = page.limit or 100
    beyond, params = NEWEST.where(page)
    conditions, more = _conditions(wanted)
    params += more
    where = " AND ".join([beyond, *conditions])
    order = NEWEST.order_by()
    if wanted.q is None:
        sql = f"SELECT {_COLUMNS} FROM operations_auditentry WHERE {where} ORDER BY {order} LIMIT %s"  # noqa: S608
        params.append(limit + 1)
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            rows = cursor.fetchall()
        shown, more_follow = rows[:limit], len(rows) > limit
        return AuditPage([_entry(row) for row in shown], _cursor(shown[-1]) if more_follow else None)
    return _search(wanted.q, where, params, limit)


def _search(text: str, where: str, params: list[Any], limit: int) -> AuditPage:
    order = NEWEST.order_by()
    pattern = "%" + text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
    # The last row of the window comes along, match or not: the next page starts there when the window was full.
    sql = f"""
        WITH near AS MATERIALIZED (
            SELECT * FROM operations_auditentry WHERE {where} ORDER BY {order} LIMIT %s
        ), edge AS (
            SELECT id, timestamp FROM near ORDER BY {order} OFFSET %s LIMIT 1
        )
        SELECT {_COLUMNS}, (SELECT timestamp FROM edge), (SELECT id FROM edge) FROM near
         WHERE message ILIKE %s OR resource ILIKE %s OR action ILIKE %s ORDER BY {order} LIMIT %s
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [*params, SEARCH_WINDOW, SEARCH_WINDOW - 1, pattern, pattern, pattern, limit + 1])
        rows = cursor.fetchall()
        edge = rows[0][-2:] if rows else None
        if not rows:
            # Nothing matched, so nothing carried the edge along.
            window = f"SELECT timestamp, id FROM operations_auditentry WHERE {where} ORDER BY {order}"  # noqa: S608
            cursor.execute(f"{window} OFFSET %s LIMIT 1", [*params, SEARCH_WINDOW - 1])
            edge = cursor.fetchone()
    shown = rows[:limit]
    entries = [_entry(row) for row in shown]
    if len(rows) > limit:
        return AuditPage(entries, _cursor(shown[-1]))
    return AuditPage(entries, NEWEST.encode(edge) if edge is not None and edge[0] is not None else None)


def _conditions(wanted: AuditFilter) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    params: list[Any] = []

    def add(condition: str, value: Any) -> None:
        if value is not None:
            conditions.append(condition)
            params.append(value)

    add("tenant = %s", wanted.tenant)
    add("tenant_id = %s", wanted.tenant_id)
    for column, value in (("action", wanted.action), ("resource", wanted.resource)):
        if value is not None and value.endswith("*"):
            add(f"starts_with({column}, %s)", value[:-1])
        else:
            add(f"{column} = %s", value)
    add("actor_name = %s", wanted.actor)
    if wanted.request_id:
        # The second half lets the partial index be used, whatever the parameter turns out to be.
        add("request_id = %s AND request_id <> ''", wanted.request_id)
    add("timestamp >= %s", wanted.since)
    add("timestamp < %s", wanted.until)
    return conditions, params


def _cursor(row: tuple[Any, ...]) -> str:
    return NEWEST.encode((row[1], row[0]))


def _entry(row: tuple[Any, ...]) -> dict[str, Any]:
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
