"""LiteLLM's proxy API, as far as it concerns money: virtual keys and spend logs.

Follows LiteLLM 1.106.2 (its published openapi.json and `proxy/management_endpoints/key_management_endpoints.py`,
`proxy/spend_tracking/spend_management_endpoints.py`). Facts that are easily missed:

- A key is named by its SHA-256; the key itself is in the answers of `/key/generate` and `/key/regenerate` only.
- `/key/info` answers 200 for a key that was deleted, with `info.status` = `deleted`, and 404 for one that never was.
- `/key/delete` answers 404 where none of the keys is there.
- `/key/update` changes the fields that are present; `max_budget: null` takes the ceiling away.
- `/key/regenerate` needs an Enterprise licence; without one it answers 500 and says so in the message.
- Aliases are unique: a second key of an alias is a 400.
- `/spend/logs/v2` takes times as `YYYY-MM-DD HH:MM:SS` in UTC, both ends included, and at most 1,000 rows a page.

Nothing that LiteLLM sends is taken for granted: what is not as its API says is a LitellmFailedError.
"""

import datetime
import functools
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import httpx
import orjson
from django.conf import settings

from budgets.errors import LitellmFailedError, LitellmNotConfiguredError
from opencrane.masking import mask_text

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
LOGS_SECONDS = 30.0
MAX_BYTES = 64 * 1024 * 1024
PAGE_SIZE = 1000
# `1mo` ends with the calendar month.
BUDGET_DURATION = "1mo"
# By this we know a key that we made, and whose it is: the tenant's UUID.
METADATA_TENANT = "opencrane_tenant_id"
_TOKEN = re.compile(r"[0-9a-f]{64}")
_KEYS = re.compile(r"sk-[A-Za-z0-9_-]{6,}")
_MESSAGE_MAX = 300


def is_configured() -> bool:
    return bool(settings.LITELLM_ENDPOINT and settings.LITELLM_MASTER_KEY)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key as it is told once. `value` goes into a Secret and nowhere else."""

    value: str
    token: str

    def __repr__(self) -> str:
        return f"IssuedKey(token={self.token!r})"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What LiteLLM says of a key: its ceiling (None: none), and what it spent since the month began."""

    alias: str
    max_budget_usd: Decimal | None
    spend_usd: Decimal
    budget_duration: str
    is_blocked: bool


@dataclass(frozen=True, slots=True)
class LogPage:
    """One page of spend logs, as LiteLLM has them."""

    rows: list[Mapping[str, Any]]
    has_more: bool


