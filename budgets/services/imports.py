"""Import LiteLLM's spend logs into the ledger, each request once.

LiteLLM writes its logs in batches, some time after a call ended, under the time at which it began. So every run reads
again what began within an overlap before the point that was reached, and every few hours the last two days; request
ids make that harmless. What a run has recorded stays when a later page fails, and the next one goes on from there.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import InvalidOperation
from typing import Any

import orjson
import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from budgets import litellm as proxy
from budgets import rules
from budgets.errors import LitellmFailedError
from budgets.litellm import Litellm
from budgets.models import TokenUsage, UsageImport
from budgets.services.key_rows import alias_of
from budgets.services.usage import Recorded, Usage, record_usage
from cluster.locks import object_lock

log = structlog.get_logger(__name__)

DEEP_EVERY = datetime.timedelta(hours=6)
DEEP_OVERLAP = datetime.timedelta(hours=48)
MAX_PAGES = 2_000
_ALIAS = alias_of("")


@dataclass(frozen=True, slots=True)
class Imported:
    """What one run did: logs seen, those that are no usage or make no sense, and what became of the rest."""

    seen: int = 0
    skipped: int = 0
    recorded: Recorded = field(default_factory=Recorded)


def import_usage() -> Imported | None:
    """Read what LiteLLM has logged since the last run; None without LiteLLM, or while another import is at it."""
    if not proxy.is_configured():
        return None
    with object_lock("budgets", "import") as held:
        return _run() if held else None


def _run() -> Imported:
    state, _ = UsageImport.objects.get_or_create(pk=1)
    now = timezone.now()
    # A second of the future, since LiteLLM's clock is another one.
    until = now + datetime.timedelta(seconds=1)
    is_deep = state.deep_at is None or now - state.deep_at >= DEEP_EVERY
    since = _since(state, now, is_deep)
    UsageImport.objects.filter(pk=1).update(last_run_at=now)
    done = Imported()
    try:
        with proxy.litellm() as llm:
            for page in range(1, MAX_PAGES + 1):
                found, reached = _page(llm, since, until, page)
                done = Imported(done.seen + found.seen, done.skipped + found.skipped, done.recorded + found.recorded)
                if reached is None:
                    break
                # A long import goes on from here should it be cut short; a deep one is behind the point anyway.
                UsageImport.objects.filter(Q(imported_until=None) | Q(imported_until__lt=reached), pk=1).update(
                    imported_until=min(reached, now)
                )
    except LitellmFailedError as exc:
        _failed(exc.message)
        return done
    except SoftTimeLimitExceeded:
        _failed("The import took too long; it goes on from where it was with the next run.")
        raise
    _succeeded(done, now, is_deep)
    return done


def _since(state: UsageImport, now: datetime.datetime, is_deep: bool) -> datetime.datetime:
    """Where to begin. The first import reads the month before, too."""
    if state.imported_until is None:
        month = rules.month_of(now)
        before = (month - datetime.timedelta(days=1)).replace(day=1)
        return datetime.datetime.combine(before, datetime.time(), datetime.UTC)
    overlap = datetime.timedelta(seconds=settings.USAGE_OVERLAP_SECONDS)
    return state.imported_until - (max(overlap, DEEP_OVERLAP) if is_deep else overlap)


def _page(
    llm: Litellm, since: datetime.datetime, until: datetime.datetime, page: int
) -> tuple[Imported, datetime.datetime | None]:
    """Record one page; and the time it reaches to if there may be more, else None."""
    logs = llm.spend_logs(since, until, page)
    usage: list[Usage] = []
    skipped = 0
    for row in logs.rows:
        try:
            record = usage_of(row)
        except (ValueError, InvalidOperation) as exc:
            log.warning("a spend log of LiteLLM makes no sense", request=str(row.get("request_id"))[:200], why=str(exc))
            record = None
        if record is None:
            skipped += 1
        else:
            usage.append(record)
    recorded = record_usage(usage, source=TokenUsage.Source.LITELLM)
    reached = max((record.at for record in usage if record.at), default=since) if logs.has_more else None
    return Imported(len(logs.rows), skipped, recorded), reached


def usage_of(row: Mapping[str, Any]) -> Usage | None:
    """One spend log (LiteLLM's SpendLogsPayload) as usage; None for a call that used nothing, such as one that failed.

    Raises:
        ValueError, InvalidOperation: it lacks what every log has, or says what cannot be.
    """
    tokens_in, tokens_out = _tokens(row.get("prompt_tokens")), _tokens(row.get("completion_tokens"))
    spend = row.get("spend")
    if isinstance(spend, bool) or not isinstance(spend, int | float):
        raise ValueError("spend is no number")
    if not (spend or tokens_in or tokens_out):
        return None
    return Usage(
        request_id=_text(row, "request_id", rules.REQUEST_ID_MAX, is_required=True),
        tenant=_tenant(row),
        # The name that callers use; `model` is the deployment behind it.
        model=_text(row, "model_group", rules.MODEL_MAX) or _text(row, "model", rules.MODEL_MAX) or "unknown",
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost_usd=rules.cost(spend),
        at=_moment(row.get("startTime")),
        token=_text(row, "api_key", 64),
    )


def _tenant(row: Mapping[str, Any]) -> str:
    """The tenant by the alias of the key that was used; of another's key, the alias as it is."""
    metadata = row.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = orjson.loads(metadata)
        except orjson.JSONDecodeError:
            metadata = None
    alias = metadata.get("user_api_key_alias") if isinstance(metadata, dict) else None
    if not isinstance(alias, str):
        return ""
    return _tidy(alias.removeprefix(_ALIAS).partition("-retired-")[0], rules.TENANT_MAX)


def _text(row: Mapping[str, Any], name: str, maximum: int, *, is_required: bool = False) -> str:
    value = row.get(name)
    text = _tidy(value, maximum + 1) if isinstance(value, str) else ""
    if is_required and (not text or len(text) > maximum):
        raise ValueError(f"{name} is missing or too long")
    return text[:maximum]


def _tidy(text: str, maximum: int) -> str:
    return text.replace("\x00", "").strip()[:maximum]


def _tokens(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= rules.TOKENS_MAX:
        raise ValueError("a count of tokens is none")
    return int(value)


def _moment(value: Any) -> datetime.datetime:
    """A time of LiteLLM's; without an offset it is UTC."""
    parsed = parse_datetime(value) if isinstance(value, str) else None
    if parsed is None:
        raise ValueError("startTime is no time")
    moment = parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)
    if moment < rules.EARLIEST:
        raise ValueError("startTime is before there were models")
    return moment.astimezone(datetime.UTC)


@transaction.atomic(durable=True)
def _failed(error: str) -> None:
    state = UsageImport.objects.select_for_update().get(pk=1)
    state.failing_since, state.error = state.failing_since or timezone.now(), error[:1000]
    state.save(update_fields=["failing_since", "error"])


@transaction.atomic(durable=True)
def _succeeded(done: Imported, began: datetime.datetime, is_deep: bool) -> None:
    state = UsageImport.objects.select_for_update().get(pk=1)
    state.imported_until = began
    state.deep_at = began if is_deep else state.deep_at
    state.last_success_at, state.failing_since, state.error = timezone.now(), None, ""
    state.last_seen, state.last_new, state.last_skipped = done.seen, done.recorded.new, done.skipped
    state.save()
