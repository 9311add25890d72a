"""Server-side apply: merge a configuration into the live object and keep the books of who owns which field.

Source: sigs.k8s.io/structured-merge-diff v4, merge/update.go, and k8s.io/apimachinery, util/managedfields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devstack.cluster import fields as f
from devstack.cluster.errors import StatusError, apply_conflict
from devstack.cluster.fields import Set, Type

# Owned by nobody, whoever sends them.
STRIPPED = (
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata", "."),
    ("f:metadata", "f:name"),
    ("f:metadata", "f:namespace"),
    ("f:metadata", "f:creationTimestamp"),
    ("f:metadata", "f:deletionTimestamp"),
    ("f:metadata", "f:deletionGracePeriodSeconds"),
    ("f:metadata", "f:selfLink"),
    ("f:metadata", "f:uid"),
    ("f:metadata", "f:generation"),
    ("f:metadata", "f:managedFields"),
    ("f:metadata", "f:resourceVersion"),
)
MAX_UPDATE_MANAGERS = 10


@dataclass(frozen=True, slots=True)
class Manager:
    """Who wrote, how and through which version: the identity of one entry of managedFields."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(slots=True)
class Owned:
    fields: Set
    time: str


Books = dict[Manager, Owned]


def read_books(managed: Any) -> Books:
    """managedFields as a dictionary; entries that make no sense are dropped, as a real server drops them all."""
    books: Books = {}
    for entry in managed or ():
        if not isinstance(entry, dict) or not isinstance(entry.get("fieldsV1"), dict):
            continue
        manager = Manager(
            str(entry.get("manager", "")),
            str(entry.get("operation", "Update")),
            str(entry.get("apiVersion", "")),
            str(entry.get("subresource", "")),
        )
        known = books.get(manager)
        owned = f.union(known.fields, entry["fieldsV1"]) if known else entry["fieldsV1"]
        books[manager] = Owned(owned, str(entry.get("time", "")))
    return books


def write_books(books: Books) -> list[dict[str, Any]]:
    entries = []
    order = sorted(books.items(), key=lambda item: (item[0].operation, item[1].time, item[0].name, item[0].subresource))
    for manager, owned in order:
        entry: dict[str, Any] = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned.fields,
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def _shift_ownership(
    books: Books, change: f.Comparison, writer: Manager, ignored: tuple[tuple[str, ...], ...]
) -> Books:
    touched = f.without(f.union(change.modified, change.added), *STRIPPED, *ignored)
    removed = f.without(change.removed, *STRIPPED, *ignored)
    if not touched and not removed:
        return dict(books)
    after: Books = {}
    for manager, owned in books.items():
        if manager == writer:
            after[manager] = owned
            continue
        left = owned.fields
        taken = f.intersection(left, touched)
        if taken:
            left = f.difference(left, taken)
        if removed:
            left = f.difference(left, removed)
        if left:
            after[manager] = owned if left is owned.fields else Owned(left, owned.time)
    return after


def book_update(
    books: Books,
    live: dict[str, Any],
    new: dict[str, Any],
    type_: Type,
    writer: Manager,
    now: str,
    ignored: tuple[tuple[str, ...], ...],
) -> Books:
    """The books after a plain write (POST, PUT, or a patch): what changed belongs to the writer alone."""
    change = f.compare(_fields_only(live), _fields_only(new), type_)
    after = _shift_ownership(books, change, writer, ignored)
    mine = after.get(writer)
    changed = f.without(f.union(change.modified, change.added), *STRIPPED, *ignored)
    removed = f.without(change.removed, *STRIPPED, *ignored)
    before = mine.fields if mine else {}
    owned = f.union(f.difference(before, removed), changed)
    if owned:
        after[writer] = Owned(owned, now if not mine or changed or owned != before else mine.time)
    else:
        after.pop(writer, None)
    return _cap(after)