class Litellm:
    """A conversation with LiteLLM; use it as a context manager.

    Raises, from every method:
        LitellmFailedError: no answer in time, a refusal, or an answer that is not as the API says.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def generate_key(
        self, *, alias: str, max_budget_usd: Decimal | None, spend_usd: Decimal, metadata: Mapping[str, str]
    ) -> IssuedKey:
        """A new key.

        Args:
            spend_usd: what counts as spent this month already, so that a new key is no new budget.
        """
        body = {
            "key_alias": alias,
            "max_budget": _dollars(max_budget_usd),
            "budget_duration": BUDGET_DURATION,
            "spend": float(spend_usd),
            "metadata": dict(metadata),
        }
        return self._issued(self._ask("POST", "/key/generate", body))

    def regenerate_key(self, token: str, *, grace_seconds: int) -> IssuedKey | None:
        """A new key in the place of the old one, which goes on working for the grace; None without the licence."""
        body: dict[str, Any] = {"key": token}
        if grace_seconds:
            body["grace_period"] = f"{grace_seconds}s"
        try:
            return self._issued(self._ask("POST", "/key/regenerate", body))
        except LitellmFailedError as exc:
            if exc.status in {400, 403, 500} and "enterprise" in exc.message.lower():
                return None
            raise

    def key_info(self, token: str, *, timeout_seconds: float = ANSWER_SECONDS) -> KeyInfo | None:
        """The key, or None when LiteLLM has none such any more."""
        try:
            answer = self._ask("GET", "/key/info", params={"key": token}, timeout_seconds=timeout_seconds)
        except LitellmFailedError as exc:
            if exc.status == 404:
                return None
            raise
        info = answer.get("info")
        if not isinstance(info, dict):
            raise _lying("/key/info", "has no info")
        if info.get("status") == "deleted" or info.get("deleted_at"):
            return None
        limit = info.get("max_budget")
        return KeyInfo(
            alias=str(info.get("key_alias") or ""),
            max_budget_usd=None if limit is None else _number("/key/info", "max_budget", limit),
            spend_usd=_number("/key/info", "spend", info.get("spend")),
            budget_duration=str(info.get("budget_duration") or ""),
            is_blocked=bool(info.get("blocked")),
        )

    def set_budget(self, token: str, max_budget_usd: Decimal | None) -> bool:
        """Have another ceiling enforced; False when LiteLLM has no such key any more."""
        body = {"key": token, "max_budget": _dollars(max_budget_usd), "budget_duration": BUDGET_DURATION}
        return self._update(body)

    def rename_key(self, token: str, alias: str) -> bool:
        """Give a key another alias, since two may not share one; False when LiteLLM has no such key any more."""
        return self._update({"key": token, "key_alias": alias})

    def expire_key(self, token: str, seconds: int) -> bool:
        """Have a key end by itself; False when LiteLLM has no such key any more."""
        return self._update({"key": token, "duration": f"{max(1, seconds)}s"})

    def delete_key(self, token: str) -> None:
        """Have a key dead, and make sure of it; one that LiteLLM does not have is dead."""
        try:
            answer = self._ask("POST", "/key/delete", {"keys": [token]})
        except LitellmFailedError as exc:
            if exc.status == 404:
                return
            raise
        if not isinstance(answer.get("deleted_keys"), list):
            raise _lying("/key/delete", "does not say what was deleted")
        if self.key_info(token) is not None:
            raise LitellmFailedError("LiteLLM says that the key is deleted, and still has it.")

    def keys_of_alias(self, alias: str) -> list[tuple[str, str]]:
        """The keys of an alias: the token, and the value of METADATA_TENANT in its metadata, or empty."""
        params = {"key_alias": alias, "return_full_object": "true", "size": "100"}
        answer = self._ask("GET", "/key/list", params=params)
        keys = answer.get("keys")
        if not isinstance(keys, list):
            raise _lying("/key/list", "has no list of keys")
        found = []
        for key in keys:
            token = key.get("token") if isinstance(key, dict) else None
            if not isinstance(token, str) or not _TOKEN.fullmatch(token):
                raise _lying("/key/list", "has a key without its token")
            metadata = key.get("metadata")
            owner = metadata.get(METADATA_TENANT) if isinstance(metadata, dict) else None
            if key.get("key_alias") == alias:
                found.append((token, owner if isinstance(owner, str) else ""))
        return found

    def spend_logs(self, since: datetime.datetime, until: datetime.datetime, page: int) -> LogPage:
        """A page of the calls that began between two times, oldest first.

        Args:
            page: from 1.
        """
        params = {
            "start_date": _moment(since),
            "end_date": _moment(until),
            "page": str(page),
            "page_size": str(PAGE_SIZE),
            "sort_by": "startTime",
            "sort_order": "asc",
        }
        answer = self._ask("GET", "/spend/logs/v2", params=params, timeout_seconds=LOGS_SECONDS)
        rows = answer.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise _lying("/spend/logs/v2", "has no list of logs")
        # `total` is capped at 10,000, so a full page is the only sign that there may be more.
        return LogPage(rows, len(rows) >= PAGE_SIZE)

    # -- plumbing -----------------------------------------------------------------------------------------------------

    def _issued(self, answer: Mapping[str, Any]) -> IssuedKey:
        value = answer.get("key")
        token = answer.get("token_id") or answer.get("token")
        if not isinstance(value, str) or not value.startswith("sk-") or not value.isascii() or len(value) > 500:
            raise _lying("/key/generate", "has no key")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise _lying("/key/generate", "has no token_id")
        return IssuedKey(value, token)

    def _update(self, body: Mapping[str, Any]) -> bool:
        try:
            self._ask("POST", "/key/update", body)
        except LitellmFailedError as exc:
            if exc.status == 404:
                return False
            raise
        return True

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> dict[str, Any]:
        """One request, its answer as an object; the whole of it within `timeout_seconds`, or a read longer at most."""
        deadline = time.monotonic() + timeout_seconds
        content = None if body is None else orjson.dumps(body)
        try:
            with self._client.stream(
                method,
                f"{settings.LITELLM_ENDPOINT}{path}",
                content=content,
                params=params,
                timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            ) as response:
                data = _read(response, path, deadline)
        except httpx.TimeoutException as exc:
            raise LitellmFailedError(f"LiteLLM did not answer {path} in time.") from exc
        except httpx.HTTPError as exc:
            raise LitellmFailedError(f"LiteLLM did not answer {path}: {type(exc).__name__}.") from exc
        if response.status_code >= 400 or response.status_code < 200:
            raise _refusal(path, response.status_code, data)
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError as exc:
            raise _lying(path, "is no JSON") from exc
        if response.status_code >= 300 or not isinstance(answer, dict):
            raise _lying(path, "is no object")
        return answer


@contextmanager
def litellm() -> Iterator[Litellm]:
    """A conversation with the LiteLLM of the settings.

    Raises:
        LitellmNotConfiguredError
    """
    if not is_configured():
        raise LitellmNotConfiguredError
    headers = {
        "Authorization": f"Bearer {settings.LITELLM_MASTER_KEY}",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    # No proxy and no redirect: the master key goes where the settings say and nowhere else.
    with httpx.Client(headers=headers, verify=_tls(), trust_env=False, follow_redirects=False) as client:
        yield Litellm(client)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than a request."""
    return httpx.create_ssl_context()


