"""A cluster tenant's quota against what its tenants ask for. Pure, but for `capacities`."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cluster.quantities import parse_quantity
from tenants import selectors
from tenants.models import ClusterTenant

MEASURES = ("cpu", "memory", "pods")


@dataclass(frozen=True, slots=True)
class Measure:
    """One resource: in cores, bytes or pods. A quota of None limits nothing."""

    name: str
    requested: Decimal
    quota: Decimal | None

    @property
    def percent(self) -> float | None:
        """How much of the quota is asked for; None without a quota."""
        if self.quota is None:
            return None
        if not self.quota:
            return 0.0 if not self.requested else 100.0
        return round(float(100 * self.requested / self.quota), 1)

    @property
    def is_over(self) -> bool:
        return self.quota is not None and self.requested > self.quota


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the tenants that are not suspended ask for; `unspecified` of them name no CPU or no memory."""

    measures: tuple[Measure, ...]
    tenants: int
    unspecified: int

    def as_json(self) -> dict[str, Any]:
        """As the API shows it: numbers in cores, bytes and pods."""
        return {
            "tenants": self.tenants,
            "unspecified": self.unspecified,
            "measures": [
                {
                    "name": each.name,
                    "requested": float(each.requested),
                    "quota": None if each.quota is None else float(each.quota),
                    "percent": each.percent,
                    "over": each.is_over,
                }
                for each in self.measures
            ],
        }


def capacity(quota: dict[str, Any], asked: Iterable[tuple[str, str, int]]) -> Capacity:
    """Add up what is asked for.

    Args:
        quota: as in the spec.
        asked: CPU, memory (empty: nothing said) and how many tenants ask so.
    """
    sums = dict.fromkeys(MEASURES, Decimal(0))
    tenants = unspecified = 0
    for cpu, memory, count in asked:
        tenants += count
        unspecified += 0 if cpu and memory else count
        for name, amount in (("cpu", cpu), ("memory", memory)):
            sums[name] += parse_quantity(amount) * count if amount else 0
    sums["pods"] = Decimal(tenants)
    limits = {name: parse_quantity(value) for name, value in quota.items() if value is not None}
    return Capacity(tuple(Measure(name, sums[name], limits.get(name)) for name in MEASURES), tenants, unspecified)


def capacities(rows: Iterable[ClusterTenant]) -> dict[str, Capacity]:
    """The capacity of each cluster tenant, in one query."""
    known = list(rows)
    asked = selectors.asked_for([row.name for row in known])
    return {row.name: capacity(row.resources.get("quota") or {}, asked.get(row.name, [])) for row in known}
