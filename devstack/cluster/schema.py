"""Structural schemas of custom resources: validate, fill in defaults, prune, and derive the merge type.

Source: k8s.io/apiextensions-apiserver, pkg/apiserver/schema and /validation (messages are its own).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from devstack.cluster.errors import Cause
from devstack.cluster.fields import SCALAR, Type

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")
_KEYWORDS: tuple[tuple[tuple[str, ...], type | tuple[type, ...], str], ...] = (
    (("minimum", "maximum", "multipleOf"), (int, float), "a number"),
    (("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), int, "an integer"),
    (("required", "enum", "x-kubernetes-list-map-keys"), list, "a list"),
    (("properties",), dict, "an object"),
    (("type", "format", "pattern"), str, "a string"),
)
_SCALARS = {"string": "string", "integer": "numeric", "number": "numeric", "boolean": "boolean"}


@dataclass(slots=True, eq=False)
class Schema:
    """One node of a structural schema, compiled for speed."""

    type: str = ""
    nullable: bool = False
    int_or_string: bool = False
    preserve: bool = False
    embedded: bool = False
    properties: dict[str, Schema] = field(default_factory=dict)
    additional: Schema | None = None
    items: Schema | None = None
    required: tuple[str, ...] = ()
    enum: tuple[Any, ...] = ()
    pattern: re.Pattern[str] | None = None
    format: str = ""
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    list_type: str = ""
    list_keys: tuple[str, ...] = ()
    map_type: str = ""
    default: Any = None
    has_default: bool = False
    defaults_below: bool = False


def compile_schema(raw: Any) -> Schema:
    """Compile an openAPIV3Schema. `problems` says beforehand whether it is one."""
    raw = raw if isinstance(raw, dict) else {}
    additional = raw.get("additionalProperties")
    schema = Schema(
        type=raw.get("type", ""),
        nullable=bool(raw.get("nullable")),
        int_or_string=bool(raw.get("x-kubernetes-int-or-string")),
        preserve=bool(raw.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(raw.get("x-kubernetes-embedded-resource")),
        properties={name: compile_schema(sub) for name, sub in (raw.get("properties") or {}).items()},
        additional=compile_schema(additional) if additional not in (None, False) else None,
        items=compile_schema(raw["items"]) if isinstance(raw.get("items"), dict) else None,
        required=tuple(raw.get("required") or ()),
        enum=tuple(raw.get("enum") or ()),
        pattern=re.compile(_from_re2(raw["pattern"]), re.ASCII) if raw.get("pattern") else None,
        format=raw.get("format", ""),
        minimum=raw.get("minimum"),
        maximum=raw.get("maximum"),
        exclusive_minimum=bool(raw.get("exclusiveMinimum")),
        exclusive_maximum=bool(raw.get("exclusiveMaximum")),
        multiple_of=raw.get("multipleOf"),
        min_length=raw.get("minLength"),
        max_length=raw.get("maxLength"),
        min_items=raw.get("minItems"),
        max_items=raw.get("maxItems"),
        min_properties=raw.get("minProperties"),
        max_properties=raw.get("maxProperties"),
        list_type=raw.get("x-kubernetes-list-type", ""),
        list_keys=tuple(raw.get("x-kubernetes-list-map-keys") or ()),
        map_type=raw.get("x-kubernetes-map-type", ""),
        default=raw.get("default"),
        has_default="default" in raw,
    )
    below = [*schema.properties.values()]
    below += [sub for sub in (schema.additional, schema.items) if sub is not None]
    schema.defaults_below = any(sub.has_default or sub.defaults_below for sub in below)
    return schema


def _from_re2(pattern: str) -> str:
    """The same expression for `re`: in RE2 `$` is the end of the text, in Python also before a last newline."""
    return re.sub(r"(?<!\\)((?:\\\\)*)\$(?=\)|\||$)", r"\1\\Z", pattern).replace(r"\z", r"\Z")


def problems(raw: Any, path: str) -> Iterator[Cause]:
    """Why a schema is not structural. Only the rules that people break; the real list is longer."""
    if not isinstance(raw, dict):
        yield Cause("FieldValueRequired", path, "Required value: must not be empty")
        return
    for word in ("$ref", "definitions", "dependencies", "patternProperties", "id"):
        if word in raw and not path.endswith(".properties"):
            yield Cause("FieldValueForbidden", f"{path}.{word}", f"Forbidden: {word} is not supported")
    free = raw.get("x-kubernetes-int-or-string") or raw.get("x-kubernetes-preserve-unknown-fields")
    if not raw.get("type") and not free:
        yield Cause(
            "FieldValueRequired", f"{path}.type", "Required value: must not be empty for specified object fields"
        )
    if raw.get("type") and raw.get("x-kubernetes-int-or-string"):
        yield Cause(
            "FieldValueForbidden", f"{path}.type", "Forbidden: must be empty if x-kubernetes-int-or-string is true"
        )
    if raw.get("properties") and raw.get("additionalProperties") not in (None, False):
        message = "Forbidden: additionalProperties and properties are mutual exclusive"
        yield Cause("FieldValueForbidden", f"{path}.additionalProperties", message)
    if raw.get("type") == "array" and not isinstance(raw.get("items"), dict):
        yield Cause("FieldValueRequired", f"{path}.items", "Required value: must be specified")
    keys = raw.get("x-kubernetes-list-map-keys") or []
    if isinstance(raw.get("items"), dict) and not set(keys) <= set(raw["items"].get("properties") or ()):
        message = f"Invalid value: {_show(keys)}: entries must all be names of item properties"
        yield Cause("FieldValueInvalid", f"{path}.x-kubernetes-list-map-keys", message)
    for words, wanted, what in _KEYWORDS:
        for word in words:
            value = raw.get(word)
            if value is not None and (
                not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool))
            ):
                yield Cause("FieldValueInvalid", f"{path}.{word}", f"Invalid value: {_show(value)}: must be {what}")
                return
    if raw.get("pattern"):
        yield from _pattern_problems(str(raw["pattern"]), f"{path}.pattern")
    for name, sub in (raw.get("properties") or {}).items():
        yield from problems(sub, f"{path}.properties[{name}]")
    if isinstance(raw.get("items"), dict):
        yield from problems(raw["items"], f"{path}.items")
    if isinstance(raw.get("additionalProperties"), dict):
        yield from problems(raw["additionalProperties"], f"{path}.additionalProperties")


def _pattern_problems(pattern: str, path: str) -> Iterator[Cause]:
    fault = ""
    if re.search(r"\(\?(=|!|<=|<!|P=|>)", pattern) or re.search(r"(?<!\\)(?:\\\\)*\\[1-9]", pattern):
        fault = "invalid or unsupported Perl syntax"
    else:
        try:
            re.compile(pattern)
        except re.error as exc:
            fault = str(exc)
    if fault:
        message = f"Invalid value: {_show(pattern)}: must be a valid regular expression, but isn't: {fault}"
        yield Cause("FieldValueInvalid", path, message)


def merge_type(schema: Schema) -> Type:
    """How server-side apply sees values of this schema."""
    if schema.int_or_string:
        return SCALAR
    if schema.type in _SCALARS:
        return Type("scalar", scalar=_SCALARS[schema.type])
    if schema.type == "array":
        element = merge_type(schema.items) if schema.items else Type()
        if schema.list_type == "set":
            return Type("list", element=element, keys=("",))
        if schema.list_type == "map":
            properties = schema.items.properties if schema.items else {}
            defaults = {key: properties[key].default for key in schema.list_keys if key in properties}
            return Type("list", element=element, keys=schema.list_keys, key_defaults=defaults)
        return Type("list", atomic=True, element=element)
    if schema.type != "object":
        return Type()
    atomic = schema.map_type == "atomic"
    fields = {name: merge_type(sub) for name, sub in schema.properties.items()}
    if schema.additional is not None:
        return Type("map", atomic=atomic, element=merge_type(schema.additional))
    return Type("map", atomic=atomic, fields=fields, element=Type(), closed=not schema.preserve)


def prune(value: Any, schema: Schema, path: str, dropped: list[str], *, root: bool = False) -> Any:
    """`value` without undeclared fields; their paths are appended to `dropped`. Shares what it leaves alone."""
    if isinstance(value, dict):
        if schema.preserve and not schema.properties and schema.additional is None:
            return value
        out: dict[str, Any] = {}
        for name, item in value.items():
            where = f"{path}.{name}" if path else name
            sub = schema.properties.get(name) or schema.additional
            if (root or schema.embedded) and name in {"apiVersion", "kind", "metadata"}:
                out[name] = item
            elif sub is not None:
                out[name] = prune(item, sub, where, dropped)
            elif schema.preserve:
                out[name] = item
            elif schema.type == "object" or not schema.type:
                dropped.append(where)
        return out
    if isinstance(value, list) and schema.items is not None:
        return [prune(item, schema.items, f"{path}[{i}]", dropped) for i, item in enumerate(value)]
    return value


def fill_defaults(value: Any, schema: Schema) -> bool:
    """Fill in defaults in place; a null where null is not allowed and a default exists counts as absent.

    Returns:
        Whether anything was added.
    """
    if not schema.defaults_below:
        return False
    changed = False
    if isinstance(value, dict):
        for name, sub in schema.properties.items():
            missing = name not in value or (value[name] is None and not sub.nullable)
            if missing and sub.has_default:
                value[name] = copy.deepcopy(sub.default)
                changed = True
            if name in value and sub.defaults_below:
                changed = fill_defaults(value[name], sub) or changed
        if schema.additional is not None and schema.additional.defaults_below:
            for item in value.values():
                changed = fill_defaults(item, schema.additional) or changed
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            changed = fill_defaults(item, schema.items) or changed
    return changed


def validate(value: Any, schema: Schema, path: str, out: list[Cause], *, root: bool = False) -> None:
    """Append to `out` everything that is wrong with `value`."""
    if value is None and (schema.nullable or (not schema.type and not schema.int_or_string)):
        return
    if not _has_type(value, schema):
        wanted = "integer,string" if schema.int_or_string else schema.type
        got = _type_name(value)
        message = f'Invalid value: "{got}": {path or "<nil>"} in body must be of type {wanted}: "{got}"'
        out.append(Cause("FieldValueTypeInvalid", path, message))
        return
    if schema.enum and not any(value == choice and type(value) is type(choice) for choice in schema.enum):
        supported = ", ".join(_show(choice) for choice in schema.enum)
        out.append(
            Cause("FieldValueNotSupported", path, f"Unsupported value: {_show(value)}: supported values: {supported}")
        )
    if isinstance(value, str):
        _validate_string(value, schema, path, out)
    elif isinstance(value, dict):
        _validate_object(value, schema, path, out, root)
    elif isinstance(value, list):
        _validate_list(value, schema, path, out)
    elif not isinstance(value, bool) and isinstance(value, int | float):
        _validate_number(value, schema, path, out)


def _has_type(value: Any, schema: Schema) -> bool:
    if schema.int_or_string:
        return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    match schema.type:
        case "":
            return True
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case _:
            return isinstance(value, int | float) and not isinstance(value, bool)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", dict: "object", list: "array"}
    return names.get(type(value), "object")


def _show(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 500 else text[:500] + "..."


def _wrong(path: str, value: Any, rule: str) -> Cause:
    return Cause("FieldValueInvalid", path, f"Invalid value: {_show(value)}: {path} in body should {rule}")


def _validate_string(value: str, schema: Schema, path: str, out: list[Cause]) -> None:
    if schema.max_length is not None and len(value) > schema.max_length:
        limit = schema.max_length
        out.append(Cause("FieldValueTooLong", path, f"Too long: may not be more than {limit} bytes"))
    if schema.min_length is not None and len(value) < schema.min_length:
        out.append(_wrong(path, value, f"be at least {schema.min_length} chars long"))
    if schema.pattern is not None and not schema.pattern.search(value):
        shown = schema.pattern.pattern.replace(r"\Z", "$")
        out.append(_wrong(path, value, f"match '{shown}'"))
    if schema.format and not _has_format(value, schema.format):
        message = f"Invalid value: {_show(value)}: {path} in body must be of type {schema.format}: {_show(value)}"
        out.append(Cause("FieldValueInvalid", path, message))


def _has_format(value: str, name: str) -> bool:
    if name == "email":
        return _EMAIL.match(value) is not None
    if name == "date-time":
        try:
            return "T" in value.upper() and datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            return False
    return True


def _validate_number(value: float, schema: Schema, path: str, out: list[Cause]) -> None:
    low, high = schema.minimum, schema.maximum
    if low is not None and (value < low or (schema.exclusive_minimum and value == low)):
        rule = "be greater than" if schema.exclusive_minimum else "be greater than or equal to"
        out.append(_wrong(path, value, f"{rule} {low}"))
    if high is not None and (value > high or (schema.exclusive_maximum and value == high)):
        rule = "be less than" if schema.exclusive_maximum else "be less than or equal to"
        out.append(_wrong(path, value, f"{rule} {high}"))
    if schema.multiple_of and value % schema.multiple_of:
        out.append(_wrong(path, value, f"be a multiple of {schema.multiple_of}"))
    if schema.format == "int32" and not -(2**31) <= value < 2**31:
        out.append(_wrong(path, value, "be of type int32"))


def _validate_list(value: list[Any], schema: Schema, path: str, out: list[Cause]) -> None:
    if schema.max_items is not None and len(value) > schema.max_items:
        message = f"Too many: {len(value)}: must have at most {schema.max_items} items"
        out.append(Cause("FieldValueTooMany", path, message))
    if schema.min_items is not None and len(value) < schema.min_items:
        out.append(_wrong(path, len(value), f"have at least {schema.min_items} items"))
    if schema.items is not None:
        for index, item in enumerate(value):
            validate(item, schema.items, f"{path}[{index}]", out)
    if schema.list_type in {"set", "map"}:
        seen: set[bytes] = set()
        for index, item in enumerate(value):
            named = isinstance(item, dict) and schema.list_type == "map"
            key = {name: item.get(name) for name in schema.list_keys} if named else item
            mark = orjson.dumps(key, option=orjson.OPT_SORT_KEYS)
            if mark in seen:
                out.append(Cause("FieldValueDuplicate", f"{path}[{index}]", f"Duplicate value: {mark.decode()}"))
            seen.add(mark)


def _validate_object(value: dict[str, Any], schema: Schema, path: str, out: list[Cause], root: bool) -> None:
    for name in schema.required:
        if name not in value:
            out.append(Cause("FieldValueRequired", f"{path}.{name}" if path else name, "Required value"))
    if schema.max_properties is not None and len(value) > schema.max_properties:
        message = f"Too many: {len(value)}: must have at most {schema.max_properties} items"
        out.append(Cause("FieldValueTooMany", path, message))
    if schema.min_properties is not None and len(value) < schema.min_properties:
        out.append(_wrong(path, len(value), f"have at least {schema.min_properties} properties"))
    for name, item in value.items():
        if root and name in {"apiVersion", "kind"}:
            continue
        sub = schema.properties.get(name) or schema.additional
        if sub is not None:
            validate(item, sub, f"{path}.{name}" if path else name, out)
