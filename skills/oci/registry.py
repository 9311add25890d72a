"""One registry over HTTP: authentication, time and size limits, retries, and nothing outside its own origin.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md.

What registries answer is not trusted: credentials and content go to the origin that the settings name and nowhere
else, redirects and upload locations included; a token server elsewhere has to be named by the settings as well.
"""

import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import orjson

from skills.oci.challenge import Challenge, origin_of, parse_challenge
from skills.oci.errors import BlobNotFoundError, RegistryRefusedError, RegistryUnavailableError

MAX_REDIRECTS = 3
SMALL_BYTES = 64 * 1024
# What may go better the next time.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Seconds before the second try, and before each later one.
RETRY_PAUSES = (0.1, 0.5)
_LONGEST_PAUSE = 2.0
_TOKEN_SLACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """Where a registry is and how it is spoken to.

    Attributes:
        url: its origin, such as `https://registry.example.com`.
        auth_origins: origins of token servers beside the registry's own.
        ca_file: certificates to trust instead of the system's; empty for those.
        verify_tls: False accepts any certificate.
        timeout_seconds: for one request as a whole.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    auth_origins: tuple[str, ...] = ()
    ca_file: str = ""
    verify_tls: bool = True
    timeout_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """A connection pool to one registry. Safe to share between threads; `close` it."""

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self.origin = origin_of(options.url)
        self._base = options.url.rstrip("/")
        self._realms = frozenset({self.origin, *(origin_of(each) for each in options.auth_origins)})
        self._client = httpx.Client(
            verify=_tls(options),
            timeout=httpx.Timeout(options.timeout_seconds, connect=min(5.0, options.timeout_seconds)),
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": "opencrane", "Accept-Encoding": "identity"},
        )
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[str, tuple[float, str]] = {}

    def close(self) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        expect: Sequence[int],
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = SMALL_BYTES,
        tries: int = 3,
    ) -> Answer:
        """Ask the registry, log in when it wants that, and try again what may go better.

        Args:
            path: below the registry's origin, or an absolute URL within it.
            expect: statuses that are no failure.
            scope: what a bearer token has to be for, as the token specification writes it.
            max_bytes: how much of the body is read at most; more is a refusal.
            tries: how often at most; only for what may be repeated.

        Raises:
            BlobNotFoundError: 404, when that is not expected.
            RegistryUnavailableError, RegistryRefusedError
        """
        for attempt in range(1, tries + 1):
            pause = 0.0
            try:
                answer = self._with_login(method, path, scope, headers or {}, body, max_bytes)
            except RegistryUnavailableError:
                if attempt == tries:
                    raise
            else:
                if answer.status in expect:
                    return answer
                if answer.status not in _TRANSIENT or attempt == tries:
                    raise self._refusal(method, answer)
                pause = _retry_after(answer.headers)
            time.sleep(min(_LONGEST_PAUSE, max(pause, RETRY_PAUSES[min(attempt, len(RETRY_PAUSES)) - 1])))
        raise AssertionError("tries is at least 1")

    def within(self, location: str, base: str) -> str:
        """An address that the registry gave, made absolute.

        Raises:
            RegistryRefusedError: it leads out of the registry's origin.
        """
        try:
            url = urljoin(self._url(base), location)
            inside = origin_of(url) == self.origin
        except ValueError:
            inside = False
        if not inside:
            raise RegistryRefusedError(
                "The registry redirects to another origin, which is not followed. Have it serve its content itself, "
                "or name the origin that it calls its own."
            )
        return url

    # --- Logging in

    def _with_login(
        self, method: str, path: str, scope: str, headers: Mapping[str, str], body: bytes | None, max_bytes: int
    ) -> Answer:
        sent = self._authorization(scope)
        answer = self._followed(method, path, {**headers, **sent}, body, max_bytes)
        if answer.status != 401:
            return answer
        challenge = parse_challenge(answer.headers.get("www-authenticate", ""))
        if challenge is None:
            raise RegistryRefusedError("The registry wants a login by a scheme that is neither Basic nor Bearer.")
        with self._lock:
            self._challenge = challenge
            self._tokens.pop(scope, None)
        # A token may have ended; a password that was refused stays refused.
        if sent and challenge.scheme == "basic":
            raise RegistryRefusedError("The registry refuses the user name and password.")
        fresh = self._authorization(scope)
        if not fresh:
            raise RegistryRefusedError("The registry wants a user name and password, and none are set.")
        return self._followed(method, path, {**headers, **fresh}, body, max_bytes)

    def _authorization(self, scope: str) -> dict[str, str]:
        challenge = self._challenge
        if challenge is None:
            return {}
        if challenge.scheme == "basic":
            if not self.options.username:
                return {}
            basic = httpx.BasicAuth(self.options.username, self.options.password)
            return {"Authorization": basic._auth_header}
        return {"Authorization": f"Bearer {self._token(challenge, scope)}"}

    def _token(self, challenge: Challenge, scope: str) -> str:
        with self._lock:
            until, token = self._tokens.get(scope, (0.0, ""))
        if until > time.monotonic():
            return token
        try:
            known = origin_of(challenge.realm) in self._realms
        except ValueError:
            known = False
        if not known:
            raise RegistryRefusedError(
                "The registry names a token server of another origin. If it is to be trusted with the credentials, "
                "add it to OPENCRANE_SKILL_OCI_AUTH_ORIGINS."
            )
        query = {"service": challenge.service, "scope": scope or challenge.scope}
        url = str(httpx.URL(challenge.realm).copy_merge_params({key: value for key, value in query.items() if value}))
        headers = {}
        if self.options.username:
            headers["Authorization"] = httpx.BasicAuth(self.options.username, self.options.password)._auth_header
        answer = self._once("GET", url, headers, None, SMALL_BYTES)
        if answer.status in _TRANSIENT:
            raise RegistryUnavailableError(f"The registry's token server answers with HTTP status {answer.status}.")
        if answer.status != 200:
            raise RegistryRefusedError(f"The registry's token server refuses with HTTP status {answer.status}.")
        token, seconds = _token_in(answer.body)
        with self._lock:
            self._tokens[scope] = (time.monotonic() + max(0.0, seconds - _TOKEN_SLACK_SECONDS), token)
        return token

    # --- HTTP

    def _url(self, path: str) -> str:
        return path if path.startswith(("http://", "https://")) else f"{self._base}{path}"

    def _followed(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, max_bytes: int
    ) -> Answer:
        url = self._url(path)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._once(method, url, headers, body, max_bytes)
            if answer.status not in _REDIRECTS:
                return answer
            if method not in ("GET", "HEAD"):
                raise RegistryRefusedError("The registry redirects a write, which is not followed.")
            url = self.within(answer.headers.get("location", ""), url)
        raise RegistryRefusedError(f"The registry redirects more than {MAX_REDIRECTS} times.")

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, max_bytes: int) -> Answer:
        deadline = time.monotonic() + self.options.timeout_seconds
        try:
            with self._client.stream(method, url, headers=dict(headers), content=body) as response:
                if response.headers.get("content-encoding", "identity") != "identity":
                    # None was asked for; a few bytes could unpack to gigabytes.
                    raise RegistryRefusedError("The registry compresses its answer although it was asked not to.")
                parts, size = [], 0
                limit = max_bytes if response.is_success else SMALL_BYTES
                for chunk in response.iter_raw():
                    size += len(chunk)
                    if size > limit:
                        raise RegistryRefusedError(f"The registry answers with more than {limit} bytes.")
                    if time.monotonic() > deadline:
                        raise RegistryUnavailableError("The registry takes too long to answer.")
                    parts.append(chunk)
                return Answer(response.status_code, response.headers, b"".join(parts))
        except httpx.TimeoutException as exc:
            raise RegistryUnavailableError("The registry does not answer in time.") from exc
        except httpx.ConnectError as exc:
            raise RegistryUnavailableError(f"The registry cannot be reached: {_why(exc)}.") from exc
        except (httpx.TransportError, httpx.StreamError) as exc:
            raise RegistryUnavailableError("The registry breaks off the connection.") from exc
        except (httpx.InvalidURL, httpx.DecodingError) as exc:
            raise RegistryRefusedError("The registry's answer makes no sense.") from exc

    def _refusal(self, method: str, answer: Answer) -> Exception:
        told = _told(answer.body)
        sentence = f"The registry answers {method} with HTTP status {answer.status}{told}."
        if answer.status in _TRANSIENT:
            return RegistryUnavailableError(sentence)
        if answer.status == 404 and method in ("GET", "HEAD"):
            return BlobNotFoundError("The registry does not have it.")
        if answer.status in (401, 403):
            return RegistryRefusedError(f"The registry does not allow this to the user that is set{told}.")
        return RegistryRefusedError(sentence)


def _tls(options: RegistryOptions) -> ssl.SSLContext | bool:
    # Loading the system's certificates takes a while, and plain HTTP has no use for them.
    is_used = any(url.startswith("https://") for url in (options.url, *options.auth_origins))
    if not (is_used and options.verify_tls):
        return False
    return ssl.create_default_context(cafile=str(Path(options.ca_file)) if options.ca_file else None)


def _why(exc: httpx.ConnectError) -> str:
    text = str(exc)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted"
    if "Name or service not known" in text or "getaddrinfo" in text or "name resolution" in text:
        return "its name cannot be resolved"
    return "the connection is refused" if "refused" in text else "no connection"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the answer asks to wait (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:6])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else 0.0
    except (ValueError, TypeError):
        return 0.0


def _token_in(body: bytes) -> tuple[str, float]:
    try:
        told: Any = orjson.loads(body)
        token = told.get("token") or told.get("access_token")
        seconds = told.get("expires_in") or 60
    except (orjson.JSONDecodeError, AttributeError) as exc:
        raise RegistryRefusedError("The registry's token server gives no token.") from exc
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryRefusedError("The registry's token server gives no token.")
    return token, float(seconds) if isinstance(seconds, int | float) else 60.0


def _told(body: bytes) -> str:
    """The error code in an answer, such as ` (BLOB_UNKNOWN)`; free text of the registry is not passed on."""
    try:
        errors = orjson.loads(body)["errors"]
        code = errors[0]["code"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return ""
    return f" ({code})" if isinstance(code, str) and code.isascii() and code.replace("_", "").isalnum() else ""
