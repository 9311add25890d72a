"""Single rows without the ORM's query compiler, which costs more than these statements take.

For the few statements that every write goes through; everything else uses querysets.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

from django.db import connection
from django.db.models import CASCADE, Field, ForeignObjectRel, GeneratedField, Model
from django.db.models.expressions import DatabaseDefault

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


@cache
def _writable(model: type[Model]) -> tuple[list[Field[Any, Any]], list[Field[Any, Any]]]:
    """Fields to insert, and fields that PostgreSQL may fill in."""
    concrete = model._meta.concrete_fields
    filled = [f for f in concrete if isinstance(f, GeneratedField) or f.has_db_default() or f.db_returning]
    return [f for f in concrete if not isinstance(f, GeneratedField)], filled


def insert(row: Model) -> None:
    """INSERT one instance; what PostgreSQL fills in (keys, defaults, generated columns) is set on it.

    Raises:
        IntegrityError: a constraint refuses it; the transaction is broken then.
    """
    fields, filled = _writable(type(row))
    columns, marks, params = [], [], []
    for field in fields:
        value = field.pre_save(row, add=True)
        if isinstance(value, DatabaseDefault) or (value is None and field.primary_key):
            continue
        columns.append(f'"{field.column}"')
        marks.append("%s")
        params.append(field.get_db_prep_save(value, connection))
    returned = ", ".join(f'"{field.column}"' for field in filled)
    statement = f'INSERT INTO "{row._meta.db_table}" ({", ".join(columns)}) VALUES ({", ".join(marks)})'  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} RETURNING {returned}" if returned else statement, params)
        values = cursor.fetchone() if returned else ()
    for field, value in zip(filled, values, strict=True):
        setattr(row, field.attname, value)
    row._state.adding, row._state.db = False, connection.alias


@cache
def _by_name(model: type[Model]) -> dict[str, Field[Any, Any]]:
    return {field.name: field for field in model._meta.concrete_fields}


def update(row: Model, names: Iterable[str]) -> None:
    """UPDATE the named fields of one instance, which is there and locked; the rest of its row is left alone."""
    known = _by_name(type(row))
    fields = [known[name] for name in names]
    columns = ", ".join(f'"{field.column}" = %s' for field in fields)
    params = [field.get_db_prep_save(field.pre_save(row, add=False), connection) for field in fields]
    statement = f'UPDATE "{row._meta.db_table}" SET {columns} WHERE "{row._meta.pk.column}" = %s'  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(statement, [*params, row.pk])


@cache
def _deletion(model: type[Model]) -> str:
    """One statement that deletes a row and every row that goes with it; empty where only the ORM knows how."""
    gone: list[str] = []
    for relation in _referring(model):
        other = relation.related_model
        if relation.on_delete is not CASCADE or any(_referring(other)):
            return ""
        table, column = other._meta.db_table, relation.field.column
        gone.append(f'gone_{len(gone)} AS (DELETE FROM "{table}" WHERE "{column}" = %(id)s)')  # noqa: S608
    own = f'DELETE FROM "{model._meta.db_table}" WHERE "{model._meta.pk.column}" = %(id)s'  # noqa: S608
    return f"WITH {', '.join(gone)} {own}" if gone else own


def _referring(model: type[Model]) -> list[ForeignObjectRel]:
    """The foreign keys of other tables that point here, also those without a name on this side."""
    return [field for field in model._meta.get_fields(include_hidden=True) if isinstance(field, ForeignObjectRel)]


def delete(row: Model) -> None:
    """DELETE one instance and what refers to it. Unlike `Model.delete` it sends no signals and leaves the key set.

    Foreign keys are checked at the commit (Django makes them deferred), so the order inside the statement is free.
    """
    statement = _deletion(type(row))
    if not statement:
        key = row.pk
        row.delete()
        row.pk = key
        return
    with connection.cursor() as cursor:
        cursor.execute(statement, {"id": row.pk})
