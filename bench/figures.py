"""What was measured, what it is compared with, and how that is written down."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.client import Samples


@dataclass
class Wanted:
    """Upper bounds of milliseconds or of a ratio, a lower bound of requests per second; from the design."""

    milliseconds: float | None = None
    rate: float | None = None
    times_floor: float | None = None


@dataclass
class Figure:
    """One line of the results. Times are milliseconds as the client saw them.

    Attributes:
        web_cpu, all_cpu: CPU milliseconds per request, of the web process and of every process of the stack.
        queries: SQL queries per request; None where they were not counted.
        floor, floor_ms: the least that could be expected, and its median in the same run.
        met: whether what is wanted was reached; None where nothing is.
        cpu: CPU milliseconds per request of each process.
    """

    name: str
    clients: int
    count: int
    median_ms: float
    p95_ms: float
    rate: float
    web_cpu: float | None = None
    all_cpu: float | None = None
    queries: int | None = None
    floor: str = ""
    floor_ms: float | None = None
    wanted: str = ""
    met: bool | None = None
    failures: int = 0
    cpu: dict[str, float] = field(default_factory=dict)

    def compare(self, wanted: Wanted) -> None:
        """Judge the figure."""
        parts, met = [], []
        if wanted.milliseconds is not None:
            parts.append(f"≤ {wanted.milliseconds:g} ms")
            met.append(self.median_ms <= wanted.milliseconds)
        if wanted.rate is not None:
            parts.append(f"≥ {wanted.rate:,.0f}/s")
            met.append(self.rate >= wanted.rate)
        if wanted.times_floor is not None and self.floor_ms:
            parts.append(f"≤ {wanted.times_floor:g} times the floor")
            met.append(self.median_ms <= wanted.times_floor * self.floor_ms)
        if parts:
            self.wanted, self.met = ", ".join(parts), all(met) and not self.failures


def figure(name: str, clients: int, samples: Samples, cpu: dict[str, float]) -> Figure:
    """A figure of samples and of the CPU seconds that each process used meanwhile."""
    failures = sum(number for status, number in samples.statuses.items() if status >= 300)
    each = 1000 / samples.count if samples.count else 0.0
    return Figure(
        name=name,
        clients=clients,
        count=samples.count,
        median_ms=samples.median * 1000,
        p95_ms=samples.p95 * 1000,
        rate=samples.rate,
        web_cpu=cpu["web"] * each if "web" in cpu else None,
        all_cpu=sum(cpu.values()) * each if cpu else None,
        failures=failures,
        cpu={process: round(seconds * each, 3) for process, seconds in cpu.items()},
    )


@dataclass
class Results:
    """A whole run."""

    machine: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    memory: dict[str, float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def as_markdown(self) -> str:
        """The results as a document."""
        lines = ["# Measurements", "", *(f"- {name}: {value}" for name, value in self.machine.items()), ""]
        rows = [_HEADINGS, *(_cells(each) for each in self.figures)]
        lines.append("| " + " | ".join(rows[0]) + " |")
        lines.append("|" + "---|" * len(_HEADINGS))
        lines += ["| " + " | ".join(row) + " |" for row in rows[1:]]
        lines += ["", "Memory, of the web process where no other is named:", ""]
        lines += [f"- {name}: {_number(value, 0)} MiB" for name, value in self.memory.items()]
        lines += ["", *(f"{note}\n" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Write both forms; an earlier run of the same name is replaced."""
        folder.mkdir(exist_ok=True)
        written = []
        for suffix, text in ((".json", self.as_json()), (".md", self.as_markdown())):
            file = folder / f"{stem}{suffix}"
            file.write_text(text, encoding="utf-8")
            written.append(file)
        return written


_HEADINGS = [
    "what", "clients", "n", "median ms", "p95 ms", "per s", "web CPU ms", "all CPU ms", "SQL", "floor", "floor ms",
    "wanted", "met",
]  # fmt: skip
_MET = {True: "yes", False: "**no**", None: ""}


def _number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return ""
    return f"{value:,.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"


def _cells(each: Figure) -> list[str]:
    name = each.name + (f" ({each.failures} failed)" if each.failures else "")
    queries = "" if each.queries is None else str(each.queries)
    return [
        name, str(each.clients), f"{each.count:,}", _number(each.median_ms), _number(each.p95_ms),
        _number(each.rate, 1), _number(each.web_cpu), _number(each.all_cpu), queries, each.floor,
        _number(each.floor_ms), each.wanted, _MET[each.met],
    ]  # fmt: skip


def row(each: Figure) -> str:
    """One line for the terminal."""
    cells = _cells(each)
    widths = (44, 3, 7, 10, 10, 9, 9, 9, 4)
    text = " ".join(
        cell.ljust(width) if index == 0 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=False))
    )
    floor = f"   floor {cells[10]} ({cells[9]})" if each.floor else ""
    wanted = f"   wanted {each.wanted}: {'met' if each.met else 'MISSED'}" if each.wanted else ""
    return text + floor + wanted


def heading() -> str:
    """What stands above the lines of `row`."""
    names = ("", "at", "n", "median ms", "p95 ms", "per s", "web CPU", "all CPU", "SQL")
    widths = (44, 3, 7, 10, 10, 9, 9, 9, 4)
    return " ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
