"""Label and field selectors: parsed once into a predicate."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from devstack.cluster.errors import bad_request

Labels = Mapping[str, str]
LabelTest = Callable[[Labels], bool]

_SET = re.compile(r"^\s*(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s=!<>()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!<>()]*)\s*$")
_ORDER = re.compile(r"^\s*(?P<key>[^\s=!<>()]+)\s*(?P<op>[<>])\s*(?P<value>-?\d+)\s*$")
_EXISTS = re.compile(r"^\s*(?P<no>!?)\s*(?P<key>[^\s=!<>()]+)\s*$")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")


def _split(text: str) -> list[str]:
    """Split at commas that stand outside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return parts


def label_selector(text: str) -> LabelTest | None:
    """A test on labels; None when everything matches.

    Raises:
        StatusError: 400 when the selector cannot be read.
    """
    if not text.strip():
        return None
    tests = [_label_test(part, text) for part in _split(text)]
    if len(tests) == 1:
        return tests[0]
    return lambda labels: all(test(labels) for test in tests)


def _label_test(part: str, text: str) -> LabelTest:
    if match := _SET.match(part):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        _check_key(key, text)
        if match["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.match(part):
        key, value = match["key"], match["value"]
        _check_key(key, text)
        if match["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _ORDER.match(part):
        key, bound, greater = match["key"], int(match["value"]), match["op"] == ">"
        _check_key(key, text)

        def ordered(labels: Labels) -> bool:
            value = labels.get(key, "")
            if not value.lstrip("-").isdigit():
                return False
            return int(value) > bound if greater else int(value) < bound

        return ordered
    if match := _EXISTS.match(part):
        key, absent = match["key"], bool(match["no"])
        _check_key(key, text)
        return lambda labels: (key in labels) is not absent
    raise bad_request(f'unable to parse requirement: found "{part.strip()}" in label selector "{text}"')


def _check_key(key: str, text: str) -> None:
    if not _KEY.match(key):
        raise bad_request(f'unable to parse requirement: <nil>: Invalid value: "{key}" in label selector "{text}"')


class FieldSelector:
    """A conjunction of `path=value` and `path!=value`."""

    def __init__(self, text: str) -> None:
        self.terms: list[tuple[tuple[str, ...], str, bool]] = []
        for part in _split(text):
            if not part.strip():
                continue
            for operator in ("!=", "==", "="):
                key, found, value = part.partition(operator)
                if found:
                    self.terms.append((tuple(key.strip().split(".")), value.strip(), operator != "!="))
                    break
            else:
                raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        self.name: str | None = None
        self.namespace: str | None = None
        self.other: list[tuple[tuple[str, ...], str, bool]] = []
        for path, value, wanted in self.terms:
            if path == ("metadata", "name") and wanted:
                self.name = value
            elif path == ("metadata", "namespace") and wanted:
                self.namespace = value
            else:
                self.other.append((path, value, wanted))

    def matches_key(self, namespace: str, name: str) -> bool:
        return self.name in (None, name) and self.namespace in (None, namespace)

    def matches(self, obj: dict[str, Any]) -> bool:
        """Test everything but name and namespace, which `matches_key` has done."""
        for path, value, wanted in self.other:
            node: Any = obj
            for step in path:
                node = node.get(step) if isinstance(node, dict) else None
            shown = str(node).lower() if isinstance(node, bool) else "" if node is None else str(node)
            if (shown == value) is not wanted:
                return False
        return True


def field_selector(text: str, allowed: Callable[[str], bool]) -> FieldSelector | None:
    """Parse a field selector; None when empty.

    Raises:
        StatusError: 400 when it cannot be read or names a field that `allowed` refuses.
    """
    if not text.strip():
        return None
    selector = FieldSelector(text)
    for path, _, _ in selector.terms:
        if not allowed(".".join(path)):
            raise bad_request(f"field label not supported: {'.'.join(path)}")
    return selector
