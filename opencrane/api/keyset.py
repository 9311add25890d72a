"""Keyset paging: a page costs the same at any depth, and rows that come and go shift nothing.

A cursor holds the sort values of the last row that was shown. It is signed, so that whatever comes back is what was
given out for the same listing and can go into a query as it is.
"""

import base64
import binascii
import datetime
import functools
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import orjson
from django.conf import settings
from django.db.models import F, Model, Q, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from django.http import HttpRequest
from django.utils.encoding import escape_uri_path

from opencrane.errors import InvalidCursorError, InvalidError

MAX_LIMIT = 1000
_MAC_BYTES = 9
_MAX_CURSOR = 4096

AnyModel = TypeVar("AnyModel", bound=Model)
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a listing is asked for.

    Attributes:
        limit: rows on a page, 1 to 1000; None for all.
        after: sort values of the last row of the page before; None for the first page.
        state: what `encode` was given to come back with the next page.
    """

    limit: int | None
    after: tuple[Any, ...] | None
    state: Any = None


class Keyset:
    """The order of one listing, with what follows from it: cursors, SQL, the Link header.

    Args:
        order: pairs of a column (or ORM field) and `asc` or `desc`; together they have to be unique and never null.
        name: told apart from other listings of the same order, so that cursors are not exchanged between them.
        default_limit: for requests without `limit`; None lists everything.
    """

    def __init__(
        self,
        order: Sequence[tuple[str, Literal["asc", "desc"]]],
        *,
        name: str = "",
        default_limit: int | None = None,
    ) -> None:
        self.columns = tuple(column for column, _ in order)
        self._descending = tuple(direction == "desc" for _, direction in order)
        self._default_limit = default_limit
        self._salt = "|".join([name, *(f"{column} {direction}" for column, direction in order)]).encode()

    # --- Requests and cursors

    def page(self, request: HttpRequest | Any) -> Page:
        """What the request's `limit` and `cursor` ask for.

        Raises:
            InvalidError: `limit` is not a number from 1 to 1000.
            InvalidCursorError: the cursor was not given out by this listing.
        """
        query = request.GET
        cursor = query.get("cursor")
        after, state = self.decode(cursor) if cursor else (None, None)
        return Page(parse_limit(query.get("limit"), self._default_limit), after, state)

    def encode(self, values: Sequence[Any], state: Any = None) -> str:
        """A cursor for the row with these sort values: text, integers, UUIDs or aware times.

        `state` is any small JSON value that the next page should know.
        """
        if len(values) != len(self.columns):
            raise ValueError(f"{len(values)} values for {len(self.columns)} columns")
        payload = orjson.dumps([_pack(value) for value in values] + ([] if state is None else [state]))
        return base64.urlsafe_b64encode(self._mac(payload) + payload).rstrip(b"=").decode()

    def decode(self, cursor: str) -> tuple[tuple[Any, ...], Any]:
        """The sort values and the state that `encode` was given.

        Raises:
            InvalidCursorError: it is not a cursor of this listing.
        """
        if len(cursor) > _MAX_CURSOR or not cursor.isascii():
            raise InvalidCursorError
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as exc:
            raise InvalidCursorError from exc
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        canonical = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        if canonical != cursor or not hmac.compare_digest(mac, self._mac(payload)):
            raise InvalidCursorError
        items = orjson.loads(payload)
        width = len(self.columns)
        return tuple(_unpack(item) for item in items[:width]), (items[width] if len(items) > width else None)

    def _mac(self, payload: bytes) -> bytes:
        return hashlib.blake2b(self._salt + b"\0" + payload, key=_key(), digest_size=_MAC_BYTES).digest()

    # --- Queries

    def apply(self, queryset: QuerySet[AnyModel, Any], page: Page) -> QuerySet[AnyModel, Any]:
        """The queryset ordered and cut to the page plus one row, which tells whether there is more."""
        queryset = queryset.order_by(
            *(f"-{column}" if down else column for column, down in zip(self.columns, self._descending, strict=True))
        )
        if page.after is not None:
            queryset = queryset.filter(self._condition(page.after))
        return queryset if page.limit is None else queryset[: page.limit + 1]

    def _condition(self, after: tuple[Any, ...]) -> Any:
        if len(set(self._descending)) == 1:
            lookup = TupleLessThan if self._descending[0] else TupleGreaterThan
            if len(after) > 1:
                return lookup(Tuple(*(F(column) for column in self.columns)), after)
        condition = Q()
        for index in reversed(range(len(after))):
            column, beyond = self.columns[index], "lt" if self._descending[index] else "gt"
            condition = (
                Q(**{f"{column}__{beyond}": after[index]}) | (Q(**{column: after[index]}) & condition)
                if (condition)
                else Q(**{f"{column}__{beyond}": after[index]})
            )
        return condition

    def where(self, page: Page, prefix: str = "") -> tuple[str, list[Any]]:
        """An SQL condition for raw queries and its parameters; `TRUE` for the first page.

        Args:
            page: what to show.
            prefix: a table alias with its dot, for example `t.`.
        """
        if page.after is None:
            return "TRUE", []
        names = [f"{prefix}{column}" for column in self.columns]
        if len(set(self._descending)) == 1:
            sign = "<" if self._descending[0] else ">"
            marks = ", ".join(["%s"] * len(names))
            return f"({', '.join(names)}) {sign} ({marks})", list(page.after)
        parts: list[str] = []
        params: list[Any] = []
        for index, name in enumerate(names):
            sign = "<" if self._descending[index] else ">"
            equal = "".join(f"{earlier} = %s AND " for earlier in names[:index])
            parts.append(f"({equal}{name} {sign} %s)")
            params += [*page.after[:index], page.after[index]]
        return f"({' OR '.join(parts)})", params

    def order_by(self, prefix: str = "") -> str:
        """The columns for an SQL ORDER BY."""
        return ", ".join(
            f"{prefix}{column} {'DESC' if down else 'ASC'}"
            for column, down in zip(self.columns, self._descending, strict=True)
        )

    # --- Answers

    def key(self, row: Any) -> tuple[Any, ...]:
        """The sort values of a row that has them as attributes."""
        return tuple(getattr(row, column) for column in self.columns)

    def read(self, request: HttpRequest | Any, queryset: QuerySet[AnyModel, Any]) -> tuple[list[Any], dict[str, str]]:
        """The rows that the request's `limit` and `cursor` ask for, and the headers that say where it goes on.

        Raises:
            InvalidError, InvalidCursorError: as `page` does.
        """
        page = self.page(request)
        return self.finish(request, list(self.apply(queryset, page)), page, self.key)

    def finish(
        self, request: HttpRequest | Any, rows: list[Row], page: Page, key: Callable[[Row], Sequence[Any]]
    ) -> tuple[list[Row], dict[str, str]]:
        """The rows without the extra one of `apply`, and the headers that say where it goes on.

        Args:
            key: sort values of a row.
        """
        if page.limit is None or len(rows) <= page.limit:
            return rows, {}
        rows = rows[: page.limit]
        return rows, {"Link": next_link(request, self.encode(key(rows[-1])))}


def parse_limit(text: str | None, default: int | None) -> int | None:
    """The query parameter `limit`.

    Raises:
        InvalidError: it is not a number from 1 to 1000.
    """
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidError(fields={"limit": [f"Has to be a whole number from 1 to {MAX_LIMIT}."]})


def next_link(request: HttpRequest | Any, cursor: str) -> str:
    """A Link header value (RFC 8288) to the next page; it keeps every other parameter of the request."""
    query = [(key, value) for key, values in request.GET.lists() for value in values if key != "cursor"]
    return f'<{escape_uri_path(request.path)}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'


@functools.cache
def _key() -> bytes:
    return hashlib.blake2b(settings.SECRET_KEY.encode(), person=b"keyset cursors", digest_size=32).digest()


def _pack(value: Any) -> list[Any] | str | int:
    match value:
        case bool() | None:
            raise TypeError("A keyset column may not be boolean or null.")
        case str() | int():
            return value
        case datetime.datetime():
            return ["t", value.astimezone(datetime.UTC).isoformat(timespec="microseconds")]
        case UUID():
            return ["u", value.hex]
    raise TypeError(f"A keyset column cannot be {type(value).__name__}.")


def _unpack(item: Any) -> Any:
    if not isinstance(item, list):
        return item
    tag, value = item
    return datetime.datetime.fromisoformat(value) if tag == "t" else UUID(value)
