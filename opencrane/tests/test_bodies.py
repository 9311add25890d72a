"""Bodies are strict JSON, strings are trimmed, wrong types and unknown fields are named."""

import json
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import API_TOKEN, ApiClient
from opencrane.api.bodies import MalformedBodyError, parse_json

pytestmark = [pytest.mark.urls("opencrane.tests.urls")]

MIB = 1024 * 1024


def post(api: ApiClient, body: Any) -> Any:
    return api.post("/probe", body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"name": "a",}',
        b'{"name": NaN}',
        b'{"name": "a", "monthlyBudgetUsd": Infinity}',
        b'{"name": "a", "monthlyBudgetUsd": 1e999}',
        b'{"name": "a", "name": "b"}',
        b'{"name": "a", "configOverrides": {"x": [{"y": 1, "y": 2}]}}',
        b'{"name": "a\\u0000"}',
        b'{"name": "a", "configOverrides": {"\\u0000": 1}}',
        b'{"name": "\\ud800"}',
        b'{"name": "\xff"}',
        b'\xef\xbb\xbf{"name": "a"}',
        b'{"name": "a", "configOverrides": {"n": 9223372036854775808}}',
        b'{"name": "a", "configOverrides": {"n": -9223372036854775809}}',
        b'{"name": "a", "configOverrides": {"n": ' + b"9" * 5000 + b"}}",
        b'{"name": "a", "configOverrides": {"n": ' + b"[" * 70 + b"]" * 70 + b"}}",
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        '{"name": "a"}'.encode("utf-16"),
    ],
)
def test_what_cannot_be_stored_is_a_400(api: ApiClient, body: bytes) -> None:
    response = post(api, body)
    assert response.status_code == 400, response.content
    assert response.json()["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("body", [[], "text", 5, None, True])
def test_a_body_that_is_no_object_is_a_400(api: ApiClient, body: Any) -> None:
    response = post(api, body)
    assert response.status_code == 400
    assert "body" in response.json()["fields"]


def test_what_looks_dangerous_but_is_not_goes_through(api: ApiClient) -> None:
    inside = {"n": 2**63 - 1, "m": -(2**63), "f": 0.1, "s": "\\u0000 😀", "deep": [[[[1]]]], "null": None}
    response = post(api, {"name": "a", "configOverrides": inside})
    assert response.status_code == 201
    assert response.json()["config_overrides"] == inside


def test_strings_are_trimmed_and_lists_lose_blanks_and_duplicates(api: ApiClient) -> None:
    body = {"name": " a ", "displayName": "  A B ", "skillAllowlist": [" b", "a", "", "  ", "b", "a "], "team": None}
    response = post(api, body)
    assert response.status_code == 201
    assert response.json() == {"name": "a", "display_name": "A B", "skill_allowlist": ["b", "a"], "team": None}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"name": "a", "displayname": "x"}, "displayname"),
        ({"name": "a", "display_name": "x"}, "display_name"),
        ({"name": "a", "resources": {"gpu": "1"}}, "resources.gpu"),
        ({"name": "a", "resources": {"cpu": "lots"}}, "resources.cpu"),
        ({"name": "a", "resources": "1"}, "resources"),
        ({"name": "a", "resources": None}, "resources"),
        ({"name": "a", "skillAllowlist": ["ok", "", "No Good"]}, "skillAllowlist.2"),
        ({"name": "a", "skillAllowlist": ["ok", 5]}, "skillAllowlist.1"),
        ({"name": "a", "skillAllowlist": list("abcdef")}, "skillAllowlist"),
        ({"name": "a", "skillAllowlist": "a"}, "skillAllowlist"),
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": True}, "name"),
        ({"name": ["a"]}, "name"),
        ({"name": {}}, "name"),
        ({"name": "A"}, "name"),
        ({"name": "a-"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a" * 54}, "name"),
        ({"name": "a", "email": "nobody"}, "email"),
        ({"name": "a", "email": 1}, "email"),
        ({"name": "a", "team": "-x"}, "team"),
        ({"name": "a", "monthlyBudgetUsd": -1}, "monthlyBudgetUsd"),
        ({"name": "a", "monthlyBudgetUsd": "5"}, "monthlyBudgetUsd"),
        ({"name": "a", "monthlyBudgetUsd": True}, "monthlyBudgetUsd"),
        ({"name": "a", "monthlyBudgetUsd": 1e300}, "monthlyBudgetUsd"),
        ({"name": "a", "monthlyBudgetUsd": 0.1234567}, "monthlyBudgetUsd"),
        ({"name": "a", "configOverrides": []}, "configOverrides"),
        ({"name": "a", "enabled": "true"}, "enabled"),
        ({"name": "a", "enabled": 1}, "enabled"),
        ({"name": "a", "count": 1.5}, "count"),
        ({"name": "a", "count": "1"}, "count"),
        ({"name": "a", "count": True}, "count"),
        ({"name": "a", "kind": "c"}, "kind"),
        ({"name": "a", "kind": 1}, "kind"),
        ({"name": "a", "kind": []}, "kind"),
        ({"name": "a", "at": "yesterday"}, "at"),
        ({"name": "a", "at": 5}, "at"),
        ({"name": "a", "at": "0001-01-01T00:00:00+14:00"}, "at"),
        ({"name": "a", "ref": 5}, "ref"),
        ({"name": "a", "ref": "x"}, "ref"),
    ],
)
def test_the_offender_is_named_by_its_path(api: ApiClient, body: Any, path: str) -> None:
    response = post(api, body)
    assert response.status_code == 400, response.content
    assert list(response.json()["fields"]) == [path]


