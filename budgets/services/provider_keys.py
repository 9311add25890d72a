"""Keys of providers of models: kept sealed, and put into one Secret by workers.

The Secret follows the rows level by level: `ProviderSecret.generation` is raised by every change, and a worker brings
the Secret to what the rows say now. A check compares the two.
"""

import random
from datetime import timedelta
from typing import Any

import httpx
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from budgets import rules
from budgets.errors import ProviderKeyNotFoundError
from budgets.models import ProviderKey, ProviderSecret
from budgets.providers import provider_named
from cluster.errors import KubeError
from cluster.locks import object_lock
from cluster.secrets import apply_secret, secret_data
from opencrane.actor import SYSTEM, Actor
from opencrane.errors import DependencyNotConfiguredError, InvalidError
from opencrane.outbound import guarded_client
from opencrane.tasks import enqueue_on_commit
from operations.services import audit

log = structlog.get_logger(__name__)

TASK = "budgets.sync_provider_keys"
SECRET_NAME = "opencrane-provider-keys"  # noqa: S105
TEST_SECONDS = 5.0
CHECK_EVERY = timedelta(minutes=5)
MAX_DELAY_SECONDS = 300.0


def set_key(*, provider: str, api_key: str, actor: Actor) -> ProviderKey:
    """Keep a provider's key in the place of the one before; the same key again changes and audits nothing.

    Raises:
        InvalidError: the name or the key cannot be one.
        DependencyNotConfiguredError: there is no encryption key to seal it with, or for the one before.
    """
    if not rules.is_provider(provider):
        raise InvalidError(fields={"provider": ["Has to be lower-case letters, digits and dashes, at most 63."]})
    with transaction.atomic(durable=True):
        _locked_secret()
        row = ProviderKey.objects.select_for_update().filter(provider=provider).first()
        if row is not None and row.api_key == api_key:
            return row
        is_new = row is None
        row = row or ProviderKey(provider=provider)
        row.api_key, row.updated_at, row.updated_by = api_key, timezone.now(), actor.name
        row.tested_at, row.test_passed, row.test_result = None, None, ""
        row.save(force_insert=is_new)
        _changed(provider, "created" if is_new else "replaced", actor)
    return row


@transaction.atomic(durable=True)
def delete_key(*, provider: str, actor: Actor) -> None:
    """Forget a provider's key; workers take it out of the Secret.

    Raises:
        ProviderKeyNotFoundError
    """
    _locked_secret()
    gone, _ = ProviderKey.objects.filter(provider=provider).delete()
    if not gone:
        raise ProviderKeyNotFoundError(f"No key of {provider[:80]} is kept.")
    _changed(provider, "deleted", actor)


@transaction.atomic(durable=True)
def resync(*, actor: Actor) -> None:
    """Have the Secret written again, now; also what failed and waits, or was changed by others."""
    _locked_secret()
    _raise_generation()
    audit.record(
        action="provider_key.resync_requested",
        resource=f"Secret/{SECRET_NAME}",
        message="Asked for the Secret of provider keys to be written again.",
        actor=actor,
    )


def _locked_secret() -> ProviderSecret:
    ProviderSecret.objects.get_or_create(pk=1)
    return ProviderSecret.objects.select_for_update().get(pk=1)


def _changed(provider: str, verb: str, actor: Actor) -> None:
    _raise_generation()
    message = {"created": "Stored the key of", "replaced": "Replaced the key of", "deleted": "Deleted the key of"}
    audit.record(
        action=f"provider_key.{verb}",
        resource=f"ProviderKey/{provider}",
        message=f"{message[verb]} provider {provider}.",
        actor=actor,
    )


def _raise_generation() -> None:
    ProviderSecret.objects.filter(pk=1).update(generation=F("generation") + 1, attempts=0, not_before=timezone.now())
    enqueue_on_commit(TASK)


# -- the Secret -------------------------------------------------------------------------------------------------------


def sweep() -> None:
    """Write the Secret if it lags, and now and then compare it."""
    state = ProviderSecret.objects.filter(pk=1).first()
    now = timezone.now()
    if state is None or state.not_before > now:
        return
    if state.observed_generation < state.generation:
        sync()
    elif state.checked_at is None or state.checked_at < now - CHECK_EVERY:
        check()


def sync() -> None:
    """Bring the Secret to what the rows say now."""
    with object_lock("budgets", "provider-keys", wait_seconds=5) as held:
        state = ProviderSecret.objects.filter(pk=1).first()
        if not held or state is None or state.observed_generation >= state.generation:
            return
        try:
            apply_secret(name=SECRET_NAME, data=_wanted())
        except (KubeError, DependencyNotConfiguredError) as exc:
            _put_off(state, exc.message)
            return
        now = timezone.now()
        with transaction.atomic(durable=True):
            ProviderSecret.objects.filter(pk=1).update(
                observed_generation=state.generation,
                synced_at=now,
                checked_at=now,
                drift="",
                attempts=0,
                failing_since=None,
                error="",
                not_before=now,
            )


