"""What grants are about (MCP servers, skill bundles) with those grants, as JSON text in one query."""

from typing import Any
from uuid import UUID

from django.db import connection

from opencrane.api.keyset import Keyset, Page
from opencrane.api.pasted import json_page

# In `item` of a PayloadListing: the grants, as a field that follows others.
GRANTS = """',"grants":[' || coalesce(granted.list, '') || ']'"""
Conditions = list[tuple[str, list[Any]]]


class PayloadListing:
    """One kind of payload, newest first.

    Grants, and what else there are lists of, are gathered once for the whole page and then joined: a look-up for each
    row would cost more than everything else. Lists are pasted in as text: as JSON they would be parsed again.

    Args:
        keyset: over `created_at` and `id`, downwards.
        table: with an alias of one letter, as all that follows uses it.
        columns: of the table, as far as `item` and `joins` need them.
        payload_type: what its grants say.
        lists: further common table expressions over `page`, each with a `list` for a row.
        item: an SQL expression, the text of one object without the brace that ends it.
        joins: what `item` needs beside the row and `granted`.
    """

    def __init__(
        self, keyset: Keyset, *, table: str, columns: str, payload_type: str, lists: str, item: str, joins: str
    ) -> None:
        self._keyset = keyset
        self._alias = table[-1]
        self._table = table
        self._columns = columns
        self._payload_type = payload_type
        self._lists = lists
        self._item = item
        self._joins = joins

    def page(self, conditions: Conditions, page: Page) -> tuple[bytes, str]:
        """One page of what fits, and the cursor of the next one, or empty."""
        beyond, params = self._keyset.where(page, f"{self._alias}.")
        where = " AND ".join([beyond, *(condition for condition, _ in conditions)])
        params = [*params, *(value for _, values in conditions for value in values)]
        if page.limit is not None:
            limit, order = f"LIMIT {page.limit + 1:d}", "ORDER BY created_at DESC, id DESC"
            rows = self._rows("text, created_at, id", where, params, limit=limit, tail=order)
            return json_page(self._keyset, rows, page)
        # Without conditions all grants of the type are wanted.
        whole = "coalesce(string_agg(text, ',' ORDER BY created_at DESC, id DESC), '')"
        [(text,)] = self._rows(whole, where, params, is_all=not conditions)
        return f"[{text}]".encode(), ""

    def one(self, payload_id: UUID | None, more: str = "") -> tuple[bytes, int] | None:
        """One object, and its generation.

        Args:
            more: fields beyond those of the listing, as an SQL expression of text that begins with a comma.
        """
        rows = self._rows("text, generation", f"{self._alias}.id = %s", [payload_id], more=more)
        return (rows[0][0].encode(), rows[0][1]) if rows else None

    def _rows(
        self,
        select: str,
        where: str,
        params: list[Any],
        *,
        limit: str = "",
        tail: str = "",
        is_all: bool = False,
        more: str = "",
    ) -> list[Any]:
        a = self._alias
        of_page = "" if is_all else "AND r.payload_id IN (SELECT id::text FROM page)"
        sql = f"""
            WITH page AS MATERIALIZED (
                SELECT {self._columns} FROM {self._table} WHERE {where}
                ORDER BY {a}.created_at DESC, {a}.id DESC {limit}
            ), granted AS (
                SELECT r.payload_id, string_agg(r.document || to_json(coalesce(g.name,
                        (SELECT t.name FROM tenants_tenant t WHERE t.id = r.tenant_id), r."user"))::text || '}}',
                    ',' ORDER BY r.priority DESC, r.access DESC, r.created_at DESC, r.id) AS list
                FROM policies_grant r LEFT JOIN policies_group g ON g.id = r.group_id
                WHERE r.payload_type = '{self._payload_type}' {of_page} GROUP BY r.payload_id
            ), {self._lists}, item AS (
                SELECT {self._item} || {f"{more} ||" if more else ""} '}}' AS text,
                    {a}.created_at, {a}.id, {a}.generation
                FROM page {a} LEFT JOIN granted ON granted.payload_id = {a}.id::text {self._joins}
            )
            SELECT {select} FROM item {tail}
        """  # noqa: S608 - constants
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall()
