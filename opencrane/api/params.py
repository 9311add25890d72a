"""Typed readers for query parameters; each refuses a bad value by its name."""

import datetime
import re
from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.utils.dateparse import parse_datetime

from opencrane.errors import InvalidError

AnyRequest = HttpRequest | Any
_DATE_ONLY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _refuse(name: str, why: str) -> InvalidError:
    return InvalidError(fields={name: [why]})


def text(request: AnyRequest, name: str, *, max_length: int = 500) -> str | None:
    """The trimmed text, or None when it is absent or blank."""
    value = request.GET.get(name)
    if value is None:
        return None
    value = value.strip()
    if len(value) > max_length:
        raise _refuse(name, f"Has to be at most {max_length} characters long.")
    return value or None


def choice(request: AnyRequest, name: str, choices: Collection[str]) -> str | None:
    """One of `choices`, or None when absent."""
    value = text(request, name)
    if value is not None and value not in choices:
        raise _refuse(name, f"Has to be one of {', '.join(sorted(choices))}.")
    return value


def boolean(request: AnyRequest, name: str, default: bool) -> bool:
    """`true` or `false`, ignoring case; `default` when absent."""
    value = request.GET.get(name)
    if value is None:
        return default
    if value.lower() in {"true", "1"}:
        return True
    if value.lower() in {"false", "0"}:
        return False
    raise _refuse(name, "Has to be true or false.")


def moment(request: AnyRequest, name: str) -> datetime.datetime | None:
    """An RFC 3339 time, or a date for its first moment in UTC; None when absent. Without an offset it is UTC."""
    value = text(request, name, max_length=64)
    if value is None:
        return None
    if _DATE_ONLY.fullmatch(value):
        value += "T00:00:00Z"
    try:
        # A `+` that was not percent-encoded arrives as a space.
        parsed = parse_datetime(value.replace(" ", "+") if "T" in value else value)
        if parsed is not None:
            parsed = (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError) as exc:
        raise _refuse(name, "Has to be a time like 2026-01-31T12:00:00Z.") from exc
    if parsed is None:
        raise _refuse(name, "Has to be a time like 2026-01-31T12:00:00Z.")
    return parsed


def uuid(request: AnyRequest, name: str) -> UUID | None:
    """A UUID, or None when absent."""
    value = text(request, name, max_length=64)
    if value is None:
        return None
    try:
        return UUID(value)
    except ValueError as exc:
        raise _refuse(name, "Has to be a UUID.") from exc


def parse_uuid(value: str) -> UUID | None:
    """A path segment as a UUID; None when it is none, which callers answer with 404."""
    try:
        return UUID(value)
    except ValueError:
        return None
