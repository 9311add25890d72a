"""The OpenID provider over HTTP: its discovery document, its keys, tokens and userinfo.

Nothing is read before somebody signs in, and nothing waits longer than a few seconds: a provider that hangs must not
take the request threads with it. Neither tokens nor codes appear in a log or an error.
https://openid.net/specs/openid-connect-discovery-1_0.html
"""

import functools
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
import jwt
import orjson
import structlog
from django.conf import settings

from accounts.errors import OidcNotConfiguredError, SignInFailedError
from opencrane.errors import DependencyUnavailableError, DomainError, UpstreamError

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 5.0
ANSWER_MAX = 1024 * 1024
# Both documents are read anew after this long; keys also when a token names one that is not known.
KEPT_SECONDS = 3600.0
# After a failure nobody asks for this long, and unknown keys are looked for no more often.
PAUSE_SECONDS = 3.0
ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
_OPTIONAL_ENDPOINTS = ("userinfo_endpoint", "end_session_endpoint")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is needed of the discovery document.

    Attributes:
        issuer: exactly as tokens have it in `iss`.
        userinfo_endpoint: empty when there is none.
        end_session_endpoint: likewise (OpenID Connect RP-Initiated Logout 1.0).
        basic_auth: whether the client authenticates by HTTP Basic rather than in the form.
        names_itself: whether every authorization response has `iss` (RFC 9207).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    end_session_endpoint: str
    basic_auth: bool
    names_itself: bool


