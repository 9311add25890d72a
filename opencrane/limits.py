"""How often something may happen in a minute, counted in Valkey so that all web processes share one count.

A window begins with the first hit and lasts a minute (fixed windows). Each limit says what holds while Valkey is away:
`open` lets everything through, `closed` refuses with 503. docs/security.md has the table.
"""

import functools
import ipaddress
import math
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from opencrane.api.errors import RateLimitedError
from opencrane.errors import DependencyUnavailableError

log = structlog.get_logger(__name__)

WINDOW_SECONDS = 60
# A count is worth less than the request that waits for it.
TIMEOUT_SECONDS = 0.25
# After a failure nobody asks for this long, so that a hung Valkey costs one request in a while, not each of them.
PAUSE_SECONDS = 2.0
_PREFIX = "opencrane:limit:"
# One step, so that no counter is left without an end.
_COUNT = """
local hits = redis.call('INCR', KEYS[1])
if hits == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {hits, redis.call('PTTL', KEYS[1])}
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """One kind of thing that is counted.

    Attributes:
        name: part of the key in Valkey.
        setting: the Django setting with the hits that a minute may have; 0 for no limit.
        is_open_when_away: whether everything passes while Valkey is away.
        message: what somebody is told who is over it.
    """

    name: str
    setting: str
    is_open_when_away: bool
    message: str


# Open: a bad credential is refused anyway, only not as cheaply.
BAD_CREDENTIAL = Limit("bad", "RATE_LIMIT_BAD_CREDENTIALS", True, "Too many bad credentials from this address.")
# Open: a limit of use, not of access, must not take the API away.
CREDENTIAL = Limit("credential", "RATE_LIMIT", True, "Too many requests with this credential.")
# Closed: everybody may call it, and each call makes a row.
DEVICE = Limit("device", "RATE_LIMIT_DEVICE", False, "Too many device codes were asked for from this address.")


def hit(limit: Limit, who: str) -> None:
    """Count one for `who`, for example `address_of(request)`.

    Raises:
        RateLimitedError: it was one too many; `Retry-After` says when the minute is over.
        DependencyUnavailableError: Valkey is away and the limit is closed then.
    """
    most: int = getattr(settings, limit.setting)
    if most <= 0:
        return
    counted = _count(f"{_PREFIX}{limit.name}:{who}")
    if counted is None:
        if limit.is_open_when_away:
            return
        raise DependencyUnavailableError(
            "Valkey is not available to count requests.",
            detail="Try again in a few seconds.",
            headers={"Retry-After": "5"},
        )
    hits, milliseconds = counted
    if hits > most:
        raise RateLimitedError(
            limit.message,
            detail=f"At most {most} in {WINDOW_SECONDS} s.",
            headers={"Retry-After": str(max(1, math.ceil(milliseconds / 1000)))},
        )


def address_of(request: Any) -> str:
    """The caller's address as limits count it: an IPv6 one by its /64, which is what one subscriber gets."""
    plain = getattr(request, "_request", request)
    text: str = getattr(plain, "client_address", "")
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return text


class _Pause:
    """Whether Valkey is worth a try; shared by the threads of a process, and for one URL."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def is_on(self, url: str) -> bool:
        return time.monotonic() < self._until.get(url, 0.0)

    def begin(self, url: str) -> None:
        with self._lock:
            self._until[url] = time.monotonic() + PAUSE_SECONDS


_pause = _Pause()


def _count(key: str) -> tuple[int, int] | None:
    """Hits in this window, this one included, and its milliseconds to go; None while Valkey is away."""
    url: str = settings.REDIS_URL
    if _pause.is_on(url):
        return None
    try:
        hits, milliseconds = _script(url)(keys=[key], args=[WINDOW_SECONDS * 1000])
    except redis.RedisError as exc:
        _pause.begin(url)
        log.warning("limits cannot be counted", error=str(exc))
        return None
    return int(hits), int(milliseconds)


@functools.lru_cache(maxsize=4)
def _script(url: str) -> Any:
    client = redis.Redis.from_url(
        _plain_url(url),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        # One connection that was dropped while idle is no outage.
        retry=Retry(NoBackoff(), 1),
        health_check_interval=25,
    )
    return client.register_script(_COUNT)


def _plain_url(url: str) -> str:
    """The broker's URL as redis-py has it: Celery calls a socket `redis+socket://` and its database `virtual_host`."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return url
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0]
    return f"unix://{parts.netloc}{parts.path}?db={database}"
