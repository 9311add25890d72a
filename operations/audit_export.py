"""Export of the audit trail."""

from typing import Any

import orjson

from opencrane.api.keyset import Page
from operations import audit_pages, exports
from operations.audit_pages import AuditFilter

COLUMNS = (
    "timestamp", "id", "tenant", "tenantId", "action", "resource", "message", "actorKind", "actorName", "actorToken",
    "address", "requestId", "before", "after",
)  # fmt: skip


def _page(wanted: AuditFilter, page: Page) -> tuple[bytes, str | None]:
    found = audit_pages.audit_page(wanted, page)
    return found.entries, found.next_cursor


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    actor = entry["actor"]
    return entry | {
        "actorKind": actor["kind"],
        "actorName": actor["name"],
        "actorToken": actor.get("token"),
        "before": _json(entry["before"]),
        "after": _json(entry["after"]),
    }


def _json(value: Any) -> str:
    return "" if value is None else orjson.dumps(value).decode()


AUDIT = exports.Export("audit.export", "audit", AuditFilter, COLUMNS, audit_pages.NEWEST, _page, _flat)
exports.register(AUDIT)
