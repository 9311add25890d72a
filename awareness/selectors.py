"""Reading the rollout and what tenants report about it."""

from typing import TYPE_CHECKING

from django.conf import settings

from awareness.models import RolloutState
from awareness.rollout import Resolution, Rollout, pinned
from cluster.rows import fetch_one

if TYPE_CHECKING:
    from tenants.models import Tenant

__all__ = ["Resolution", "current_rollout", "resolve_for"]


def rollout_of(row: RolloutState | None) -> Rollout:
    """The state that a row holds; without one, the pinned version for everybody."""
    if row is None:
        return pinned(settings.AWARENESS_PINNED_VERSION)
    return Rollout(row.target_version, row.stable_version, tuple(row.waves), row.frontier, row.shadow_mode)


def current_rollout() -> Rollout:
    """The rollout as it stands; one query."""
    return rollout_of(fetch_one(RolloutState, "id = 1"))


def resolve_for(tenant: "Tenant") -> Resolution:
    """Which version of the awareness contract `tenant` runs now, and why; one query."""
    return current_rollout().resolve(tenant.awareness_wave)
