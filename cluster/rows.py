"""Rows by primary key or name without the ORM's query compiler, which costs more than these queries take.

For the few reads that every write goes through; everything else uses querysets.
"""

from functools import cache
from typing import Any, TypeVar

from django.db import connection
from django.db.models import Field, Model

ModelT = TypeVar("ModelT", bound=Model)


@cache
def _select(model: type[Model]) -> tuple[str, list[str], list[tuple[int, Field[Any, Any]]]]:
    fields = list(model._meta.concrete_fields)
    columns = ", ".join(f'"{field.column}"' for field in fields)
    converted = [(index, field) for index, field in enumerate(fields) if hasattr(field, "from_db_value")]
    return f'SELECT {columns} FROM "{model._meta.db_table}" WHERE ', [str(f.attname) for f in fields], converted  # noqa: S608


def fetch(model: type[ModelT], condition: str, *params: Any) -> list[ModelT]:
    """Instances of `model`, all fields loaded.

    Args:
        condition: SQL after WHERE, written by the caller, with `%s` for each of `params`.
    """
    select, names, converted = _select(model)
    with connection.cursor() as cursor:
        cursor.execute(select + condition, params)
        found = cursor.fetchall()
    rows = []
    for values in found:
        row = list(values)
        for index, field in converted:
            row[index] = field.from_db_value(row[index], None, connection)  # type: ignore[attr-defined]
        rows.append(model.from_db(connection.alias, names, row))
    return rows


def fetch_one(model: type[ModelT], condition: str, *params: Any) -> ModelT | None:
    """The first instance, or None."""
    found = fetch(model, condition, *params)
    return found[0] if found else None
