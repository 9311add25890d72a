"""Values as people read them, and text as a terminal may have it."""

import datetime
import unicodedata
from typing import Any

# What would turn the reading direction round and make a line look like another one (Unicode TR 36, 2.8).
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str, *, lines: bool = False) -> str:
    """Text without what a terminal would obey: control characters, escape sequences, turns of direction.

    Args:
        lines: whether line ends stay; else they become spaces, so that a value is one line.
    """
    if text.isprintable() and not _DIRECTIONS.intersection(text):
        return text
    made = []
    for each in text.replace("\r\n", "\n"):
        if each == "\n":
            made.append("\n" if lines else " ")
        elif each == "\t":
            made.append(" ")
        elif each in _DIRECTIONS or unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp"):
            made.append("\N{REPLACEMENT CHARACTER}")
        else:
            made.append(each)
    return "".join(made)


def width(text: str) -> int:
    """Columns that text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) or unicodedata.category(each) in ("Cf", "Me", "Mn")
        else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )  # fmt: skip


def moment(text: Any) -> datetime.datetime | None:
    """A time of the API's, aware; None if it is none."""
    try:
        found = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None


def age(text: Any, now: datetime.datetime | None = None) -> str:
    """How long ago a time was, or how long it is until then: `5m`, `3d`, `in 2h`."""
    found = moment(text)
    if found is None:
        return str(text)
    seconds = ((now or datetime.datetime.now(datetime.UTC)) - found).total_seconds()
    return span(seconds) if seconds > -1 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A length of time in its largest unit, as kubectl has it."""
    for unit, length in (("y", 31_536_000), ("d", 86_400), ("h", 3600), ("m", 60)):
        # Two of a unit at least, except days: 90m says more than 1h.
        if seconds >= length * (2 if unit in "mhy" else 1):
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def size(count: Any) -> str:
    """Bytes as `512 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def money(amount: Any) -> str:
    """US dollars: `12.50`, and more digits below a cent."""
    value = float(amount)
    return f"{value:,.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}".rstrip("0")


def words(name: str) -> str:
    """`monthlyBudgetUsd` as `Monthly budget USD`."""
    made = "".join(f" {each.lower()}" if each.isupper() else each for each in name).strip()
    for plain, shown in _ACRONYMS.items():
        made = f" {made} ".replace(f" {plain} ", f" {shown} ").strip()
    return made[:1].upper() + made[1:]


_ACRONYMS = {
    "usd": "USD", "mcp": "MCP", "url": "URL", "id": "ID", "cpu": "CPU", "dns": "DNS", "oci": "OCI", "gpu": "GPU",
    "sub": "subject", "ms": "(ms)",
}  # fmt: skip


def plain(value: Any) -> str:
    """Any value on one line."""
    if value is None or value == "" or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e15 else repr(value)
    return clean(str(value))


def counted(count: int, one: str, many: str = "") -> str:
    """`1 tenant`, `2 tenants`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
