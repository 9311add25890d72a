"""The patches that are not server-side apply: JSON (RFC 6902), merge (RFC 7386) and strategic merge."""

from __future__ import annotations

import copy
from typing import Any

from devstack.cluster.errors import Cause, StatusError, bad_request
from devstack.cluster.fields import Type, child_type, item_key, resolve, same

MAX_OPERATIONS = 10_000


class PatchFailedError(Exception):
    """A well-formed JSON patch that does not fit the object: 422 Invalid."""


def json_patch(target: Any, operations: Any) -> Any:
    """Apply RFC 6902 operations to a copy of `target`.

    Raises:
        StatusError: 400 for something that is no JSON patch, 413 for too many operations.
        PatchFailedError: a path that is not there, or a failed test.
    """
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise StatusError(413, "RequestEntityTooLarge", message)
    target = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request("error decoding patch: an operation needs op and path")
        target = _run(target, operation)
    return target


def _run(target: Any, operation: dict[str, Any]) -> Any:
    op, path = operation.get("op"), operation["path"]
    if op in {"move", "copy"}:
        source = operation.get("from")
        if not isinstance(source, str):
            raise bad_request(f"error decoding patch: {op} needs from")
        value = copy.deepcopy(_get(target, source))
        if op == "move":
            target = _remove(target, source)
        return _add(target, path, value)
    if op == "remove":
        return _remove(target, path)
    if op not in {"add", "replace", "test"}:
        raise bad_request(f"error decoding patch: unexpected kind: {op}")
    value = operation.get("value")
    if op == "add":
        return _add(target, path, value)
    if op == "test":
        if not same(_get(target, path, absent=None), value):
            raise PatchFailedError(f"testing value {path} failed: test failed")
        return target
    _get(target, path)
    if path == "":
        return value
    parent, key = _parent(target, path)
    if isinstance(parent, list):
        parent[_index(parent, key, path, 0)] = value
    else:
        parent[key] = value
    return target


_MISSING = object()


def _steps(path: str) -> list[str]:
    if path == "":
        return []
    if not path.startswith("/"):
        raise PatchFailedError(f"doc is missing path: {path}: missing value")
    return [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]


def _get(target: Any, path: str, absent: Any = _MISSING) -> Any:
    node = target
    for step in _steps(path):
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        elif absent is not _MISSING:
            return absent
        else:
            raise PatchFailedError(f"doc is missing key: {path}: missing value")
    return node


def _parent(target: Any, path: str) -> tuple[Any, str]:
    steps = _steps(path)
    node = target
    for step in steps[:-1]:
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            raise PatchFailedError(f"doc is missing path: {path}: missing value")
    if not isinstance(node, dict | list):
        raise PatchFailedError(f"doc is missing path: {path}: missing value")
    return node, steps[-1]


def _index(items: list[Any], key: str, path: str, beyond: int) -> int:
    if not key.isdigit() or int(key) >= len(items) + beyond:
        raise PatchFailedError(f"unable to access invalid index: {path}: invalid index referenced")
    return int(key)


def _add(target: Any, path: str, value: Any) -> Any:
    if path == "":
        return value
    parent, key = _parent(target, path)
    if isinstance(parent, list):
        parent.insert(len(parent) if key == "-" else _index(parent, key, path, 1), value)
    else:
        parent[key] = value
    return target


def _remove(target: Any, path: str) -> Any:
    if path == "":
        return None
    parent, key = _parent(target, path)
    if isinstance(parent, list):
        del parent[_index(parent, key, path, 0)]
    elif key not in parent:
        raise PatchFailedError(f"remove operation does not apply: doc is missing path: {path}: missing value")
    else:
        del parent[key]
    return target


def failed(group: str, kind: str, name: str, exc: PatchFailedError) -> StatusError:
    """What a failed JSON patch answers: 422, naming the object but no field."""
    details: dict[str, Any] = {"name": name, "kind": kind}
    if group:
        details["group"] = group
    details["causes"] = [Cause("FieldValueInvalid", "", str(exc)).as_dict()]
    return StatusError(
        422, "Invalid", f"the server rejected our request due to an error in our request: {exc}", details
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


def strategic_patch(target: Any, patch: Any, type_: Type) -> Any:
    """Kubernetes' own merge: keyed lists merge by key, `$patch` and its like are obeyed."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    out = dict(target) if isinstance(target, dict) else {}
    retain = patch.get("$retainKeys")
    if isinstance(retain, list):
        out = {key: value for key, value in out.items() if key in retain}
    for key, value in patch.items():
        if key in {"$patch", "$retainKeys"} or key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            out[name] = [item for item in out.get(name) or [] if item not in value]
        elif value is None:
            out.pop(key, None)
        elif isinstance(value, list):
            out[key] = _strategic_list(out.get(key) or [], value, resolve(child_type(type_, key), value))
        else:
            out[key] = strategic_patch(out.get(key), value, child_type(type_, key))
    return out


def _strategic_list(current: list[Any], patch: list[Any], type_: Type) -> list[Any]:
    if any(isinstance(item, dict) and item == {"$patch": "replace"} for item in patch):
        return [item for item in patch if item != {"$patch": "replace"}]
    if not type_.keys or type_.atomic:
        return patch
    if type_.keys == ("",):
        return current + [item for item in patch if item not in current]
    # Strategic merge goes by the first key alone (containerPort), where apply uses them all (and protocol).
    by_key = Type("list", element=type_.element, keys=type_.keys[:1])
    out = {item_key(by_key, item): item for item in current}
    for item in patch:
        key = item_key(by_key, item)
        if isinstance(item, dict) and item.get("$patch") == "delete":
            out.pop(key, None)
        else:
            out[key] = strategic_patch(out.get(key), item, type_.element or Type())
    return list(out.values())
