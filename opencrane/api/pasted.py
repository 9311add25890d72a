"""Listings that PostgreSQL writes as JSON text: to turn values into Python's and back is most of what a page costs."""

from collections.abc import Sequence
from typing import Any

from opencrane.api.keyset import Keyset, Page


def json_page(keyset: Keyset, rows: Sequence[Any], page: Page) -> tuple[bytes, str]:
    """A JSON array of what a query gave as `(text, *keys)`, one row more than the page, and the cursor after it."""
    shown = rows if page.limit is None else rows[: page.limit]
    cursor = keyset.encode(shown[-1][1:]) if len(rows) > len(shown) else ""
    return f"[{','.join([row[0] for row in shown])}]".encode(), cursor


def like(text: str) -> str:
    """A pattern for ILIKE that finds `text` anywhere."""
    return "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
