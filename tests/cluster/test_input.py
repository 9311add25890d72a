"""Whatever comes in is either done or refused by name; never a crash."""

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from conftest import ApiClient
from tenants.models import Tenant
from tests.cluster.conftest import ANNA
from tests.cluster.kube import Kubectl

pytestmark = pytest.mark.cluster

words = st.text(max_size=70) | st.sampled_from(
    ["", " ", "\x00", "drift", "repair", "-a", "a-", "A", "ü", "a" * 53, "a" * 54]
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "name", "displayName", "email", "team", "monthlyBudgetUsd", "resources", "skillAllowlist", "policyRef",
    "configOverrides", "openclawVersion", "openclawImage", "clusterTenantRef", "mcpPolicy", "awarenessWave",
    "suspended", "bogus",
]  # fmt: skip
quantities: st.SearchStrategy[Any] = st.sampled_from(
    ["1", "500m", "1Gi", "1.5", "1e3", "-1", "1 Gi", "Gi", "", "1" * 40, 2, -2, 0.5, None, []]
)
bodies = st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6) | st.fixed_dictionaries(
    {"resources": st.fixed_dictionaries({}, optional={"cpu": quantities, "memory": quantities, "gpu": quantities})}
)


def clean(body: Any) -> Any:
    """What JSON can carry: floats that are no numbers and lone surrogates are the parser's own tests."""
    if isinstance(body, dict):
        return {clean(key): clean(value) for key, value in body.items()}
    if isinstance(body, list):
        return [clean(item) for item in body]
    if isinstance(body, float) and not math.isfinite(body):
        return None
    if isinstance(body, str):
        return body.encode("utf-8", "replace").decode()
    return body


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
@example(body={"configOverrides": {"n": 10**40}})
@example(body={"configOverrides": {"x": [[[[[[[[[[["deep"]]]]]]]]]]]}})
@example(body={"monthlyBudgetUsd": 1e300})
@example(body={"monthlyBudgetUsd": -0.0})
@example(body={"email": '"a b"@example.com'})
@example(body={"skillAllowlist": [" a ", "", "a", None]})
def test_any_change_is_done_or_refused(api: ApiClient, kubectl: Kubectl, body: dict[str, Any]) -> None:
    if not Tenant.objects.filter(name="anna").exists():
        api.post("/tenants", ANNA)
    answer = api.put("/tenants/anna", clean(body))
    assert answer.status_code in {200, 400, 422}, answer.content
    if answer.status_code == 400:
        assert answer.json()["code"] == "VALIDATION_ERROR"
    assert api.get("/tenants/anna").status_code == 200
    assert api.get("/tenants").status_code == 200


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=words | st.integers() | st.none(), rest=st.dictionaries(st.sampled_from(FIELDS[1:]), anything, max_size=2))
def test_any_creation_is_done_or_refused(api: ApiClient, kubectl: Kubectl, name: Any, rest: dict[str, Any]) -> None:
    body = clean({"displayName": "X", "email": "x@example.com", "name": name} | rest)
    answer = api.post("/tenants", body)
    assert answer.status_code in {201, 400, 409, 422}, answer.content
    if answer.status_code == 201:
        assert kubectl.spec(body["name"].strip())["displayName"] == body["displayName"].strip()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.dictionaries(st.sampled_from(["org", "team", "project", "personal", "x"]), anything, max_size=5) | anything
)
def test_any_datasets_are_done_or_refused(api: ApiClient, kubectl: Kubectl, body: Any) -> None:
    if not Tenant.objects.filter(name="anna").exists():
        api.post("/tenants", ANNA)
    answer = api.put("/tenants/anna/datasets", clean(body))
    assert answer.status_code in {200, 400}, answer.content


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.dictionaries(
        st.sampled_from(["q", "team", "phase", "sync", "policyRef", "email", "limit", "cursor", "dryRun"]), words
    )
)
def test_any_query_is_answered_or_refused(api: ApiClient, kubectl: Kubectl, query: dict[str, str]) -> None:
    query = clean(query)
    answer = api.get("/tenants", query)
    assert answer.status_code in {200, 400}, answer.content


def test_each_offender_is_named(api: ApiClient, kubectl: Kubectl) -> None:
    answer = api.post(
        "/tenants",
        {
            "name": "No",
            "displayName": " ",
            "email": "nobody",
            "team": "a b",
            "monthlyBudgetUsd": -1,
            "resources": {"cpu": "lots", "gpu": "1"},
            "skillAllowlist": [5],
            "mcpPolicy": {"allow": "x"},
            "typo": 1,
        },
    )
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {
        "name", "displayName", "email", "team", "monthlyBudgetUsd", "resources.cpu", "resources.gpu",
        "skillAllowlist.0", "mcpPolicy.allow", "typo",
    }  # fmt: skip


def test_references_to_nothing_are_a_422_that_names_them(api: ApiClient, kubectl: Kubectl) -> None:
    answer = api.post("/tenants", ANNA | {"policyRef": "none", "clusterTenantRef": "nobody"})
    assert (answer.status_code, answer.json()["code"]) == (422, "REFERENCE_NOT_FOUND")
    assert set(answer.json()["fields"]) == {"policyRef", "clusterTenantRef"}
    assert not Tenant.objects.exists()
