"""Values as people read and write them: times, differences, JSON and YAML."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import yaml
from django.utils import timezone

_STEPS = ((60, " s"), (60, " min"), (24, " h"), (30, " day"), (12, " month"), (10**6, " year"))
_WORDS = (" day", " month", " year")


def relative(moment: datetime.datetime, now: datetime.datetime | None = None) -> str:
    """`3 min ago`, `in 5 s`, `2 days ago`, `just now`."""
    seconds = ((now or timezone.now()) - moment).total_seconds()
    amount = abs(seconds)
    if amount < 2:
        return "just now"
    unit = ""
    for size, unit in _STEPS:  # noqa: B007  (the last one is used)
        if amount < size:
            break
        amount /= size
    count = int(amount)
    phrase = f"{count}{unit}" + ("s" if unit in _WORDS and count != 1 else "")
    return f"{phrase} ago" if seconds > 0 else f"in {phrase}"


def exact(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def pretty_json(value: Any) -> str:
    """Indented JSON, keys sorted."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z
    return orjson.dumps(value, option=options, default=str).decode()


def compact(value: Any) -> str:
    """One value of a field: text as it is, `—` for nothing, the rest as JSON."""
    if value is None:
        return "—"
    if isinstance(value, str):
        return value or "“”"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode()


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs; sides that are not set read `—`."""

    field: str
    before: str
    after: str
    is_cut: bool = False


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, *, cut: int = 0) -> list[Difference]:
    """What changed between two sets of fields, in order of name.

    Args:
        cut: characters to show of each side; 0 for all.
    """
    old, new = before or {}, after or {}
    rows = []
    for name in sorted({*old, *new}):
        left, right = compact(old.get(name)), compact(new.get(name))
        is_cut = bool(cut) and max(len(left), len(right)) > cut
        rows.append(Difference(name, _cut(left, cut), _cut(right, cut), is_cut))
    return rows


def _cut(text: str, length: int) -> str:
    return f"{text[:length]}…" if length and len(text) > length else text


class _PlainLoader(yaml.SafeLoader):
    """YAML that means the same in JSON: no dates, no aliases (a few lines of which can unfold into gigabytes)."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)


def parse_object(text: str, *, max_length: int) -> dict[str, Any] | None:
    """An object written as JSON or YAML; None for blank text.

    Raises:
        ValueError: it is neither, or no object; the sentence says where.
    """
    if not text.strip():
        return None
    if len(text) > max_length:
        raise ValueError(f"Has to be at most {max_length:,} characters.")
    try:
        value = yaml.load(text, Loader=_PlainLoader)  # noqa: S506  (derived from SafeLoader)
        orjson.dumps(value)
    except yaml.MarkedYAMLError as exc:
        where = f" (line {exc.problem_mark.line + 1})" if exc.problem_mark else ""
        raise ValueError(f"Neither JSON nor YAML: {exc.problem or exc}{where}.") from exc
    except (yaml.YAMLError, orjson.JSONEncodeError, RecursionError, ValueError) as exc:
        raise ValueError(f"Neither JSON nor YAML: {exc}.") from exc
    if not isinstance(value, dict):
        raise ValueError("Has to be an object: names with values.")
    return value


def to_yaml(value: Any) -> str:
    """Block-style YAML in the order given, as kubectl prints."""
    plain = orjson.loads(orjson.dumps(value, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=False)