def test_all_offenders_are_named_at_once(api: ApiClient) -> None:
    response = post(api, {"name": "A", "extra": 1, "resources": {"cpu": "x", "memory": "y"}})
    assert set(response.json()["fields"]) == {"name", "extra", "resources.cpu", "resources.memory"}


@pytest.mark.parametrize("amount", [0, 12, 12.5, 100.0, 1e5, 0.000001, 999999999999.99])
def test_money_is_a_number(api: ApiClient, amount: float) -> None:
    response = post(api, {"name": "a", "monthlyBudgetUsd": amount})
    assert response.status_code == 201, response.content
    assert response.json()["monthly_budget_usd"] == amount


@pytest.mark.parametrize("quantity", ["1", "500m", "1.5", "2Gi", "1e3", "1E-2", "128M", "0"])
def test_quantities_of_kubernetes_pass(api: ApiClient, quantity: str) -> None:
    assert post(api, {"name": "a", "resources": {"cpu": quantity}}).status_code == 201


def test_a_body_beyond_the_limit_is_a_413(api: ApiClient) -> None:
    body = {"name": "a", "configOverrides": {"x": "y" * (MIB + 1)}}
    response = post(api, body)
    assert response.status_code == 413
    assert response.json()["code"] == "PAYLOAD_TOO_LARGE"
    assert api.post("/probe/large", json.dumps(body).encode()).status_code == 201


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=JSON)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_parsing_gives_back_the_value_or_refuses(value: Any) -> None:
    try:
        body = json.dumps(value).encode()
        parsed = parse_json(body)
    except MalformedBodyError:
        return
    assert json.dumps(parsed) == json.dumps(value)


@given(body=st.binary(max_size=200) | st.text(alphabet=string.printable + "\x00é😀", max_size=200).map(str.encode))
@settings(deadline=None, max_examples=300)
def test_parsing_never_fails_otherwise(body: bytes) -> None:
    try:
        parse_json(body)
    except MalformedBodyError:
        return


@given(value=st.fixed_dictionaries({"name": st.text() | JSON}, optional={"configOverrides": JSON, "displayName": JSON}))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_is_taken_or_refused(value: Any) -> None:
    response = post(ApiClient(API_TOKEN), value)
    assert response.status_code in (201, 400)