def check() -> None:
    """Compare the Secret with the rows, and note by name what differs; operators decide what to do about it."""
    with object_lock("budgets", "provider-keys") as held:
        state = ProviderSecret.objects.filter(pk=1).first()
        if not held or state is None or state.observed_generation < state.generation:
            return
        try:
            live, wanted = secret_data(name=SECRET_NAME), _wanted()
        except (KubeError, DependencyNotConfiguredError) as exc:
            _put_off(state, exc.message)
            return
        drift = _difference(live, wanted)
        with transaction.atomic(durable=True):
            changed = ProviderSecret.objects.filter(pk=1, generation=state.generation)
            changed.update(checked_at=timezone.now(), drift=drift, attempts=0, failing_since=None, error="")
            if drift and drift != state.drift:
                audit.record(
                    action="provider_key.drifted", resource=f"Secret/{SECRET_NAME}", message=drift, actor=SYSTEM
                )


def _wanted() -> dict[str, str]:
    return {provider_named(row.provider).variable: row.api_key for row in ProviderKey.objects.all()}


def _difference(live: dict[str, str] | None, wanted: dict[str, str]) -> str:
    if live is None:
        return f"Secret {SECRET_NAME} is gone." if wanted else ""
    parts = []
    if missing := sorted(set(wanted) - set(live)):
        parts.append(f"The Secret lacks {', '.join(missing)}.")
    if strange := sorted(set(live) - set(wanted)):
        parts.append(f"The Secret has {', '.join(strange)}, which nobody stored here.")
    if other := sorted(name for name in wanted if name in live and live[name] != wanted[name]):
        parts.append(f"The Secret has another value for {', '.join(other)}.")
    return " ".join(parts)


def _put_off(state: ProviderSecret, error: str) -> None:
    now = timezone.now()
    delay = min(2.0 ** min(state.attempts + 1, 12), MAX_DELAY_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311
    ProviderSecret.objects.filter(pk=1).update(
        attempts=F("attempts") + 1,
        error=error[:1000],
        failing_since=state.failing_since or now,
        not_before=now + timedelta(seconds=delay),
    )
    log.warning("the Secret of provider keys lags", error=error)


# -- asking the provider ----------------------------------------------------------------------------------------------


def test_key(*, provider: str, actor: Actor) -> ProviderKey:
    """Ask the provider whether it takes the key, and note what it said. Only ever because somebody asks.

    Raises:
        ProviderKeyNotFoundError
        InvalidError: nobody knows where the provider could be asked.
    """
    row = ProviderKey.objects.filter(provider=provider).first()
    if row is None:
        raise ProviderKeyNotFoundError(f"No key of {provider[:80]} is kept.")
    known = provider_named(provider)
    if not known.models_url:
        raise InvalidError(
            f"OpenCrane does not know where {known.title} could be asked.",
            detail="Name its models endpoint in OPENCRANE_PROVIDER_MODELS_URLS.",
        )
    passed, said = _asked(known.models_url, known.header, known.headers, row.api_key)
    with transaction.atomic(durable=True):
        found = ProviderKey.objects.select_for_update().filter(provider=provider, updated_at=row.updated_at)
        row.tested_at, row.test_passed, row.test_result = timezone.now(), passed, said
        found.update(tested_at=row.tested_at, test_passed=passed, test_result=said)
        audit.record(
            action="provider_key.tested",
            resource=f"ProviderKey/{provider}",
            message=f"Asked {known.title} about its key: {said}",
            actor=actor,
        )
    return row


def _asked(url: str, header: str, headers: dict[str, str], key: str) -> tuple[bool | None, str]:
    """Whether the provider takes the key (None: it did not say), and a sentence."""
    sent: dict[str, Any] = {**headers, header: f"Bearer {key}" if header == "Authorization" else key}
    try:
        with (
            guarded_client(settings.OUTBOUND_ALLOW, timeout_seconds=TEST_SECONDS) as client,
            client.stream("GET", url, headers=sent) as response,
        ):
            status = response.status_code
    except httpx.TimeoutException:
        return None, f"It did not answer within {TEST_SECONDS:.0f} s."
    except httpx.HTTPError as exc:
        # The sentence of a refused address is ours; the others may repeat what was sent.
        return None, f"It could not be reached ({type(exc).__name__})."
    if status == 200:
        return True, "It takes the key."
    if status in {401, 403}:
        return False, f"It refuses the key ({status})."
    return None, f"It answered {status}, which says nothing about the key."
