"""Change the rollout: define, promote, roll back. The row is locked, so that no two changes see the same frontier."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from awareness import selectors
from awareness.errors import RolloutNotDefinedError
from awareness.models import RolloutState
from awareness.rollout import DEFAULT_WAVES, Rollout, pinned
from opencrane.actor import Actor
from opencrane.errors import InvalidError
from operations.services import audit
from operations.services.webhooks import emit

_RESOURCE = "AwarenessRollout/fleet"


@transaction.atomic(durable=True)
def define_rollout(*, values: Mapping[str, Any], actor: Actor) -> Rollout:
    """Define what is rolled out; the frontier always starts over. Returns the new state.

    Args:
        values: `target_version`, and those of `stable_version`, `waves` and `shadow_mode` that should change, checked
            by the caller. None goes back to the default: the pinned version, the default waves, no shadow mode.
        actor: who asked.
    """
    before = _locked(make=True)
    wanted = replace(before, target_version=values["target_version"], frontier=0, is_defined=True)
    if "stable_version" in values:
        wanted = replace(wanted, stable_version=values["stable_version"] or settings.AWARENESS_PINNED_VERSION)
    if "waves" in values:
        wanted = replace(wanted, waves=tuple(values["waves"] or DEFAULT_WAVES))
    if "shadow_mode" in values:
        wanted = replace(wanted, shadow_mode=bool(values["shadow_mode"]))
    message = f"Defined the rollout of {wanted.target_version}, stable {wanted.stable_version}."
    return _store(before, wanted, "defined", message, actor)


@transaction.atomic(durable=True)
def promote(*, wave: str | None = None, actor: Actor) -> Rollout:
    """Promote the next wave, or all up to and with `wave`; returns the new state.

    A wave that is promoted already, or a rollout that has reached all, stays as it is and is not audited.

    Raises:
        InvalidError: there is no wave of that name.
        RolloutNotDefinedError
    """
    before = _locked()
    if not before.is_defined:
        raise RolloutNotDefinedError(detail="Define one first: PUT /api/v1/awareness/rollout.")
    try:
        wanted = before.promoted(wave)
    except ValueError as exc:
        why = f"There is no such wave; the waves are {', '.join(before.waves)}."
        raise InvalidError(fields={"wave": [why]}) from exc
    moved = wanted.waves[before.frontier : wanted.frontier]
    return _store(before, wanted, "promoted", f"Promoted {', '.join(moved)} to {wanted.target_version}.", actor)


@transaction.atomic(durable=True)
def roll_back(*, actor: Actor) -> Rollout:
    """Take every wave back to the stable version; returns the new state. Without a promoted wave nothing changes."""
    before = _locked()
    message = f"Rolled {', '.join(before.promoted_waves)} back to {before.stable_version}."
    return _store(before, before.rolled_back(), "rolled_back", message, actor)


def _locked(*, make: bool = False) -> Rollout:
    """The state, its row locked until the transaction ends.

    Args:
        make: whether to make the row if there is none, so that two first definitions cannot pass each other.
    """
    row = RolloutState.objects.select_for_update().filter(pk=1).first()
    if row is None and make:
        blank = pinned(settings.AWARENESS_PINNED_VERSION)
        # Waits for the other one of two first definitions, whose row is then found below.
        RolloutState.objects.bulk_create([RolloutState(**_columns(blank), is_blank=True)], ignore_conflicts=True)
        row = RolloutState.objects.select_for_update().get(pk=1)
    return selectors.rollout_of(row)


def _columns(state: Rollout) -> dict[str, Any]:
    return {
        "target_version": state.target_version,
        "stable_version": state.stable_version,
        "waves": list(state.waves),
        "frontier": state.frontier,
        "shadow_mode": state.shadow_mode,
    }


def _store(before: Rollout, wanted: Rollout, verb: str, message: str, actor: Actor) -> Rollout:
    if before == wanted:
        return before
    RolloutState.objects.filter(pk=1).update(**_columns(wanted), is_blank=False, updated_at=timezone.now())
    audit.record(
        action=f"awareness_rollout.{verb}",
        resource=_RESOURCE,
        message=message,
        before=before.as_json() if before.is_defined else None,
        after=wanted.as_json(),
        actor=actor,
    )
    emit(
        event="rollout.changed",
        payload={"change": verb, "message": message, "rollout": wanted.as_json(), "by": actor.name},
    )
    return wanted
