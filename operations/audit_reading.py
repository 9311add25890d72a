"""The audit trail for pages: what `audit_pages` gives out as JSON, as plain values, and what to filter by."""

import datetime
from dataclasses import dataclass, replace
from typing import Any

import orjson
from django.http import HttpRequest

from opencrane.console.listing import distinct_values
from operations import audit_pages
from operations.audit_pages import AuditFilter

_TABLE = "operations_auditentry"


@dataclass(frozen=True, slots=True)
class ReadablePage:
    """Entries as plain values, and the cursor of the next page, or empty."""

    entries: list[dict[str, Any]]
    next_cursor: str


def read_page(wanted: AuditFilter, request: HttpRequest, *, rows: int) -> ReadablePage:
    """The page that the request's cursor asks for, newest first.

    Raises:
        InvalidCursorError: the cursor belongs to another list.
    """
    found = audit_pages.audit_page(wanted, replace(audit_pages.NEWEST.page(request), limit=rows))
    entries: list[dict[str, Any]] = orjson.loads(found.entries)
    for entry in entries:
        entry["timestamp"] = datetime.datetime.fromisoformat(entry["timestamp"])
    return ReadablePage(entries, found.next_cursor or "")


def known_actions() -> list[str]:
    """Every action in the trail."""
    return distinct_values(_TABLE, "action", 100)


def known_actors() -> list[str]:
    """Names of who did something; the first 50."""
    return distinct_values(_TABLE, "actor_name", 50)
