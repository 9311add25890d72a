"""A session sees what is both asked for and granted to its principal, and never more."""

from typing import Any

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from awareness.models import SessionScope
from awareness.sessions import intersect
from conftest import API_TOKEN, ApiClient
from operations.models import AuditEntry
from policies.models import Grant, Group, GroupMember
from tenants.models import Tenant
from tests.cluster.pods import make_tenant

URL = "/sessions/agent:main:1/scope"
SCOPES = ("org", "department", "project", "personal")


def grant(payload: str, scope: str = "project", access: str = "allow", **fields: Any) -> Grant:
    subject = {"subject_type": "tenant"} if "tenant" in fields else {"subject_type": "user"}
    if "group" in fields:
        subject = {"subject_type": "group"}
    return Grant.objects.create(
        payload_type="awareness", payload_id=payload, scope=scope, access=access, **subject | fields
    )


def ask(*payloads: str, scope: str = "org", principal: str = "anna") -> dict[str, Any]:
    return {"principal": principal, "scopes": [{"scope": scope, "payloadId": payload} for payload in payloads]}


def pairs(selectors: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(each["payloadId"], each["scope"]) for each in selectors]


@pytest.fixture
def anna(db: None) -> Tenant:
    return make_tenant("anna")


def test_a_session_gets_what_is_granted_with_the_scope_of_the_grant(api: ApiClient, anna: Tenant) -> None:
    grant("wiki", "project", tenant=anna)
    grant("hr", "personal", tenant=anna)
    answer = api.put(URL, ask("wiki", "payroll", "wiki", "payroll"))
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert (body["sessionKey"], body["principal"]) == ("agent:main:1", "anna")
    assert pairs(body["scopes"]) == [("wiki", "project")]
    assert pairs(body["rejected"]) == [("payroll", "org")]
    shown = api.get(URL).json()
    assert "rejected" not in shown
    assert shown == {name: value for name, value in body.items() if name != "rejected"}
    assert api.put(URL, ask("wiki")).json()["updatedAt"] == body["updatedAt"]
    assert AuditEntry.objects.filter(action="session_scope.set").count() == 1


@pytest.mark.parametrize(
    "body",
    [ask("payroll"), ask("wiki", principal="nobody"), ask(), ask("wiki", principal="x@example.com"), ask("secret")],
)
def test_nothing_granted_is_refused_and_changes_nothing(api: ApiClient, anna: Tenant, body: dict[str, Any]) -> None:
    grant("wiki", tenant=anna)
    grant("secret", tenant=anna)
    grant("secret", access="deny", priority=5, tenant=anna)
    assert api.put(URL, ask("wiki")).status_code == 200
    before = api.get(URL).json()
    answer = api.put(URL, body)
    assert (answer.status_code, answer.json()["code"]) == (403, "OVER_SCOPE")
    assert api.get(URL).json() == before
    assert AuditEntry.objects.count() == 1


def test_what_is_taken_back_is_not_seen_any_more(api: ApiClient, anna: Tenant) -> None:
    wiki = grant("wiki", "org", tenant=anna)
    grant("hr", "personal", tenant=anna)
    api.put(URL, ask("wiki", "hr"))
    wiki.delete()
    assert pairs(api.get(URL).json()["scopes"]) == [("hr", "personal")]
    grant("wiki", "personal", tenant=anna)
    assert pairs(api.get(URL).json()["scopes"]) == [("wiki", "personal"), ("hr", "personal")]


def test_grants_of_groups_and_people_count(api: ApiClient, anna: Tenant) -> None:
    group = Group.objects.create(name="researchers")
    GroupMember.objects.create(group=group, tenant=anna)
    grant("library", "department", group=group)
    grant("diary", "personal", user="anna@example.com")
    assert pairs(api.put(URL, ask("library", "diary")).json()["scopes"]) == [
        ("library", "department"), ("diary", "personal")
    ]  # fmt: skip
    other = api.put("/sessions/other/scope", ask("library", "diary", principal="Anna@Example.com")).json()
    assert (other["principal"], pairs(other["scopes"])) == ("anna@example.com", [("diary", "personal")])


def test_two_tenants_sessions_never_mix(api: ApiClient, anna: Tenant) -> None:
    bert = make_tenant("bert")
    grant("wiki", tenant=anna)
    grant("shop", tenant=bert)
    api.put(URL, ask("wiki", "shop"))
    assert pairs(api.get(URL).json()["scopes"]) == [("wiki", "project")]
    taken_over = api.put(URL, ask("wiki", "shop", principal="bert")).json()
    assert (taken_over["principal"], pairs(taken_over["scopes"])) == ("bert", [("shop", "project")])
    assert AuditEntry.objects.latest("id").before == {
        "principal": "anna", "scopes": [{"scope": "project", "payloadId": "wiki"}]
    }  # fmt: skip


