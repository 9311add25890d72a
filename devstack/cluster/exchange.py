"""One HTTP request and its answer: reading bodies, choosing formats, and nothing about Kubernetes objects."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson
import yaml

from devstack.cluster import protobuf
from devstack.cluster.errors import StatusError, bad_request

MAX_BODY = 3 * 1024 * 1024
# Read on this far, so that the answer reaches a client that is still sending.
MAX_DRAIN = 32 * 1024 * 1024
# A reader that takes nothing for this long loses its connection.
SEND_SECONDS = 30.0
JSON = b"application/json"
PROTOBUF = "application/vnd.kubernetes.protobuf"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Loader(yaml.CSafeLoader):
    """YAML as sigs.k8s.io/yaml reads it: no timestamps, they stay strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


# Not allowed in YAML, or line breaks there.
_DIFFERS_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(slots=True)
class Request:
    """A request whose body has been read."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in {"true", "1"}

    def number(self, name: str) -> int | None:
        text = self.query.get(name, "")
        if not text:
            return None
        if not text.isdigit() or len(text) > 18:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        return int(text)

    def document(self, *, or_empty: bool = False) -> Any:
        """The body as JSON or YAML.

        Raises:
            StatusError: 400 when it is neither, 415 when it claims to be something else.
        """
        if not self.body.strip():
            if or_empty:
                return {}
            raise bad_request("EOF: a request body is required")
        kind = self.content_type
        if kind in {"", "application/json", "*/*"}:
            return parse_json(self.body)
        if kind == "application/yaml":
            return parse_yaml(self.body)
        if kind == PROTOBUF:
            try:
                return protobuf.decode(self.body)
            except protobuf.UnknownFieldError as exc:
                raise unsupported_media(["application/json", "application/yaml"], f" ({exc} in protobuf)") from exc
        raise unsupported_media(["application/json", "application/yaml"])


def unsupported_media(accepted: list[str], what: str = "") -> StatusError:
    message = f"the body of the request was in an unknown format{what} - accepted media types include: "
    message += ", ".join(accepted)
    return StatusError(415, "UnsupportedMediaType", message)


def parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise bad_request(f"couldn't get version/kind; json parse error: {exc}") from exc


def parse_yaml(body: bytes) -> Any:
    """YAML, or JSON, which is tried first because it is far quicker to read, unless it means something else in YAML."""
    if body.lstrip()[:1] == b"{" and not _DIFFERS_IN_YAML.search(body.decode("utf-8", "replace")):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    try:
        document = yaml.load(body, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
        # Through JSON, so that whatever JSON cannot hold (dates as keys, NaN, sets) is refused here.
        return orjson.loads(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as exc:
        raise bad_request(f"error decoding YAML: {exc}") from exc


@dataclass(slots=True)
class Answer:
    """A whole response, or with `stream` one that goes on."""

    code: int = 200
    body: bytes = b""
    content_type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    stream: AsyncGenerator[bytes, None] | None = None
    stop: Callable[[], None] | None = None


def json_answer(obj: Any, code: int = 200) -> Answer:
    return Answer(code, orjson.dumps(obj))


def status_answer(error: StatusError) -> Answer:
    return Answer(error.code, orjson.dumps(error.body()), headers=list(error.headers))


@dataclass(frozen=True, slots=True)
class Format:
    """How the client wants the answer: `as_kind` is "", Table, PartialObjectMetadata(List) or APIGroupDiscoveryList."""

    as_kind: str = ""
    yaml: bool = False
    content_type: bytes = JSON


_PLAIN = Format()
_CONVERSIONS = {
    ("Table", "meta.k8s.io", "v1"),
    ("PartialObjectMetadata", "meta.k8s.io", "v1"),
    ("PartialObjectMetadataList", "meta.k8s.io", "v1"),
    ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"),
}


def negotiate(accept: bytes) -> Format:
    """The first acceptable format.

    Raises:
        StatusError: 406 when there is none.
    """
    if not accept or accept in {JSON, b"*/*"}:
        return _PLAIN
    for choice in accept.decode("latin-1").split(","):
        media, *parameters = (part.strip() for part in choice.split(";"))
        given = dict(part.partition("=")[::2] for part in parameters)
        if media not in {"application/json", "application/yaml", "application/*", "*/*"}:
            continue
        if "as" in given:
            conversion = (given["as"], given.get("g", ""), given.get("v", ""))
            if media == "application/json" and conversion in _CONVERSIONS:
                return Format(given["as"], content_type=_conversion_type(conversion))
            continue
        return Format(yaml=True, content_type=b"application/yaml") if media == "application/yaml" else _PLAIN
    message = "only the following media types are accepted: application/json, application/yaml"
    raise StatusError(406, "NotAcceptable", message)


def _conversion_type(conversion: tuple[str, str, str]) -> bytes:
    # kubectl takes an answer for aggregated discovery only when the content type says so.
    if conversion[0] == "APIGroupDiscoveryList":
        return b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    return JSON


async def read_request(scope: dict[str, Any], receive: Receive) -> Request:
    """Read the whole body.

    Raises:
        StatusError: 413 when it is too large.
        ConnectionError: the client went away.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client went away")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= MAX_BODY:
            chunks.append(chunk)
        if not message.get("more_body") or size > MAX_DRAIN:
            break
    if size > MAX_BODY:
        raise StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
    query_string: bytes = scope["query_string"]
    query = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)) if query_string else {}
    return Request(scope["method"], scope["path"], query, dict(scope["headers"]), b"".join(chunks))


async def respond(receive: Receive, send: Send, answer: Answer) -> None:
    """Send an answer; a stream also ends when its client goes away, or stops reading for too long."""
    headers = [(b"content-type", answer.content_type), *answer.headers]
    if answer.stream is None:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.code, "headers": headers})
    if answer.stream is None:
        await send({"type": "http.response.body", "body": answer.body})
        return
    gone = asyncio.create_task(_disconnected(receive, answer))
    try:
        async with aclosing(answer.stream) as chunks:
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            async for chunk in chunks:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except TimeoutError:
        # Returning with the response unfinished makes uvicorn close the connection.
        return
    finally:
        gone.cancel()


async def _disconnected(receive: Receive, answer: Answer) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if answer.stop is not None:
        answer.stop()