def _read(response: httpx.Response, path: str, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise _lying(path, "is too long")
        if time.monotonic() > deadline:
            raise LitellmFailedError(f"LiteLLM did not finish answering {path} in time.")
    return b"".join(chunks)


def _refusal(path: str, status: int, data: bytes) -> LitellmFailedError:
    said = ""
    try:
        answer = orjson.loads(data)
        # ProxyException: {"error": {"message", "type", "param", "code"}}; FastAPI's own: {"detail": …}
        error = answer.get("error", answer.get("detail", "")) if isinstance(answer, dict) else ""
        said = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except orjson.JSONDecodeError:
        pass
    said = _KEYS.sub("sk-***", mask_text(said)).replace(settings.LITELLM_MASTER_KEY, "***")[:_MESSAGE_MAX]
    sentence = f"LiteLLM answered {path} with {status}" + (f": {said}" if said else ".")
    if status in {401, 403} and "enterprise" not in said.lower():
        return LitellmFailedError(
            f"LiteLLM refuses the master key ({status} from {path}).",
            status=status,
            is_lasting=True,
            detail="LITELLM_MASTER_KEY has to be the proxy's own master key, or one of a proxy administrator.",
        )
    return LitellmFailedError(sentence, status=status, is_lasting=status < 500 and status not in {404, 408, 429})


def _lying(path: str, why: str) -> LitellmFailedError:
    return LitellmFailedError(f"What LiteLLM answered to {path} {why}; it is not the API of LiteLLM 1.106.")


def _number(path: str, name: str, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _lying(path, f"has a {name} that is no number")
    try:
        number = Decimal(repr(value))
    except InvalidOperation as exc:
        raise _lying(path, f"has a {name} that is no number") from exc
    if not number.is_finite() or number < 0 or number >= 10**12:
        raise _lying(path, f"has a {name} that makes no sense")
    return number


def _dollars(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _moment(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
