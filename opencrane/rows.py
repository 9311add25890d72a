"""Rows: one that is found or refused, a value that is taken, and fields that are set, cleared and compared."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.db import IntegrityError
from django.db.models import Manager, Model, QuerySet

from opencrane.errors import DomainError

Row = TypeVar("Row", bound=Model)
Values = dict[str, Any]
# In `Fields`: has to be given, and cannot be cleared.
REQUIRED: Final = object()


def one(rows: QuerySet[Row, Row] | Manager[Row], missing: type[DomainError] | DomainError, **lookup: Any) -> Row:
    """The one row that fits; a key that is None fits none.

    Raises:
        DomainError: `missing`, where there is none.
    """
    row = rows.filter(**lookup).first()
    if row is None:
        raise missing
    return row


@contextmanager
def unique(constraint: str, taken: DomainError) -> Iterator[None]:
    """Turns a violation of a unique constraint into the refusal that says so. Around the transaction, not in it.

    Raises:
        DomainError: `taken`.
    """
    try:
        yield
    except IntegrityError as exc:
        if constraint not in str(exc):
            raise
        raise taken from exc


class Fields:
    """Columns that people set, as services write them and the audit trail tells of them.

    Args:
        cleared: column to what it is when it is cleared or not given (called, if it is a type), or REQUIRED.
        names: what the API calls those that it calls otherwise.
    """

    def __init__(self, cleared: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
        self._cleared = cleared
        self._names = names or {}

    def fill(self, row: Model, values: Values) -> None:
        """Set every column of a new row."""
        for column in self._cleared:
            given = values.get(column)
            setattr(row, column, self._blank(column, None) if given is None else given)

    def shown(self, row: Model) -> Values:
        """What a new row says, without what it leaves blank."""
        return {self._names.get(column, column): value for column in self._cleared if (value := getattr(row, column))}

    def change(self, row: Model, changes: Values) -> tuple[Values, Values]:
        """Set the columns that `changes` names; None clears. Returns what differs, as it was and as it is."""
        before: Values = {}
        after: Values = {}
        for column in self._cleared:
            if column not in changes:
                continue
            old, new = getattr(row, column), changes[column]
            if new is None:
                new = self._blank(column, old)
            if old != new:
                name = self._names.get(column, column)
                before[name], after[name] = old, new
                setattr(row, column, new)
        return before, after

    def _blank(self, column: str, old: Any) -> Any:
        blank = self._cleared[column]
        if blank is REQUIRED:
            return old
        return blank() if isinstance(blank, type) else blank
