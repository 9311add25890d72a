"""HTTP to `/api/v1`: one request at a time, its errors as ours, its pages as one stream."""

import json
import platform
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from cli import __version__
from cli.config import NOT_SIGNED_IN, Target, is_loopback
from cli.errors import CliError, Exit, UsageError

PREFIX = "/api/v1"
PAGE = 500
TRIES = 4
# As long as somebody at a terminal waits without a word.
LONGEST_PAUSE = 30.0
AGENT = f"opencrane/{__version__} ({platform.system()})"

_BY_STATUS = {
    401: Exit.DENIED, 403: Exit.DENIED, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT, 412: Exit.CONFLICT,
    429: Exit.UNAVAILABLE, 502: Exit.UNAVAILABLE, 503: Exit.UNAVAILABLE, 504: Exit.UNAVAILABLE,
}  # fmt: skip
_HINTS = {
    "UNAUTHORIZED": NOT_SIGNED_IN,
    "FORBIDDEN": "opencrane whoami, and ask an administrator for a role that may",
    "PRECONDITION_FAILED": "somebody has changed it meanwhile: look at it again",
    "DATA_RETAINED": "opencrane retained-data list, or create it with --adopt-retained",
    "TIMEOUT": "the write is saved and will land; look at the object in a moment",
    "SCAN_REQUIRED": "opencrane skills get NAME@VERSION shows what the scan found",
    "OCI_STORE_NOT_CONFIGURED": "an administrator sets SKILL_OCI_REGISTRY_URL on the server",
    "DEPENDENCY_NOT_CONFIGURED": "an administrator configures it on the server: docs/configuration.md",
}


@dataclass(frozen=True)
class Answer:
    """A successful response.

    Attributes:
        data: the JSON body; None where there is none.
    """

    status: int
    data: Any
    headers: Mapping[str, str]

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "")


def path(template: str, **values: Any) -> str:
    """`/tenants/{name}` with its parts filled in and quoted.

    Raises:
        UsageError: a part is empty, or one that the way would lead elsewhere by.
    """
    quoted = {}
    for key, value in values.items():
        text = str(value)
        if text.strip() in ("", ".", ".."):
            raise UsageError(f"{text!r} is no {key}")
        try:
            quoted[key] = quote(text, safe="")
        except UnicodeEncodeError as exc:
            raise UsageError(f"{text!r} is no {key}: not UTF-8") from exc
    return template.format(**quoted)


