"""Charts: the document that a page hands to static/console/charts.js, and the one place where both meet.

    {"unit": "usd", "labels": ["01", "02"], "series": [
        {"label": "Per day", "kind": "bar", "tone": "second", "values": [0.5, 1.25]},
        {"label": "Budget", "kind": "line", "tone": "limit", "values": [10, 10]}]}

`unit` says how values read, on the axis and in words: `usd`, `percent` (0 to 100), `bytes` (shown in GiB), `seconds` or
`count`. There are as many values as labels; null where nothing is known. Lines go over gaps of one point or more, and
tones are the theme's: `main`, `second`, `third`, and `limit` for what should not be reached.

    chart("CPU", "percent", labels, [Series("CPU", values)])       # in the view
    {% include "console/_chart.html" with chart=cpu %}             # in the template, and in its extrahead:
    {% include "console/_chart_script.html" %}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from opencrane.api.responses import to_json

Unit = Literal["usd", "percent", "bytes", "seconds", "count"]
Tone = Literal["main", "second", "third", "limit"]


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one bar for each label."""

    label: str
    values: Sequence[float | int | None]
    kind: Literal["line", "bar"] = "line"
    tone: Tone = "main"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as the template has it; `data` is empty when there is nothing to draw."""

    title: str
    data: str


def chart(title: str, unit: Unit, labels: Sequence[str], series: Sequence[Series]) -> Chart:
    """A chart of one or more series; empty without labels, or when no series has a value but the limits."""
    is_empty = not any(value is not None for each in series if each.tone != "limit" for value in each.values)
    if is_empty or not labels:
        return Chart(title, "")
    drawn = [{"label": s.label, "kind": s.kind, "tone": s.tone, "values": list(s.values)} for s in series]
    return Chart(title, to_json({"unit": unit, "labels": list(labels), "series": drawn}).decode())
