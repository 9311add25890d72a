"""A JSON column for values that come from outside.

PostgreSQL's jsonb keeps a number by its decimal digits, so a float such as 1e22 reads back as an integer of 23 digits.
Beyond 64 bits that is no JSON that the API server or a caller could hold: it becomes the float again that it was.
"""

import json
from typing import Any

from django.db import models

_LEAST, _MOST = -(2**63), 2**64 - 1


def _integer(digits: str) -> int | float:
    value = int(digits)
    return value if _LEAST <= value <= _MOST else float(digits)


class ValueDecoder(json.JSONDecoder):
    """Decodes integers beyond 64 bits as floats."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"parse_int": _integer})


class ValueField(models.JSONField[Any, Any]):
    """A JSONField that reads back what was written, large floats included."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["decoder"] = ValueDecoder
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("decoder", None)
        return name, path, args, kwargs
