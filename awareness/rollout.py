"""How a version reaches the fleet in waves: pure rules, without rows or requests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

DEFAULT_WAVES = ("personal", "project", "department", "org")
WAVE_MAX = 63
WAVES_MAX = 100
VERSION_MAX = 64
# https://semver.org/spec/v2.0.0.html, with numbers of ASCII digits.
SEMVER = (
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$"
)


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which version of the awareness contract a tenant runs, and why.

    Attributes:
        version: the one it is expected to run.
        promoted: whether its wave has been promoted.
        shadow: whether the target version only runs beside the stable one.
        wave: the wave the tenant is in.
    """

    version: str
    promoted: bool
    shadow: bool
    wave: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """The state of the rollout. The first `frontier` waves are promoted.

    Attributes:
        is_defined: False for the state before anyone has defined a rollout: every wave runs the pinned version.
    """

    target_version: str
    stable_version: str
    waves: tuple[str, ...] = DEFAULT_WAVES
    frontier: int = 0
    shadow_mode: bool = False
    is_defined: bool = True

    @property
    def promoted_waves(self) -> tuple[str, ...]:
        return self.waves[: self.frontier]

    @property
    def next_wave(self) -> str | None:
        """The wave that the next promotion moves; None when all are promoted."""
        return self.waves[self.frontier] if self.frontier < len(self.waves) else None

    def promoted(self, wave: str | None = None) -> "Rollout":
        """The state after promoting one wave, or all up to and with the named one. Never moves backwards.

        Raises:
            ValueError: there is no wave of that name.
        """
        frontier = self.frontier + 1 if wave is None else self.waves.index(wave) + 1
        return replace(self, frontier=max(self.frontier, min(frontier, len(self.waves))))

    def rolled_back(self) -> "Rollout":
        """The state without a promoted wave."""
        return replace(self, frontier=0)

    def wave_of(self, wave: str) -> str:
        """The wave of a tenant that asks for `wave`: that one if there is such a wave, else the last."""
        return wave if wave in self.waves else self.waves[-1]

    def resolve(self, wave: str) -> Resolution:
        """What a tenant that asks for `wave` runs."""
        found = self.wave_of(wave)
        promoted = self.waves.index(found) < self.frontier
        shadow = promoted and self.shadow_mode
        version = self.target_version if promoted and not shadow else self.stable_version
        return Resolution(version=version, promoted=promoted, shadow=shadow, wave=found)

    def as_json(self) -> dict[str, Any]:
        """The rollout as the API shows it."""
        return {
            "targetVersion": self.target_version,
            "stableVersion": self.stable_version,
            "waves": list(self.waves),
            "promotedWaves": list(self.promoted_waves),
            "shadowMode": self.shadow_mode,
            "nextWave": self.next_wave,
        }


def pinned(version: str, waves: Sequence[str] = DEFAULT_WAVES) -> Rollout:
    """The state while no rollout is defined."""
    return Rollout(version, version, tuple(waves), is_defined=False)
