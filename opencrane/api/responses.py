"""Answer with JSON and entity tags, without DRF's renderers."""

import hashlib
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise

from opencrane.api.keyset import next_link
from opencrane.errors import DomainError, PreconditionFailedError

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
_ENTITY_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def _default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Promise):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def to_json(data: Any) -> bytes:
    """UTF-8 JSON. Times end in `Z`, decimals become numbers; `orjson.Fragment` passes ready JSON through."""
    return orjson.dumps(data, default=_default, option=_OPTIONS)


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A JSON response of any JSON value, or of bytes that are JSON already."""
    body = data if isinstance(data, bytes) else to_json(data)
    return HttpResponse(body, status=status, content_type="application/json", headers=dict(headers or {}))


def no_content() -> HttpResponse:
    """204 without a body, and so without a media type."""
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return response


def error_response(error: DomainError) -> HttpResponse:
    """The error's envelope with its status and headers."""
    return json_response(error.envelope(), error.http_status, error.headers)


def etag(generation: int, status_revision: int) -> str:
    """The entity tag of an object: `"<generation>.<statusRevision>"`, quotes included."""
    return f'"{generation}.{status_revision}"'


def check_if_match(request: HttpRequest | Any, generation: int) -> None:
    """Refuse a write that was meant for an older generation of the object (RFC 9110, 13.1.1).

    Without `If-Match` every write passes. Only the first part of an entity tag counts, because a status that moves on
    by itself is no reason to refuse. Weak tags are accepted: proxies that compress make strong ones weak.

    Call it with the row locked.

    Raises:
        PreconditionFailedError: none of the entity tags names this generation.
    """
    header = request.META.get("HTTP_IF_MATCH")
    if header is None or header.strip() == "*":
        return
    wanted = str(generation)
    if any(tag.partition(".")[0] == wanted for tag in _ENTITY_TAG.findall(header)):
        return
    raise PreconditionFailedError(detail=f"It is now at generation {generation}; read it again.")


def tagged_response(request: HttpRequest | Any, entity_tag: str, data: Any) -> HttpResponse:
    """An object as it is now, or 304 for a caller that knows it; views that answer so document IF_NONE_MATCH."""
    headers = {"ETag": entity_tag}
    if is_not_modified(request, entity_tag):
        return HttpResponse(status=304, headers=headers)
    return json_response(data, headers=headers)


def body_etag(generation: int, body: bytes) -> str:
    """The entity tag of an object that others can change by the way (a tenant in it is deleted), from its very text."""
    return f'"{generation}.{hashlib.blake2b(body, digest_size=8).hexdigest()}"'


def written_response(body: bytes, generation: int, status: int = 200) -> HttpResponse:
    """An object as a write has left it, with the entity tag that it is read with."""
    return json_response(body, status=status, headers={"ETag": body_etag(generation, body)})


def page_response(request: HttpRequest | Any, body: bytes, cursor: str) -> HttpResponse:
    """A page of a list that is JSON already, with the link to the next one unless the cursor is empty."""
    return json_response(body, headers={"Link": next_link(request, cursor)} if cursor else None)


def is_not_modified(request: HttpRequest | Any, entity_tag: str) -> bool:
    """Whether `If-None-Match` names this very entity tag, so that a GET may be answered 304 (RFC 9110, 13.1.2)."""
    header = request.META.get("HTTP_IF_NONE_MATCH")
    if header is None:
        return False
    return header.strip() == "*" or entity_tag.strip('"') in _ENTITY_TAG.findall(header)