class Client:
    """Requests to one server with one token.

    Args:
        timeout: seconds until an answer has to have begun.
        verbose: whether each request is told on standard error, without bodies and secrets.
    """

    def __init__(self, target: Target, *, timeout: float, verbose: bool = False, agent: str = AGENT) -> None:
        self.target = target
        self._verbose = verbose
        headers = {"User-Agent": agent, "Accept": "application/json"}
        if target.token:
            try:
                target.token.encode("ascii")
            except UnicodeEncodeError as exc:
                raise CliError(
                    "the token has characters that no token has", status=Exit.DENIED, hint=NOT_SIGNED_IN
                ) from exc
            headers["Authorization"] = f"Bearer {target.token}"
        self._http = httpx.Client(
            base_url=target.server,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            verify=_trust(target),
            follow_redirects=False,
            # A proxy has no business with this machine, nor with a token that goes there in the clear.
            trust_env=not is_loopback(httpx.URL(target.server).host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def get(self, where: str, query: Mapping[str, Any] | None = None, **headers: str) -> Answer:
        """GET below /api/v1."""
        return self.request("GET", where, query=query, headers=headers)

    def request(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        tries: int = 0,
    ) -> Answer:
        """One request below /api/v1.

        What may be sent twice is sent again when the connection fails, or the server says 429 or 503 with a
        `Retry-After` that is worth waiting for (RFC 9110, 9.2.2 and 10.2.3).

        Args:
            where: a path like `/tenants`, quoted.
            query: parameters; those that are None are left out.
            body: sent as JSON, unless None.
            tries: how often to send it at most; TRIES, if 0.

        Raises:
            CliError: the server cannot be reached, or refuses.
        """
        response = self.send(method, where, query=query, body=body, headers=headers, tries=tries)
        request_id = response.headers.get("x-request-id", "")
        data = None
        if response.content and response.status_code not in (204, 304):
            try:
                data = json.loads(response.content)
            except ValueError as exc:
                raise self._stranger(response) from exc
        if response.is_success or response.status_code == 304:
            return Answer(response.status_code, data, response.headers)
        if not isinstance(data, dict) or "error" not in data:
            raise self._stranger(response)
        raise failure(response.status_code, data, request_id, response.headers.get("retry-after", ""))

    def _stranger(self, response: httpx.Response) -> CliError:
        if response.is_redirect:
            location = response.headers.get("location", "")
            return CliError(f"{self.target.server} sends on to {location}", hint="use that address as the server")
        return CliError(
            f"{self.target.server} does not answer like OpenCrane (HTTP {response.status_code})",
            status=_BY_STATUS.get(response.status_code, Exit.FAILURE),
            hint="is this the right server? opencrane context list",
        )

    def send(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        tries: int = 0,
    ) -> httpx.Response:
        """`request` without a look at what the answer says."""
        tries = tries or TRIES
        try:
            content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except (TypeError, ValueError) as exc:  # YAML has sets, bytes and circles
            raise UsageError(f"the body is nothing that JSON has: {exc}") from exc
        sent = dict(headers or {})
        if content is not None:
            sent["Content-Type"] = "application/json"
        parameters = {key: _text(value) for key, value in (query or {}).items() if value is not None}
        try:
            request = self._http.build_request(
                method, PREFIX + where, params=parameters or None, content=content, headers=sent
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as exc:
            raise UsageError(f"{where} is no path: {exc}") from exc
        for attempt in range(1, tries + 1):
            began = time.monotonic()
            try:
                response = self._http.send(request)
            except httpx.HTTPError as exc:
                self._tell(f"{method} {_shown(request)} failed: {type(exc).__name__} {exc}")
                if attempt == tries or not _may_repeat(request, exc):
                    raise self._away(exc) from exc
                pause = 0.25 * 2 ** (attempt - 1)
            else:
                took = (time.monotonic() - began) * 1000
                request_id = response.headers.get("x-request-id", "")
                self._tell(f"{method} {_shown(request)} {response.status_code} in {took:.0f} ms, request {request_id}")
                wanted = response.headers.get("retry-after", "")
                is_passing = response.status_code in (429, 503) and wanted.isascii() and wanted.isdigit()
                if attempt == tries or not is_passing or method not in _REPEATABLE or float(wanted) > LONGEST_PAUSE:
                    return response
                pause = float(wanted)
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def download(self, where: str, to: Any) -> None:
        """Write the body of a GET into a binary file, piece by piece.

        Raises:
            CliError: the server cannot be reached, or refuses, or the connection ends early.
        """
        try:
            with self._http.stream("GET", PREFIX + where, headers={"Accept": "*/*"}) as response:
                if response.is_success:
                    for piece in response.iter_bytes():
                        to.write(piece)
                    return
        except httpx.HTTPError as exc:
            raise self._away(exc) from exc
        # It refuses; ask again for what it says, as everywhere.
        self.request("GET", where, headers={"Accept": "*/*"})
        raise self._stranger(response)

    def pages(
        self, where: str, query: Mapping[str, Any], *, limit: int = 0, items: str = ""
    ) -> Iterator[tuple[list[Any], Any]]:
        """The rows of a list, page by page, each with the body it came in.

        Args:
            limit: how many rows altogether; 0 for all.
            items: the key of the rows where the list is wrapped in an object.
        """
        left = limit
        following = dict(query)
        while True:
            following["limit"] = min(PAGE, left) if left else PAGE
            answer = self.get(where, following)
            rows = answer.data[items] if items else answer.data
            if left:
                rows = rows[:left]
                left -= len(rows)
            yield rows, answer.data
            cursor = _next_cursor(answer)
            if not cursor or (limit and not left):
                return
            following = dict(query) | {"cursor": cursor}

    def _tell(self, line: str) -> None:
        if self._verbose:
            sys.stderr.write(f"{line}\n")

    def _away(self, exc: httpx.HTTPError) -> CliError:
        server = self.target.server
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                reason = getattr(cause, "verify_message", "")
                return CliError(
                    f"no secure connection to {server}: {reason or cause.reason or cause}",
                    status=Exit.UNAVAILABLE,
                    hint="--ca-file FILE names the authority that signed its certificate"
                    if reason
                    else "does it speak https at that port?",
                )
            cause = cause.__cause__ or cause.__context__
        if isinstance(exc, httpx.TimeoutException):
            return CliError(
                f"no answer from {server} in time",
                status=Exit.UNAVAILABLE,
                detail=""
                if isinstance(exc, httpx.ConnectTimeout)
                else "What was asked for may have happened all the same.",
                hint="--timeout SECONDS waits longer",
            )
        return CliError(
            f"cannot reach {server}: {str(exc) or type(exc).__name__}",
            status=Exit.UNAVAILABLE,
            hint="is it running, and is this the right server? opencrane context list",
        )


_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


def _may_repeat(request: httpx.Request, exc: httpx.HTTPError) -> bool:
    """Whether a request that failed without an answer may be sent again.

    One that may have arrived is not repeated where the second would be refused for what the first did.
    """
    if request.method not in _REPEATABLE or isinstance(exc, (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout)):
        return False
    is_unsent = isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout))
    return (
        is_unsent
        or request.method in ("GET", "HEAD")
        or (request.method == "PUT" and "If-Match" not in request.headers)
    )


def _trust(target: Target) -> ssl.SSLContext | bool:
    if target.server.startswith("http:"):
        return False  # nothing to verify, and reading the authorities takes longer than the request
    try:
        if target.ca_file:
            return ssl.create_default_context(cafile=target.ca_file)
        import certifi

        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
    except (OSError, ssl.SSLError) as exc:
        raise CliError(f"cannot read certificates from {target.ca_file}: {exc}", status=Exit.USAGE) from exc
    return context


def _shown(request: httpx.Request) -> str:
    """A request's address, without what only this program may know."""
    url = request.url
    return str(url.copy_set_param("deviceCode", "...") if "deviceCode" in url.params else url)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _next_cursor(answer: Answer) -> str:
    if isinstance(answer.data, dict) and isinstance(answer.data.get("pagination"), dict):
        found = answer.data["pagination"]
        return str(found.get("nextCursor") or "") if found.get("hasMore") else ""
    link = httpx.Response(200, headers={"link": answer.headers.get("link", "")}).links.get("next")
    return str(httpx.URL(link["url"]).params.get("cursor", "")) if link else ""


def failure(status: int, data: Mapping[str, Any], request_id: str, retry_after: str = "") -> CliError:
    """The API's error body as ours."""
    code = str(data.get("code") or "")
    hint = _HINTS.get(code, "")
    if status == 429 and retry_after:
        hint = f"again in {retry_after} s"
    return CliError(
        str(data["error"]),
        status=_BY_STATUS.get(status, Exit.FAILURE),
        detail=str(data.get("detail") or ""),
        fields={str(key): [str(each) for each in value] for key, value in (data.get("fields") or {}).items()},
        hint=hint,
        code=code,
        request_id=request_id,
    )