def _cap(books: Books) -> Books:
    updates = [item for item in books.items() if item[0].operation == "Update" and not item[0].subresource]
    if len(updates) <= MAX_UPDATE_MANAGERS:
        return books
    updates.sort(key=lambda item: item[1].time)
    merged: Set = {}
    newest = ""
    api_version = ""
    for manager, owned in updates[: len(updates) - MAX_UPDATE_MANAGERS + 1]:
        merged, newest, api_version = f.union(merged, owned.fields), owned.time, manager.api_version
        del books[manager]
    books[Manager("ancient-changes", "Update", api_version)] = Owned(merged, newest)
    return books


def _fields_only(obj: dict[str, Any]) -> dict[str, Any]:
    """The object without managedFields, so that comparing stays cheap."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def apply(
    live: dict[str, Any] | None,
    config: dict[str, Any],
    type_: Type,
    writer: Manager,
    now: str,
    force: bool,
    ignored: tuple[tuple[str, ...], ...],
) -> tuple[dict[str, Any], Books]:
    """Merge `config` into `live` on behalf of `writer`.

    Args:
        live: the stored object with its managedFields, None when there is none.
        config: the applied configuration, already checked by `check_typed`.
        ignored: field paths that this endpoint never writes (status, or all but status).

    Returns:
        The merged object, and the books to write into it.

    Raises:
        StatusError: 409 when others own what would change and `force` is not set.
    """
    applied = f.without(f.field_set(config, type_) or {}, *STRIPPED, *ignored)
    if live is None:
        return dict(config), ({writer: Owned(applied, now)} if applied else {})
    books = read_books(live["metadata"].get("managedFields"))
    bare = _fields_only(live)
    if not books:
        everything = f.without(f.field_set(bare, type_) or {}, *STRIPPED, *ignored)
        books = {Manager("before-first-apply", "Update", writer.api_version): Owned(everything, now)}
    last = next((o for m, o in books.items() if _same_applier(m, writer)), None)
    others = {m: o for m, o in books.items() if not _same_applier(m, writer)}
    merged = merge(bare, without_paths(config, ignored), type_)
    if last and not f.contains(applied, last.fields):
        merged = _prune(merged, others, applied, last.fields, type_)
    change = f.compare(bare, merged, type_)
    touched = f.without(f.union(change.modified, change.added), *STRIPPED, *ignored)
    if not force and touched:
        _refuse_conflicts(others, touched)
    after = _shift_ownership(others, change, writer, ignored)
    if applied:
        unchanged = last is not None and last.fields == applied and not touched and not change.removed
        after[writer] = Owned(applied, last.time if last is not None and unchanged else now)
    return merged, after


def _same_applier(manager: Manager, writer: Manager) -> bool:
    return manager.operation == "Apply" and manager.name == writer.name and manager.subresource == writer.subresource


def _refuse_conflicts(others: Books, touched: Set) -> None:
    conflicts: list[tuple[str, str]] = []
    for manager, owned in sorted(others.items(), key=lambda item: item[0].name):
        lost = f.intersection(owned.fields, touched)
        if not lost:
            continue
        message = f'conflict with "{manager.name}"'
        if manager.subresource:
            message += f' with subresource "{manager.subresource}"'
        if manager.operation == "Update":
            message += f" using {manager.api_version}"
        conflicts.extend((message, path) for path in f.paths(lost))
    if conflicts:
        raise apply_conflict(conflicts)


def _prune(merged: dict[str, Any], others: Books, applied: Set, last: Set, type_: Type) -> dict[str, Any]:
    """Take out what the writer named last time, names no more, and nobody else owns."""
    managed = applied
    for owned in others.values():
        managed = f.union(managed, owned.fields)
    managed = f.named_as_members(managed, type_)
    named_last = f.named_as_members(last, type_)
    gone = f.difference(named_last, managed)
    return f.remove_fields(merged, gone, type_) or {}


def without_paths(obj: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """A copy of the object without the top-level fields that `paths` name."""
    tops = {path[0][2:] for path in paths if len(path) == 1}
    return {key: value for key, value in obj.items() if key not in tops} if tops else obj


def merge(live: Any, config: Any, type_: Type) -> Any:
    """`config` laid over `live`, field by field where the type is granular."""
    type_ = resolve_for_merge(type_, live, config)
    if type_.kind == "scalar" or type_.atomic or config is None or live is None:
        return config
    if type_.kind == "map":
        if not isinstance(live, dict) or not isinstance(config, dict):
            return config
        out = dict(live)
        for name, value in config.items():
            out[name] = merge(live[name], value, f.child_type(type_, name)) if name in live else value
        return out
    if not isinstance(live, list) or not isinstance(config, list):
        return config
    return _merge_lists(live, config, type_)


def resolve_for_merge(type_: Type, live: Any, config: Any) -> Type:
    return f.resolve(type_, config if config is not None else live)


def _merge_lists(live: list[Any], config: list[Any], type_: Type) -> list[Any]:
    element = type_.element or f.ANY
    wanted = {f.item_key(type_, item): item for item in config}
    present = {f.item_key(type_, item): item for item in live}
    waiting = list(wanted)
    position = 0
    out: list[Any] = []
    for key, item in present.items():
        if key not in wanted:
            out.append(item)
            continue
        while position < len(waiting):
            name = waiting[position]
            position += 1
            out.append(merge(present[name], wanted[name], element) if name in present else wanted[name])
            if name == key:
                break
    for name in waiting[position:]:
        out.append(merge(present[name], wanted[name], element) if name in present else wanted[name])
    return out


def check_typed(config: dict[str, Any], type_: Type, what: str) -> None:
    """Refuse a configuration that does not fit the type at all.

    Raises:
        StatusError: 500 without a reason. A real API server answers just that
            (https://github.com/kubernetes/kubernetes/issues/139253), so clients have to cope.
    """
    faults = type_faults(config, type_, "")
    if not faults:
        return
    text = faults[0] if len(faults) == 1 else "errors:\n" + "\n".join("  " + fault for fault in faults)
    raise StatusError(500, "", f"failed to create typed patch object ({what}): {text}")


def type_faults(value: Any, type_: Type, path: str) -> list[str]:
    """Where `value` has another shape than the type says, in the words of structured-merge-diff."""
    if value is None or type_.kind == "any":
        return []
    got = f"got &value.valueUnstructured{{Value:{_spell(value)}}}"
    if type_.kind == "scalar":
        if isinstance(value, dict | list):
            return [f"{path}: expected {type_.scalar or 'scalar'}, {got}"]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {"string": isinstance(value, str), "boolean": isinstance(value, bool), "numeric": number, "": True}
        wanted = "numeric (int or float)" if type_.scalar == "numeric" else type_.scalar
        return [] if fits[type_.scalar] else [f"{path}: expected {wanted}, {got}"]
    out: list[str] = []
    if type_.kind == "map":
        if not isinstance(value, dict):
            return [f"{path}: expected map, {got}"]
        for name, item in value.items():
            if type_.closed and name not in type_.fields:
                out.append(f"{path}.{name}: field not declared in schema")
            else:
                out += type_faults(item, f.child_type(type_, name), f"{path}.{name}")
        return out
    if not isinstance(value, list):
        return [f"{path}: expected list, {got}"]
    seen: set[str] = set()
    for index, item in enumerate(value):
        out += type_faults(item, type_.element or f.ANY, f"{path}[{index}]")
        if type_.keys and not type_.atomic:
            key = f.item_key(type_, item)
            if key in seen:
                out.append(f"{path}: duplicate entries for key {key[2:]}")
            seen.add(key)
    return out


def _spell(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[string]interface {}{...}"
    return "[]interface {}{...}" if isinstance(value, list) else str(value)
