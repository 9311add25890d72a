"""What a tenant's fields may hold. The API's serializers and repair go by the same rules. Pure."""

import re
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from cluster.kinds import Spec

NAME_MAX = 53
DISPLAY_NAME_MAX = 200
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
LABEL_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_MAX = 63
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
QUANTITY_PATTERN = r"^([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)([eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?$"
QUANTITY_MAX = 32
VERSION_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
IMAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$"
IMAGE_MAX = 512
ITEM_MAX = 253
BUDGET_MAX = 999_999_999_999
OVERRIDES_MAX_BYTES = 262_144


def checked_spec(spec: Spec) -> Spec:
    """The fields of a custom resource's spec that a tenant's row can hold.

    Raises:
        ValueError: one of them breaks a rule; the sentence names it.
    """
    out: Spec = {}
    for name, check in _CHECKS.items():
        value = spec.get(name)
        if value is None:
            continue
        try:
            check(value)
        except (ValueError, TypeError, ValidationError) as exc:
            raise ValueError(f"{name} {_reason(exc)}") from exc
        out[name] = value
    for name in ("displayName", "email"):
        if not out.get(name):
            raise ValueError(f"{name} is missing")
    return out


def _reason(exc: Exception) -> str:
    return " ".join(exc.messages) if isinstance(exc, ValidationError) else str(exc)


def _text(maximum: int, pattern: str = "") -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, str) or not value.strip() or len(value) > maximum:
            raise ValueError(f"has to be text of 1 to {maximum} characters")
        if "\x00" in value:
            raise ValueError("holds a NUL character")
        if pattern and not re.match(pattern, value):
            raise ValueError(f"does not match {pattern}")

    return check


def _budget(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= BUDGET_MAX:
        raise ValueError(f"has to be a number from 0 to {BUDGET_MAX}")


def _quantities(value: Any) -> None:
    _only_keys(value, {"cpu", "memory"})
    for amount in value.values():
        if isinstance(amount, bool) or not re.match(QUANTITY_PATTERN, str(amount)):
            raise ValueError("holds something that is no Kubernetes quantity")


def _names(value: Any) -> None:
    if not isinstance(value, list):
        raise ValueError("has to be a list")
    for item in value:
        _text(ITEM_MAX)(item)


def _mcp_policy(value: Any) -> None:
    _only_keys(value, {"allow", "deny"})
    for names in value.values():
        _names(names)


def _only_keys(value: Any, keys: set[str]) -> None:
    if not isinstance(value, dict) or not set(value) <= keys:
        raise ValueError(f"has to be an object of {' and '.join(sorted(keys))}")


def _object(value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError("has to be an object")


def _flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError("has to be true or false")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "displayName": _text(DISPLAY_NAME_MAX),
    "email": validate_email,
    "team": _text(LABEL_MAX, LABEL_PATTERN),
    "openclawImage": _text(IMAGE_MAX, IMAGE_PATTERN),
    "openclawVersion": _text(128, VERSION_PATTERN),
    "monthlyBudgetUsd": _budget,
    "resources": _quantities,
    "skillAllowlist": _names,
    "mcpPolicy": _mcp_policy,
    "configOverrides": _object,
    "policyRef": _text(ITEM_MAX),
    "clusterTenantRef": _text(ITEM_MAX),
    "awarenessWave": _text(LABEL_MAX),
    "suspended": _flag,
}
