"""Ask the API server whose ServiceAccount token a caller shows (TokenReview, authentication.k8s.io/v1).

A good answer is kept for a minute at most, and never beyond the token's own end; a bad one is not. Tokens are kept as
SHA-256 and appear in no log and no error.
https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

import base64
import binascii
import hashlib
import threading
import time
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from django.conf import settings

from cluster.client import cluster_client
from cluster.errors import KubeError, KubeTransientError
from opencrane.errors import DependencyUnavailableError, UpstreamError

log = structlog.get_logger(__name__)

KEPT_SECONDS = 60.0
MOST_KEPT = 20_000
TOKEN_MAX = 16 * 1024
REVIEW_SECONDS = 3.0
# After no answer at all nobody asks for this long: a cluster that hangs must not take the request threads with it.
PAUSE_SECONDS = 2.0
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_AWAY = "Kubernetes is not available to check the token."


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a token.

    Attributes:
        username: as Kubernetes names it, `system:serviceaccount:<namespace>:<name>`.
        audiences: those of the audiences asked for that the token is meant for.
        reviewed_at: when the API server said so, in seconds since the epoch.
    """

    username: str
    audiences: frozenset[str]
    reviewed_at: float


class TokenReviews:
    """The reviews of one process. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[bytes, tuple[float, frozenset[str], Holder]] = {}
        self._asking = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))
        self._paused_until = 0.0

    def holder_of(self, token: str, audiences: frozenset[str], *, since: float = 0.0) -> Holder | None:
        """Who holds `token`, if it is good for any of `audiences`; None when it is not, whatever the reason.

        Args:
            since: an answer from before that (seconds since the epoch) does not count.

        Raises:
            DependencyUnavailableError: the cluster does not answer, or too many requests wait for it already.
            UpstreamError: the cluster answers, but not this question.
        """
        ends_at = expiry(token)
        if ends_at is None or ends_at <= time.time():
            return None
        key = hashlib.sha256(token.encode()).digest()
        kept = self._kept.get(key)
        if kept is not None:
            until, asked_for, holder = kept
            if until > time.monotonic() and asked_for == audiences and holder.reviewed_at >= since:
                return holder
        found = self._ask(token, audiences)
        if found is not None:
            self._keep(key, min(KEPT_SECONDS, ends_at - time.time()), audiences, found)
        return found

    def forget(self) -> None:
        """Drop what is kept."""
        with self._lock:
            self._kept.clear()
            self._paused_until = 0.0

    def _keep(self, key: bytes, seconds: float, audiences: frozenset[str], holder: Holder) -> None:
        with self._lock:
            self._kept.pop(key, None)
            # In the order they came, so the first ones end first.
            while len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = (time.monotonic() + seconds, audiences, holder)

    def _ask(self, token: str, audiences: frozenset[str]) -> Holder | None:
        if time.monotonic() < self._paused_until or not self._asking.acquire(blocking=False):
            raise _unavailable()
        asked_at = time.time()
        try:
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": sorted(audiences)},
            }
            status, answer = cluster_client().request("POST", _PATH, body=body, timeout=REVIEW_SECONDS)
        except KubeTransientError as exc:
            log.warning("no token review", error=exc.message)
            if not exc.unreachable:
                raise UpstreamError("Kubernetes could not check the token.") from exc
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            raise _unavailable() from exc
        except KubeError as exc:
            log.warning("no token review", error=exc.message)
            raise UpstreamError("Kubernetes refused to check the token.") from exc
        finally:
            self._asking.release()
        if status == 404:
            raise UpstreamError("Kubernetes does not serve token reviews.")
        return _holder(answer.get("status") or {}, audiences, asked_at)


def _unavailable() -> DependencyUnavailableError:
    return DependencyUnavailableError(_AWAY, detail="Try again in a few seconds.", headers={"Retry-After": "5"})


def _holder(status: dict[str, Any], audiences: frozenset[str], asked_at: float) -> Holder | None:
    if status.get("authenticated") is not True or status.get("error"):
        return None
    # An authenticator that knows no audiences leaves them out: the token is then good for the API server, not for us.
    shared = audiences & frozenset(status.get("audiences") or ())
    username = (status.get("user") or {}).get("username")
    return Holder(username, shared, asked_at) if shared and isinstance(username, str) else None


def expiry(token: str) -> float | None:
    """When a JWT says that it ends (seconds since the epoch); None for what is no such token.

    Nothing is verified. What has no end, above all an access token of ours, is never shown to the API server.
    """
    if len(token) > TOKEN_MAX or not token.isascii():
        return None
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    ends_at = claims.get("exp") if isinstance(claims, dict) else None
    return float(ends_at) if isinstance(ends_at, int | float) and not isinstance(ends_at, bool) else None


reviews = TokenReviews()
