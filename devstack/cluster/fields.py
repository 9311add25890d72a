"""Sets of field paths, as `managedFields` keeps them, and the types that say how a value splits into fields.

A set is held in the very shape of `fieldsV1`: nested dictionaries, where an entry is a *member* when it is empty or
holds the key ".". So nothing is converted on the way in or out. Sets are never changed in place, parts are shared.

Source: sigs.k8s.io/structured-merge-diff v4, packages fieldpath and typed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

Set = dict[str, Any]
LEAF: Set = {}


@dataclass(slots=True, eq=False)
class Type:
    """How values at one place of an object are merged.

    `kind` is "any" where only the value itself tells (then mappings are granular and lists atomic); `scalar` names the
    scalar that is wanted, "" for whichever.
    """

    kind: str = "any"
    scalar: str = ""
    atomic: bool = False
    fields: dict[str, Type] = field(default_factory=dict)
    element: Type | None = None
    keys: tuple[str, ...] = ()
    key_defaults: Mapping[str, Any] = field(default_factory=dict)
    closed: bool = False


ANY = Type()
SCALAR = Type("scalar")


def mapping(*, atomic: bool = False, **fields: Type) -> Type:
    """A structure with these known fields; whatever else turns up is taken as it comes."""
    return Type("map", atomic=atomic, fields=fields, element=ANY)


def listing(element: Type, *keys: str, **key_defaults: Any) -> Type:
    """A list whose items are told apart by `keys`."""
    return Type("list", element=element, keys=keys, key_defaults=key_defaults)


def list_set() -> Type:
    """A list of scalars, each of which has an owner of its own."""
    return Type("list", element=SCALAR, keys=("",))


ATOMIC_MAP = Type("map", atomic=True, element=ANY)
ATOMIC_LIST = Type("list", atomic=True, element=ANY)
_ANY_MAP = Type("map", element=ANY)
_ANY_LIST = ATOMIC_LIST


def resolve(type_: Type, value: Any) -> Type:
    """The type to use for `value`: "any" becomes whatever the value is."""
    if type_.kind != "any":
        return type_
    if isinstance(value, dict):
        return _ANY_MAP
    return _ANY_LIST if isinstance(value, list) else SCALAR


def child_type(type_: Type, name: str) -> Type:
    return type_.fields.get(name) or type_.element or ANY


def same(left: Any, right: Any) -> bool:
    """Equality as JSON has it: 1 and 1.0 are equal, 1 and true are not (in Python they are)."""
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and len(left) == len(right)
            and all(key in right and same(value, right[key]) for key, value in left.items())
        )
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def item_key(type_: Type, item: Any) -> str:
    """The path element of one item of a keyed list or a set."""
    if type_.keys == ("",):
        return "v:" + orjson.dumps(item).decode()
    if not isinstance(item, dict):
        return "v:" + orjson.dumps(item).decode()
    key = {name: item.get(name, type_.key_defaults.get(name)) for name in type_.keys}
    return "k:" + orjson.dumps(key, option=orjson.OPT_SORT_KEYS).decode()


def is_member(entry: Set) -> bool:
    return not entry or "." in entry


def _with_member(entry: Set) -> Set:
    return entry if is_member(entry) else {".": LEAF, **entry}


def field_set(value: Any, type_: Type) -> Set | None:
    """The fields that an applied configuration names; None when there are none inside `value`."""
    type_ = resolve(type_, value)
    if type_.kind == "scalar" or type_.atomic:
        return LEAF
    out: Set = {}
    if type_.kind == "map":
        if not isinstance(value, dict):
            return None
        for name, item in value.items():
            known = type_.fields.get(name)
            inner = field_set(item, known or type_.element or ANY)
            member = item is None or item == {} or known is None
            if inner is None:
                if member:
                    out["f:" + name] = LEAF
            else:
                out["f:" + name] = _with_member(inner) if member else inner
        return out or None
    for item in value or ():
        inner = field_set(item, type_.element or ANY)
        out[item_key(type_, item)] = _with_member(inner) if inner else LEAF
    return out or None


def _whole(value: Any, type_: Type) -> Set:
    """Every path in `value`, containers included: what appearing or vanishing as a whole touches."""
    type_ = resolve(type_, value)
    if not value or type_.kind == "scalar" or type_.atomic:
        return LEAF
    out: Set = {".": LEAF}
    if isinstance(value, dict):
        for name, item in value.items():
            out["f:" + name] = _whole(item, child_type(type_, name))
    else:
        for item in value:
            out[item_key(type_, item)] = _whole(item, type_.element or ANY)
    return out


@dataclass(slots=True)
class Comparison:
    """What turned one object into another."""

    added: Set = field(default_factory=dict)
    modified: Set = field(default_factory=dict)
    removed: Set = field(default_factory=dict)


def compare(old: Mapping[str, Any], new: Mapping[str, Any], type_: Type) -> Comparison:
    result = Comparison()
    _compare_maps(old, new, type_, result)
    return result


def _compare_maps(old: Mapping[str, Any], new: Mapping[str, Any], type_: Type, out: Comparison) -> None:
    for name, value in new.items():
        inner = child_type(type_, name)
        if name in old:
            _compare_values("f:" + name, old[name], value, inner, out)
        else:
            out.added["f:" + name] = _whole(value, inner)
    for name, value in old.items():
        if name not in new:
            out.removed["f:" + name] = _whole(value, child_type(type_, name))


def _compare_values(element: str, old: Any, new: Any, type_: Type, out: Comparison) -> None:
    if same(old, new):
        return
    old_type, new_type = resolve(type_, old), resolve(type_, new)
    if old is None:
        old_type = new_type
    elif new is None:
        new_type = old_type
    if old_type.kind == "scalar" or old_type.atomic or old_type is not new_type:
        out.modified[element] = LEAF
        if old_type is not new_type and isinstance(old, dict) and old:
            out.removed[element] = {k: v for k, v in _whole(old, old_type).items() if k != "."}
        return
    inner = Comparison()
    if old_type.kind == "map":
        _compare_maps(old or {}, new or {}, old_type, inner)
    else:
        _compare_lists(old or [], new or [], old_type, inner)
    if (old is None or new is None) and not (inner.added or inner.modified or inner.removed):
        out.modified[element] = LEAF  # null and empty are not the same
        return
    for target, source in ((out.added, inner.added), (out.modified, inner.modified), (out.removed, inner.removed)):
        if source:
            target[element] = source


def _compare_lists(old: list[Any], new: list[Any], type_: Type, out: Comparison) -> None:
    before = {item_key(type_, item): item for item in old}
    after = {item_key(type_, item): item for item in new}
    inner = type_.element or ANY
    for key, item in after.items():
        if key in before:
            _compare_values(key, before[key], item, inner, out)
        else:
            out.added[key] = _whole(item, inner)
    for key, item in before.items():
        if key not in after:
            out.removed[key] = _whole(item, inner)


def union(left: Set, right: Set) -> Set:
    if not right or left is right:
        return left
    if not left:
        return right
    out = dict(left)
    for key, theirs in right.items():
        ours = out.get(key)
        if ours is None or ours is theirs:
            out[key] = theirs
        elif not ours:
            out[key] = _with_member(theirs)
        elif not theirs:
            out[key] = _with_member(ours)
        else:
            out[key] = union(ours, theirs)
    return out


def difference(left: Set, right: Set) -> Set:
    """Members of `left` that are no members of `right`; a container is not its contents."""
    if not right:
        return left
    out: Set = {}
    for key, ours in left.items():
        if key == ".":
            continue
        theirs = right.get(key)
        if theirs is None:
            out[key] = ours
            continue
        member = is_member(ours) and not is_member(theirs)
        inner = difference(ours, theirs)
        inner = {k: v for k, v in inner.items() if k != "."} if "." in inner else inner
        if inner:
            out[key] = {".": LEAF, **inner} if member else inner
        elif member:
            out[key] = LEAF
    return out


def intersection(left: Set, right: Set) -> Set:
    out: Set = {}
    for key, ours in left.items():
        theirs = right.get(key)
        if theirs is None or key == ".":
            continue
        member = is_member(ours) and is_member(theirs)
        inner = intersection(ours, theirs)
        if inner:
            out[key] = {".": LEAF, **inner} if member else inner
        elif member:
            out[key] = LEAF
    return out


def contains(whole: Set, part: Set) -> bool:
    """Whether every member of `part` is one of `whole`."""
    return not difference(part, whole)


def without(fields: Set, *paths: tuple[str, ...]) -> Set:
    """`fields` less everything at or below each path."""
    for path in paths:
        head = fields.get(path[0])
        if head is None:
            continue
        if len(path) == 1:
            fields = {k: v for k, v in fields.items() if k != path[0]}
            continue
        inner = without(head, path[1:])
        if inner is head:
            continue
        rest = {k: v for k, v in fields.items() if k != path[0]}
        fields = {**rest, path[0]: inner} if inner else rest
    return fields


def named_as_members(fields: Set, type_: Type) -> Set:
    """The set with every known field on the way made a member too, so that emptied structures go as well."""
    out: Set = {}
    for key, entry in fields.items():
        if not entry:
            out[key] = entry
            continue
        name = key[2:] if key.startswith("f:") else None
        inner_type = (child_type(type_, name) if name is not None else type_.element) or ANY
        inner = named_as_members(entry, inner_type)
        out[key] = _with_member(inner) if name is not None and name in type_.fields else inner
    return out


def remove_fields(value: Any, fields: Set, type_: Type) -> Any:
    """`value` without the members of `fields`; None when nothing is left of what was there."""
    type_ = resolve(type_, value)
    if isinstance(value, dict):
        if type_.atomic:
            return value
        kept: dict[str, Any] = {}
        for name, item in value.items():
            entry = fields.get("f:" + name)
            if entry is None:
                kept[name] = item
            elif not is_member(entry):
                inner = remove_fields(item, entry, child_type(type_, name))
                if inner is not None or item is None:
                    kept[name] = inner
        return kept or (None if value else value)
    if isinstance(value, list) and not type_.atomic:
        items = []
        for item in value:
            entry = fields.get(item_key(type_, item))
            if entry is None:
                items.append(item)
            elif not is_member(entry):
                items.append(remove_fields(item, entry, type_.element or ANY))
        return items or (None if value else value)
    return value


def paths(fields: Set, prefix: str = "") -> Iterator[str]:
    """Each member, spelled as conflict messages spell it: `.spec.containers[name="web"].image`."""
    for key in sorted(fields):
        if key == ".":
            continue
        entry = fields[key]
        path = prefix + _spell(key)
        if is_member(entry):
            yield path
        yield from paths(entry, path)


def _spell(element: str) -> str:
    kind, _, rest = element.partition(":")
    if kind == "f":
        return "." + rest
    if kind == "v":
        return f"[={rest}]"
    if kind == "k":
        parts = (f"{name}={orjson.dumps(value).decode()}" for name, value in orjson.loads(rest).items())
        return "[" + ",".join(parts) + "]"
    return f"[{rest}]"
