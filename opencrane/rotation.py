"""Seal every stored secret again with the first key, in batches, while everything runs.

What is left to do can be seen from the columns themselves, so a run that was cut short is simply started again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import Q

from opencrane.encryption import DecryptionError, EncryptedTextField, Sealed, encrypt, sealing_prefix

BATCH_ROWS = 200


@dataclass(slots=True)
class Rotation:
    """What came of a run.

    Attributes:
        sealed: values sealed again with the first key.
        failed: `app.Model.field pk: why` for each value that no key of the ring opens.
    """

    sealed: int = 0
    failed: list[str] = field(default_factory=list)


def encrypted_fields() -> Iterator[tuple[type[models.Model], EncryptedTextField]]:
    """Every encrypted column of every model."""
    for model in apps.get_models():
        for each in model._meta.concrete_fields:
            if isinstance(each, EncryptedTextField):
                yield model, each


def left_to_seal(model: type[models.Model], column: str) -> models.QuerySet[Any]:
    """Rows whose value another key than the first has sealed.

    Raises:
        DependencyNotConfiguredError: there is no key.
    """
    # A plain text lookup: the field's own would seal what it is given.
    as_text = models.functions.Cast(column, models.TextField())
    rows = model._default_manager.annotate(oc_sealed=as_text).filter(~Q(oc_sealed=""), oc_sealed__isnull=False)
    return rows.exclude(oc_sealed__startswith=sealing_prefix()).order_by("pk")


def rotate(tell: Callable[[str, int, int], None], *, batch_rows: int = BATCH_ROWS) -> Rotation:
    """Seal again what the first key has not sealed.

    A value that somebody changes meanwhile is left as they wrote it: it is sealed with the first key already.

    Args:
        tell: called with the column (`app.Model.field`), values done and values to do, after each batch.
        batch_rows: rows read at once.

    Raises:
        DependencyNotConfiguredError: there is no key.
    """
    result = Rotation()
    for model, column in encrypted_fields():
        _rotate_column(model, column, result, tell, batch_rows)
    return result


def _rotate_column(
    model: type[models.Model],
    column: EncryptedTextField,
    result: Rotation,
    tell: Callable[[str, int, int], None],
    batch_rows: int,
) -> None:
    label = f"{model._meta.label}.{column.name}"
    rows = left_to_seal(model, column.name)
    total = rows.count()
    done = 0
    last: Any = None
    while True:
        batch = list((rows if last is None else rows.filter(pk__gt=last)).values_list("pk", "oc_sealed")[:batch_rows])
        if not batch:
            break
        for pk, sealed in batch:
            last = pk
            done += 1
            try:
                result.sealed += seal_again(model, column.name, pk, sealed)
            except DecryptionError as exc:
                result.failed.append(f"{label} {pk}: {exc.message}")
        tell(label, done, max(total, done))


def seal_again(model: type[models.Model], column: str, pk: Any, sealed: str) -> bool:
    """Seal one value anew, unless it is no longer the one that was read. Returns whether it was.

    Raises:
        DecryptionError: no key of the ring opens it.
    """
    fresh = Sealed(encrypt(Sealed(sealed).reveal()))
    as_text = models.functions.Cast(column, models.TextField())
    same = model._default_manager.annotate(oc_sealed=as_text).filter(pk=pk, oc_sealed=sealed)
    return bool(same.update(**{column: fresh}))
