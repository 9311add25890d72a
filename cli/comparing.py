"""Whether a field is as a document wants it, in whatever spelling: order, case, numbers as text, what says nothing."""

from collections.abc import Mapping, Sequence
from typing import Any


def same(field: str, wanted: Any, live: Any) -> bool:
    """Whether `live`, from the API, says the same of a field as `wanted`, from a document."""
    if isinstance(wanted, str):
        wanted = wanted if field in ("content", "contentBase64") else wanted.strip()
    if wanted is None or live is None:
        return _emptied(_plain(wanted)) == _emptied(_plain(live))
    match field:
        case "grants" | "promotions" | "credentials" if isinstance(wanted, list):
            return _same_entries(wanted, live)
        case "egressRules" if isinstance(wanted, list):
            return [_rule(each) for each in wanted] == [_rule(each) for each in live]
        case "domains" if isinstance(wanted, list):
            return wanted == live["allow"]
        case "resources" | "compute" | "domains" | "mcpServers" | "mcpPolicy" | "tenantSelector":
            return _plain(wanted) == _plain(live)
        case "members" | "tags" | "events" | "team" | "project" | "personal" if isinstance(wanted, list):
            return _names(wanted) == _names(live)
    return bool(wanted == live)


def _emptied(value: Any) -> Any:
    return None if value in (None, [], {}, "") else value


def _plain(value: Any) -> Any:
    """An object without what says nothing; `cpu: 2` is `"2"`."""
    if not isinstance(value, dict):
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return {key: _plain(each) for key, each in value.items() if each not in (None, [], {}) and each is not False}


def _names(values: Sequence[Any]) -> list[str]:
    # The API keeps addresses in small letters.
    return sorted(str(each).lower() if "@" in str(each) else str(each) for each in values)


def _rule(rule: Any) -> Any:
    if not isinstance(rule, dict):
        return rule
    return (rule.get("cidr"), rule.get("ports") or [], rule.get("protocol") or "TCP")


_DEFAULTS = {"access": "allow", "priority": 0, "note": None, "notes": None, "brokeringMode": "static"}


def _same_entries(wanted: Sequence[Any], live: Sequence[Any]) -> bool:
    """Whether each entry that is wanted is there, and none besides, whatever the order."""
    left = list(live)
    for entry in wanted:
        if not isinstance(entry, dict):
            return False
        match = next((each for each in left if _is_entry(entry, each)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _is_entry(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    for key, value in live.items():
        if key in ("id", "createdAt"):
            continue
        if wanted.get(key) is not None:
            if wanted[key] != value:
                return False
        elif key in _DEFAULTS and value not in (None, _DEFAULTS[key]):
            return False
    return True
