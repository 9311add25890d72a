"""Query and header parameters for the OpenAPI document that many operations share."""

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import OpenApiParameter

from opencrane.api.keyset import MAX_LIMIT


def query(name: str, description: str, format: str = "", *, enum: Sequence[str] | None = None) -> OpenApiParameter:
    """An optional query parameter of type string."""
    schema: dict[str, Any] = {"type": "string"}
    if format:
        schema["format"] = format
    if enum is not None:
        schema["enum"] = list(enum)
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=description)


def limit_parameter(*, default: int | None = None) -> OpenApiParameter:
    """`limit`, with or without a default."""
    schema: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}
    if default is not None:
        schema["default"] = default
    what = "Entries on a page." if default else "Entries on a page; everything, if absent."
    return OpenApiParameter("limit", schema, OpenApiParameter.QUERY, description=what)


LIMIT = limit_parameter()
CURSOR = OpenApiParameter(
    "cursor",
    {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    OpenApiParameter.QUERY,
    description="Where to go on: from the Link header, or from `pagination.nextCursor`.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    {"type": "string"},
    OpenApiParameter.HEADER,
    description="ETag of what was read; the write is refused with 412 when it has changed since.",
)
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    {"type": "string"},
    OpenApiParameter.HEADER,
    description="ETag of what is known already; 304 without a body when it is still the same.",
)