def test_clearing(api: ApiClient, anna: Tenant) -> None:
    grant("wiki", tenant=anna)
    api.put(URL, ask("wiki"))
    assert api.delete(URL).json() == {"sessionKey": "agent:main:1", "cleared": True}
    for answer in (api.delete(URL), api.get(URL)):
        assert (answer.status_code, answer.json()["code"]) == (404, "SESSION_SCOPE_NOT_FOUND")
    assert list(AuditEntry.objects.order_by("id").values_list("action", "tenant")) == [
        ("session_scope.set", "anna"), ("session_scope.cleared", "anna")
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["a%2Fb", "ünï", "x" * 512, "a b", "%25", "scope"])
def test_keys_of_sessions_are_any_text(api: ApiClient, anna: Tenant, key: str) -> None:
    grant("wiki", tenant=anna)
    assert api.put(f"/sessions/{key}/scope", ask("wiki")).status_code == 200
    assert api.get(f"/sessions/{key}/scope").status_code == 200
    assert api.delete(f"/sessions/{key}/scope").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"principal": "anna"}, "scopes"), ({"scopes": []}, "principal"), (ask("wiki") | {"more": 1}, "more"),
        (ask("wiki", scope="galaxy"), "scopes.0.scope"), (ask("wiki", scope="team"), "scopes.0.scope"),
        (ask(""), "scopes.0.payloadId"), ({"principal": "anna", "scopes": ["wiki"]}, "scopes.0"),
        ({"principal": "anna", "scopes": {}}, "scopes"), ({"principal": 5, "scopes": []}, "principal"),
    ],
)  # fmt: skip
def test_what_is_no_scope_is_refused_by_name(api: ApiClient, anna: Tenant, body: Any, field: str) -> None:
    answer = api.put(URL, body)
    assert answer.status_code == 400, answer.content
    assert all(path.startswith(field) for path in answer.json()["fields"]), answer.json()


def test_too_long_keys_are_refused_or_unknown(api: ApiClient, anna: Tenant) -> None:
    path = f"/sessions/{'x' * 513}/scope"
    assert api.put(path, ask("wiki")).status_code == 400
    assert api.get(path).status_code == 404
    assert api.delete(path).status_code == 404


def test_viewers_read_and_do_not_write(api: ApiClient, viewer_api: ApiClient, anna: Tenant) -> None:
    grant("wiki", tenant=anna)
    api.put(URL, ask("wiki"))
    assert viewer_api.get(URL).status_code == 200
    assert viewer_api.put(URL, ask("wiki")).status_code == 403
    assert viewer_api.delete(URL).status_code == 403


def test_a_tenant_that_is_going_is_no_principal_and_a_new_one_inherits_nothing(api: ApiClient, anna: Tenant) -> None:
    grant("wiki", tenant=anna)
    api.put(URL, ask("wiki"))
    Tenant.objects.filter(pk=anna.pk).update(deleting=True)
    assert api.put(URL, ask("wiki")).json()["code"] == "OVER_SCOPE"
    anna.delete()
    make_tenant("anna")
    assert api.get(URL).status_code == 404


_PAYLOADS = st.sampled_from([f"p{number}" for number in range(5)])
_GRANTS = st.lists(
    st.tuples(
        _PAYLOADS, st.sampled_from(SCOPES), st.sampled_from(["allow", "deny"]), st.integers(-1, 1),
        st.sampled_from(["tenant", "user", "group", "stranger"]),
    ),
    max_size=10,
)  # fmt: skip
_WANTED = st.lists(st.tuples(_PAYLOADS, st.sampled_from(SCOPES)), max_size=8)


class NeverMore(TestCase):
    """Whatever is granted and whatever is asked for."""

    @settings(max_examples=60, deadline=None)
    @given(_GRANTS, _WANTED)
    def test_a_session_never_exceeds_what_is_granted(
        self, grants: list[tuple[str, str, str, int, str]], wanted: list[tuple[str, str]]
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE policies_grant, policies_group, awareness_sessionscope, tenants_tenant CASCADE")
        anna, bert = make_tenant("anna"), make_tenant("bert")
        group = Group.objects.create(name="g")
        GroupMember.objects.create(group=group, tenant=anna)
        subjects: dict[str, dict[str, Any]] = {
            "tenant": {"tenant": anna},
            "user": {"user": "anna@example.com"},
            "group": {"group": group},
            "stranger": {"tenant": bert},
        }
        mine: dict[str, list[tuple[int, bool, str]]] = {}
        for payload, scope, access, priority, subject in grants:
            grant(payload, scope, access, priority=priority, **subjects[subject])
            if subject != "stranger":
                mine.setdefault(payload, []).append((priority, access == "deny", scope))
        # Slow and obvious: of the grants of the highest priority none denies, and their scopes are what may come out.
        allowed: dict[str, set[str]] = {}
        for payload, found in mine.items():
            best = [each for each in found if each[0] == max(each[0] for each in found)]
            if not any(is_deny for _, is_deny, _ in best):
                allowed[payload] = {scope for _, _, scope in best}
        body = {"principal": "anna", "scopes": [{"scope": scope, "payloadId": payload} for payload, scope in wanted]}
        api = ApiClient(API_TOKEN)
        answer = api.put(URL, body)
        expected = {payload for payload, _ in wanted} & set(allowed)
        if not expected:
            assert (answer.status_code, answer.json()["code"]) == (403, "OVER_SCOPE")
            assert not SessionScope.objects.exists()
            return
        for shown in (answer.json(), api.get(URL).json()):
            assert {each["payloadId"] for each in shown["scopes"]} == expected
            assert all(each["scope"] in allowed[each["payloadId"]] for each in shown["scopes"])
        rejected = {(each["payloadId"], each["scope"]) for each in answer.json()["rejected"]}
        assert rejected == {(payload, scope) for payload, scope in wanted if payload not in expected}


@given(_WANTED, st.dictionaries(_PAYLOADS, st.sampled_from(SCOPES)))
def test_intersecting_loses_nothing_and_adds_nothing(wanted: list[tuple[str, str]], granted: dict[str, str]) -> None:
    taken, rejected = intersect([{"scope": scope, "payloadId": payload} for payload, scope in wanted], granted)
    assert all(granted[each["payloadId"]] == each["scope"] for each in taken)
    assert {each["payloadId"] for each in taken} | {each["payloadId"] for each in rejected} == {
        payload for payload, _ in wanted
    }
    assert not {each["payloadId"] for each in rejected} & set(granted)
    assert len({each["payloadId"] for each in taken}) == len(taken)
