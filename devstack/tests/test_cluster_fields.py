"""The algebra behind managedFields, where a mistake would show only long after."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devstack.cluster import apply, fields
from devstack.cluster.fields import ANY, Type, listing, mapping

LEAF: dict[str, Any] = {}
ITEMS = listing(mapping(), "name")
ROOT = mapping(spec=mapping(items=ITEMS, labels=Type("map", element=ANY), whole=mapping(atomic=True)))

names = st.sampled_from(["a", "b", "c"])
values = st.recursive(
    st.integers(0, 2) | st.booleans() | st.none(), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6
)
objects = st.dictionaries(names, values, max_size=3)
sets = objects.map(lambda obj: fields.field_set(obj, ANY) or {})


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"spec": {"a": 1}}, {"f:spec": {"f:a": LEAF}}),
        ({"spec": {"labels": {"x": "1"}}}, {"f:spec": {"f:labels": {"f:x": LEAF}}}),
        ({"spec": {"labels": {}}}, {"f:spec": {"f:labels": LEAF}}),
        ({"spec": {"whole": {"a": {"b": 1}}}}, {"f:spec": {"f:whole": LEAF}}),
        ({"spec": {"items": []}}, None),
        (
            {"spec": {"items": [{"name": "x", "v": 1}]}},
            {"f:spec": {"f:items": {'k:{"name":"x"}': {".": LEAF, "f:name": LEAF, "f:v": LEAF}}}},
        ),
    ],
)
def test_field_set(value: Any, wanted: Any) -> None:
    assert fields.field_set(value, ROOT) == wanted


@given(sets, sets)
def test_set_algebra(left: fields.Set, right: fields.Set) -> None:
    ours, theirs = set(fields.paths(left)), set(fields.paths(right))
    assert set(fields.paths(fields.union(left, right))) == ours | theirs
    assert set(fields.paths(fields.intersection(left, right))) == ours & theirs
    assert set(fields.paths(fields.difference(left, right))) == ours - theirs
    assert fields.contains(fields.union(left, right), right)


@given(objects, objects)
@example({"a": None}, {"a": {}})
@example({"a": {}}, {"a": None})
def test_comparison_covers_what_changed(old: dict[str, Any], new: dict[str, Any]) -> None:
    change = fields.compare(old, new, ANY)
    touched = bool(change.added or change.modified or change.removed)
    assert touched is not fields.same(old, new)


@given(objects, objects)
def test_merge_carries_the_configuration(live: dict[str, Any], config: dict[str, Any]) -> None:
    merged = apply.merge(live, config, ANY)
    assert config.keys() | live.keys() == merged.keys()
    assert all(fields.same(merged[key], value) for key, value in config.items() if not isinstance(value, dict))
    assert fields.same(apply.merge(merged, config, ANY), merged)


def test_merged_list_keeps_both_orders() -> None:
    live = [{"name": "a"}, {"name": "x"}, {"name": "c"}]
    config = [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]
    assert [item["name"] for item in apply.merge(live, config, ITEMS)] == ["a", "x", "b", "c", "d"]


def test_emptied_structure_goes_with_its_last_field() -> None:
    last = {"f:spec": {"f:labels": {"f:a": LEAF}}}
    gone = fields.named_as_members(last, ROOT)
    assert fields.remove_fields({"spec": {"labels": {"a": "1"}}}, gone, ROOT) is None
    assert fields.remove_fields({"spec": {"labels": {"a": "1"}, "b": 2}}, last, ROOT) == {"spec": {"b": 2}}


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [(1, 1.0, True), (1, True, False), (0, False, False), ([1], [True], False), ({"a": 1}, {"a": 1, "b": None}, False)],
)
def test_equality_is_that_of_json(left: Any, right: Any, equal: bool) -> None:
    assert fields.same(left, right) is equal