class Provider:
    """One issuer, as one process knows it. Safe to share between threads."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._lock = threading.Lock()
        self._asking = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))
        self._metadata: Metadata | None = None
        self._metadata_until = 0.0
        self._keys: list[dict[str, Any]] = []
        self._keys_read_at = float("-inf")
        self._paused_until = 0.0

    # -- documents ----------------------------------------------------------------------------------------------------

    def metadata(self) -> Metadata:
        """The discovery document, at most an hour old; an older one only where the provider gives no newer.

        Raises:
            DependencyUnavailableError, UpstreamError.
        """
        known = self._metadata
        if known is not None and time.monotonic() < self._metadata_until:
            return known
        try:
            found = _metadata(self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"), self.issuer)
        except DomainError:
            if known is None:
                raise
            return known
        with self._lock:
            self._metadata, self._metadata_until = found, time.monotonic() + KEPT_SECONDS
        return found

    def key_for(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        """The key that a token's header names.

        A name that is not known may be that of a new key, so the key set is read again.

        Raises:
            SignInFailedError: the provider has no such key.
            DependencyUnavailableError, UpstreamError.
        """
        age = time.monotonic() - self._keys_read_at
        key = self._find(key_id, algorithm) if age < KEPT_SECONDS else None
        if key is None and age >= PAUSE_SECONDS:
            answer = self._get(self.metadata().jwks_uri)
            listed = answer.get("keys")
            if not isinstance(listed, list):
                raise UpstreamError("The OpenID provider's key set is none.")
            with self._lock:
                self._keys = [each for each in listed if isinstance(each, dict)]
                self._keys_read_at = time.monotonic()
            key = self._find(key_id, algorithm)
        if key is None:
            raise SignInFailedError(detail="It is signed with a key that the provider does not publish.")
        return key

    def _find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        fitting = [
            each
            for each in self._keys
            if each.get("kty") == ALGORITHMS[algorithm]
            and each.get("use", "sig") == "sig"
            and each.get("alg", algorithm) == algorithm
            and (key_id is None or each.get("kid") == key_id)
        ]
        # Without a name there has to be one candidate only (OpenID Connect Core 10.1).
        if not fitting or (key_id is None and len(fitting) > 1):
            return None
        try:
            return jwt.PyJWK(fitting[0], algorithm=algorithm)
        except jwt.PyJWTError as exc:
            log.warning("a key of the OpenID provider is none", error=type(exc).__name__)
            return None

    # -- exchanges ----------------------------------------------------------------------------------------------------

    def tokens(self, form: dict[str, Any]) -> dict[str, Any]:
        """The token endpoint's answer to a code (RFC 6749, 4.1.3 and 4.1.4).

        Args:
            form: with `client_id` and `client_secret`, which go where the provider wants them.

        Raises:
            SignInFailedError: the code is not good (any more).
            DependencyUnavailableError, UpstreamError.
        """
        metadata, form, headers = self.metadata(), dict(form), {"Accept": "application/json"}
        auth = None
        if metadata.basic_auth:
            # Both parts are form-encoded before they go into the header (RFC 6749, 2.3.1).
            auth = httpx.BasicAuth(quote_plus(form.pop("client_id")), quote_plus(form.pop("client_secret")))
        status, answer = self._ask("POST", metadata.token_endpoint, data=form, headers=headers, auth=auth)
        if status == 200:
            return answer
        error = answer.get("error")
        log.warning(
            "no tokens from the OpenID provider", status=status, error=error if isinstance(error, str) else None
        )
        if status < 500 and error == "invalid_grant":
            raise SignInFailedError("The OpenID provider does not accept the code; begin the sign-in again.")
        raise UpstreamError("The OpenID provider gave no tokens.", detail=f"It answered with status {status}.")

    def userinfo(self, access_token: str) -> dict[str, Any]:
        """What the userinfo endpoint says of the person (OpenID Connect Core 5.3).

        Raises:
            DependencyUnavailableError, UpstreamError.
        """
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        status, answer = self._ask("GET", self.metadata().userinfo_endpoint, headers=headers)
        if status != 200:
            log.warning("no userinfo from the OpenID provider", status=status)
            raise UpstreamError("The OpenID provider gave no userinfo.", detail=f"It answered with status {status}.")
        return answer

    def _get(self, url: str) -> dict[str, Any]:
        status, answer = self._ask("GET", url, headers={"Accept": "application/json"})
        if status != 200:
            raise UpstreamError("The OpenID provider failed.", detail=f"{url} answered with status {status}.")
        return answer

    def _ask(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        if time.monotonic() < self._paused_until or not self._asking.acquire(blocking=False):
            raise _unavailable()
        ends_at = time.monotonic() + 2 * TIMEOUT_SECONDS
        try:
            with (
                httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, verify=_tls()) as client,
                client.stream(method, url, **options) as response,
            ):
                body = b""
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > ANSWER_MAX:
                        raise UpstreamError("The OpenID provider's answer is too long.")
                    if time.monotonic() > ends_at:
                        raise httpx.ReadTimeout("the answer comes too slowly")
        except httpx.HTTPError as exc:
            log.warning("the OpenID provider does not answer", url=url, error=type(exc).__name__)
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            raise _unavailable() from exc
        finally:
            self._asking.release()
        return response.status_code, _object(body, response)


@functools.cache
def _tls() -> ssl.SSLContext:
    """What certificates are judged by; made once, because reading all authorities takes long."""
    return httpx.create_ssl_context()


def _object(body: bytes, response: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object; a failure may have any other body."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if response.status_code == 200:
        raise UpstreamError("The OpenID provider answered with something that is no JSON object.")
    return {}


def _unavailable() -> DependencyUnavailableError:
    return DependencyUnavailableError(
        "The OpenID provider is not available.", detail="Try again in a few seconds.", headers={"Retry-After": "5"}
    )


def _metadata(document: dict[str, Any], issuer: str) -> Metadata:
    """Judge a discovery document.

    Raises:
        UpstreamError: it is another issuer's, or lacks something.
    """
    named = document.get("issuer")
    # Some issuers end in a slash, which is easily left out of the setting; tokens are held to the provider's spelling.
    if not isinstance(named, str) or named.rstrip("/") != issuer.rstrip("/"):
        raise UpstreamError("The OpenID provider's discovery document is another issuer's.")
    endpoints: dict[str, str] = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", *_OPTIONAL_ENDPOINTS):
        value = document.get(name, "")
        if not value and name in _OPTIONAL_ENDPOINTS:
            endpoints[name] = ""
            continue
        if not isinstance(value, str) or not _is_as_safe(value, issuer):
            raise UpstreamError(f"The OpenID provider's discovery document has no good {name}.")
        endpoints[name] = value
    methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    return Metadata(
        issuer=named,
        basic_auth="client_secret_basic" in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        **endpoints,
    )


def _is_as_safe(url: str, issuer: str) -> bool:
    """Whether an endpoint is a URL, and not unencrypted where the issuer is encrypted."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    allowed = {"https"} if issuer.startswith("https://") else {"https", "http"}
    return parts.scheme in allowed and bool(parts.netloc)


_providers: dict[str, Provider] = {}
_making = threading.Lock()


def provider() -> Provider:
    """The provider that the settings name.

    Raises:
        OidcNotConfiguredError: they name none.
    """
    issuer: str = settings.OIDC_ISSUER
    if not issuer:
        raise OidcNotConfiguredError
    with _making:
        if issuer not in _providers:
            _providers.clear()
            _providers[issuer] = Provider(issuer)
        return _providers[issuer]


def forget_provider() -> None:
    """Read the provider's documents anew: another one may answer at the same address."""
    with _making:
        _providers.clear()
