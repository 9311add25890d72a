"""Whether a live object already is what a manifest wants, so that nothing needs to be written. Pure.

What the manifest does not name is others' business and stays. Where the server keeps a list by key, entries of others
stay too; every other list has to be the same.
"""

from typing import Any

from cluster.quantities import parse_quantity
from cluster.resources import CILIUM_POLICIES, INGRESSES, NETWORK_POLICIES, KubeObject, Resource

# Keys of lists that the API server merges by key, tried in this order.
_KEYS = ("uid", "name", "mountPath", "containerPort")
_QUANTITIES = frozenset({"requests", "limits", "sizeLimit"})
# Nothing is filled in here by the server, and something that is added changes the meaning.
_EXACT = frozenset({NETWORK_POLICIES, CILIUM_POLICIES, INGRESSES})


def is_as_wanted(resource: Resource, wanted: KubeObject, live: KubeObject) -> bool:
    """Whether applying `wanted` over `live` would change nothing."""
    for key, value in wanted.items():
        if key in {"apiVersion", "kind"}:
            continue
        if key == "spec" and resource in _EXACT:
            if value != live.get(key):
                return False
        elif not _holds(value, live.get(key), key):
            return False
    return True


def _holds(wanted: Any, live: Any, key: str) -> bool:
    # Most parts are the very same, and comparing whole parts is faster than walking through them.
    if wanted == live:
        return True
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return live is None and not wanted
        if key in _QUANTITIES:
            return all(name in live and same_quantity(amount, live[name]) for name, amount in wanted.items())
        return all(_holds(value, live.get(name), name) for name, value in wanted.items())
    if isinstance(wanted, list):
        return _holds_list(wanted, live, key)
    if key in _QUANTITIES:
        return same_quantity(wanted, live)
    return bool(wanted == live) or (live is None and wanted in ("", False))


def _holds_list(wanted: list[Any], live: Any, key: str) -> bool:
    if not isinstance(live, list):
        return live is None and not wanted
    by = next((name for name in _KEYS if wanted and isinstance(wanted[0], dict) and name in wanted[0]), "")
    if by:
        found = {item.get(by): item for item in live if isinstance(item, dict)}
        return all(_holds(item, found.get(item[by]), key) for item in wanted)
    return len(wanted) == len(live) and all(_holds(left, right, "") for left, right in zip(wanted, live, strict=True))


def same_quantity(left: Any, right: Any) -> bool:
    """Whether two Kubernetes quantities are the same amount, however they are written."""
    if left == right:
        return True
    try:
        return parse_quantity(left) == parse_quantity(right)
    except ValueError:
        return False
