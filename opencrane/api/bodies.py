"""Read request bodies: bounded, also when chunked, and as strict JSON.

Django takes a request without Content-Length for one without a body, and DRF's parser lets NaN, duplicate keys and
lone surrogates through to PostgreSQL, which then refuses them with a 500. Here all of that is a 400.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

import orjson
from django.http import HttpRequest
from rest_framework.parsers import BaseParser

from opencrane.errors import DomainError, InvalidError

BODY_LIMIT = 1024 * 1024
DRAIN_LIMIT = 32 * 1024 * 1024
MAX_DEPTH = 64
_CHUNK = 64 * 1024
# A body that trickles in holds one of a few threads.
BODY_SECONDS = 30.0
_INT64 = range(-(2**63), 2**63)


class PayloadTooLargeError(DomainError):
    code, http_status, default_message = "PAYLOAD_TOO_LARGE", 413, "The request body is too large."


class RequestTimeoutError(DomainError):
    code, http_status, default_message = "REQUEST_TIMEOUT", 408, "The request body took too long to arrive."


class UnsupportedMediaTypeError(DomainError):
    code, http_status = "UNSUPPORTED_MEDIA_TYPE", 415
    default_message = "The request body has to be application/json in UTF-8."


class MalformedBodyError(InvalidError):
    """The body is not JSON as RFC 8259 has it, or says things that cannot be stored."""

    default_message = "The request body is not valid JSON."


def read_body(request: HttpRequest, limit: int = BODY_LIMIT) -> bytes:
    """The request's body, kept on the request so that it can be asked for again.

    Works for chunked bodies where the server marks the end of its input (`wsgi.input_terminated`).

    Raises:
        PayloadTooLargeError: it is longer than `limit` bytes. Up to 32 MiB of it have then been read and dropped: a
            server that answers while the caller still sends closes the connection, and the answer is lost.
        MalformedBodyError: the connection ended before the body did.
    """
    kept: bytes | None = getattr(request, "_body", None)
    if kept is not None:
        return kept
    declared = _declared_length(request)
    if declared is not None and declared > limit:
        drain(request)
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    for chunk in _chunks(request, declared):
        size += len(chunk)
        if size > limit:
            drain(request)
            raise _too_large(limit)
        chunks.append(chunk)
    if declared is not None and size < declared:
        raise MalformedBodyError(detail="The connection ended before the body did.")
    body = b"".join(chunks)
    # HttpRequest.body answers from here, instead of refusing because the stream was read.
    request._body = body
    return body


def drain(request: HttpRequest) -> None:
    """Read and drop what the caller has sent and nobody has read, up to 32 MiB."""
    dropped = 0
    for chunk in _chunks(request, _declared_length(request)):
        dropped += len(chunk)
        if dropped >= DRAIN_LIMIT:
            break


def has_unread_body(request: HttpRequest) -> bool:
    """Whether the caller sent a body that nobody has begun to read."""
    if request._read_started:  # type: ignore[attr-defined]
        return False
    return bool(_declared_length(request)) or (_declared_length(request) is None and _is_terminated(request))


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(detail=f"At most {limit} bytes are accepted here.")


def _declared_length(request: HttpRequest) -> int | None:
    """Content-Length, or None for a chunked body."""
    if "HTTP_TRANSFER_ENCODING" in request.META:
        return None
    try:
        return max(0, int(request.META.get("CONTENT_LENGTH") or 0))
    except ValueError:
        return 0


def _is_terminated(request: HttpRequest) -> bool:
    return bool(request.META.get("wsgi.input_terminated"))


def _chunks(request: HttpRequest, declared: int | None) -> Iterable[bytes]:
    if declared is None and not _is_terminated(request):
        return
    stream = request.META.get("wsgi.input")
    if stream is None:
        return
    request._read_started = True  # type: ignore[attr-defined]
    taken: int = getattr(request, "_opencrane_taken", 0)
    deadline = time.monotonic() + BODY_SECONDS
    try:
        while declared is None or taken < declared:
            chunk = stream.read(_CHUNK if declared is None else min(_CHUNK, declared - taken))
            if not chunk:
                return
            taken += len(chunk)
            request._opencrane_taken = taken  # type: ignore[attr-defined]
            yield chunk
            if time.monotonic() > deadline:
                raise RequestTimeoutError(detail=f"At most {BODY_SECONDS:.0f} s.", headers={"Connection": "close"})
    except OSError as exc:
        raise MalformedBodyError(detail="The connection ended before the body did.") from exc


def parse_json(body: bytes) -> Any:
    """A JSON text's value, or a refusal that says what is wrong with it.

    Beyond RFC 8259 it refuses duplicate keys, lone surrogates, NUL characters, integers beyond 64 bits, numbers beyond
    a double's range, and nesting deeper than 64: none of them can be stored and given back as it came.

    Raises:
        MalformedBodyError: any of these.
    """
    try:
        # orjson judges UTF-8, surrogates, NaN and the grammar; the standard library shows duplicates and big integers.
        orjson.loads(body)
        value = json.loads(body, object_pairs_hook=_unique, parse_int=_int64)
    except orjson.JSONDecodeError as exc:
        raise MalformedBodyError(detail=str(exc)) from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    if b"\\u0000" in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check(value)
    return value


def _too_deep() -> MalformedBodyError:
    return MalformedBodyError(detail=f"It is nested deeper than {MAX_DEPTH} levels.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedBodyError(detail=f"The key {key[:100]!r} appears twice in one object.")
            seen.add(key)
    return result


def _int64(digits: str) -> int:
    if len(digits) <= 20 and (number := int(digits)) in _INT64:
        return number
    raise MalformedBodyError(detail=f"The integer {digits[:40]} does not fit into 64 bits.")


def _check(value: Any) -> None:
    """Refuse NUL characters and too deep nesting, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                below += item
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below += item.values()
        if not below:
            return
        level = below
    if any(isinstance(item, list | dict) for item in level):
        raise _too_deep()
    for item in level:
        if isinstance(item, str):
            _check_text(item)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise MalformedBodyError(detail="It holds a NUL character (\\u0000).")


def read_json(request: HttpRequest, limit: int = BODY_LIMIT) -> Any:
    """The JSON value of the request's body; None when there is no body, whatever its Content-Type says.

    Raises:
        UnsupportedMediaTypeError: there is a body of another media type or character set.
        PayloadTooLargeError, MalformedBodyError: see `read_body` and `parse_json`.
    """
    body = read_body(request, limit)
    if not body:
        return None
    charset = (request.content_params or {}).get("charset", "utf-8").strip("\"'").lower()
    if request.content_type != "application/json" or charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaTypeError
    return parse_json(body)


class StrictJSONParser(BaseParser):
    """Tells the OpenAPI document that bodies are JSON; `ApiRequest` reads them itself."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        return parse_json(stream.read())
