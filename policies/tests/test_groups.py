"""Groups, members and grants by the API; nothing dangles after a deletion."""

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import ApiClient
from operations.models import AuditEntry
from policies.compiler import compiled, principal_of
from policies.models import Grant, Group, GroupMember
from policies.tests.factories import make_grant, make_group, make_tenant


def test_a_group_by_the_api(api: ApiClient, db: None) -> None:
    anna = make_tenant("anna")
    body = {
        "name": "engineers",
        "description": "Those who build",
        "members": ["anna", "Berta@Example.com", "berta@example.com"],
        "grants": [
            {"payloadId": "handbook", "access": "allow"},
            {"payloadId": "salaries", "access": "deny", "subjectType": "tenant", "subjectName": "anna", "priority": 5},
            {"payloadId": "plans", "scope": "project", "subjectType": "user", "subjectId": "Carla@Example.com"},
        ],
    }
    answer = api.post("/groups", body)
    assert answer.status_code == 201, answer.json()
    group = answer.json()
    assert (group["scope"], group["memberCount"], group["members"]) == ("org", 2, ["anna", "berta@example.com"])
    assert group["grants"] == group["awarenessGrants"]
    seen = [(g["payloadId"], g["subjectType"], g["subjectName"], g["access"], g["scope"]) for g in group["grants"]]
    assert seen == [
        ("handbook", "group", "engineers", "allow", "org"),
        ("plans", "user", "carla@example.com", "allow", "project"),
        ("salaries", "tenant", "anna", "deny", "org"),
    ]
    decisions = compiled(principal_of(anna), "awareness")
    assert [(d.payload_id, d.access) for d in decisions] == [("handbook", "allow"), ("salaries", "deny")]

    path = f"/groups/{group['id']}"
    read = api.get(path)
    assert read.json() == group
    assert api.get(path, headers={"If-None-Match": read["ETag"]}).status_code == 304
    assert api.get("/groups").json() == [group]
    assert api.get("/groups?member=ANNA").json() == []
    assert api.get("/groups?member=Berta@example.com&scope=org&q=ENGIN").json() == [group]

    back = {key: group[key] for key in ("name", "scope", "description", "members", "grants", "awarenessGrants")}
    assert api.put(path, back).json() == group
    assert list(AuditEntry.objects.values_list("action", flat=True)) == ["group.created"]

    changed = api.put(path, {"members": ["anna"], "grants": group["grants"][:1], "description": None}).json()
    assert (changed["members"], changed["grants"], changed["description"]) == (["anna"], group["grants"][:1], None)
    entry = AuditEntry.objects.get(action="group.updated")
    assert entry.before["members"] == ["anna", "berta@example.com"]
    assert {g["payloadId"] for g in entry.before["grants"]} == {"plans", "salaries"}
    assert api.put(path, {"name": "x"}, headers={"If-Match": read["ETag"]}).status_code == 412
    assert api.delete(path).json() == {"id": group["id"], "status": "deleted"}
    assert api.get(path).json()["code"] == "GROUP_NOT_FOUND"
    assert not Grant.objects.exists()
    assert not GroupMember.objects.exists()


def test_names_are_unique_also_when_changed(api: ApiClient, db: None) -> None:
    make_group("one")
    other = make_group("two")
    assert api.post("/groups", {"name": "one"}).json()["code"] == "GROUP_EXISTS"
    assert api.put(f"/groups/{other.pk}", {"name": "one"}).json()["code"] == "GROUP_EXISTS"
    assert api.put(f"/groups/{other.pk}", {"name": "three"}).json()["name"] == "three"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"members": ["anna", "nobody"]}, 422, "members.1"),
        ({"members": ["going"]}, 422, "members.0"),
        ({"members": ["no@address@at.all"]}, 400, "members.0"),
        ({"grants": [{"access": "allow"}]}, 400, "grants.0.payloadId"),
        ({"grants": [{"payloadId": "p", "subjectType": "tenant", "subjectName": "no"}]}, 422, "grants.0.subjectName"),
        ({"grants": [{"payloadId": "p", "subjectType": "tenant"}]}, 400, "grants.0.subjectName"),
        ({"grants": [{"payloadId": "p", "subjectName": "no"}]}, 422, "grants.0.subjectName"),
        ({"grants": [{"payloadId": "p", "subjectId": str(uuid4())}]}, 422, "grants.0.subjectId"),
        (
            {"grants": [{"payloadId": "p"}, {"payloadId": "p", "subjectType": "group", "subjectId": "no"}]},
            422,
            "grants.1.subjectId",
        ),
        ({"awarenessGrants": [{"payloadId": "p", "access": "maybe"}]}, 400, "awarenessGrants.0.access"),
        ({"grants": [{"payloadId": "p", "scope": "team"}]}, 400, "grants.0.scope"),
        ({"grants": [{"payloadId": "p", "priority": 1.5}]}, 400, "grants.0.priority"),
        ({"grants": [{"payloadId": "p", "subject": "x"}]}, 400, "grants.0.subject"),
        ({"grants": [], "awarenessGrants": [{"payloadId": "p"}]}, 400, "awarenessGrants"),
        ({"scope": "galaxy"}, 400, "scope"),
    ],
)
def test_what_names_nothing_is_refused_by_its_field(
    api: ApiClient, db: None, body: Any, status: int, field: str
) -> None:
    make_tenant("anna")
    make_tenant("going", deleting=True)
    answer = api.post("/groups", {"name": "engineers"} | body)
    assert (answer.status_code, list(answer.json()["fields"])) == (status, [field]), answer.json()
    assert answer.json()["code"] == ("REFERENCE_NOT_FOUND" if status == 422 else "VALIDATION_ERROR")
    assert not Group.objects.exists()


def test_deleting_a_group_takes_every_grant_that_names_it(api: ApiClient, db: None) -> None:
    anna = make_tenant("anna")
    gone, stays = make_group("gone", anna), make_group("stays", anna)
    make_grant(gone, "in-anothers-list", listed_in=stays)
    make_grant(gone, "of-a-server", payload_type="mcp-server")
    make_grant(anna, "in-its-list", listed_in=gone)
    kept = make_grant(stays, "kept", listed_in=stays)
    before = api.get(f"/groups/{stays.pk}")
    assert api.delete(f"/groups/{gone.pk}").status_code == 200
    assert list(Grant.objects.all()) == [kept]
    after = api.get(f"/groups/{stays.pk}")
    assert [g["payloadId"] for g in after.json()["grants"]] == ["kept"]
    assert api.put(f"/groups/{stays.pk}", {"name": "x"}, headers={"If-Match": before["ETag"]}).status_code == 412
    assert "2 grants" in AuditEntry.objects.get(action="group.deleted").message


def test_a_new_tenant_of_an_old_name_inherits_nothing(api: ApiClient, db: None) -> None:
    anna = make_tenant("anna")
    group = make_group("engineers", anna)
    make_grant(anna)
    make_grant(group, "theirs", listed_in=group)
    anna.delete()
    again = make_tenant("anna", email="other@example.com")
    assert compiled(principal_of(again), "awareness") == []
    assert api.get(f"/groups/{group.pk}").json()["members"] == []


def test_equal_grants_stay_the_rows_they_were(api: ApiClient, db: None) -> None:
    group = api.post("/groups", {"name": "g", "grants": [{"payloadId": "a"}, {"payloadId": "b"}]}).json()
    old = {grant["payloadId"]: grant["id"] for grant in group["grants"]}
    sent = [{"payloadId": "a"}, {"payloadId": "b", "priority": 1}, {"payloadId": "a", "access": "allow"}]
    new = api.put(f"/groups/{group['id']}", {"grants": sent}).json()["grants"]
    assert [grant["payloadId"] for grant in new] == ["a", "b"]
    assert new[0]["id"] == old["a"]
    assert new[1]["id"] != old["b"]


def test_lists_cost_one_query_whatever_is_in_them(api: ApiClient, db: None) -> None:
    tenants = [make_tenant(f"t{number}") for number in range(5)]
    for number in range(5):
        group = make_group(f"g{number}", *tenants)
        make_grant(tenants[0], listed_in=group)
    with CaptureQueriesContext(connection) as captured:
        page = api.get("/groups?limit=4")
    assert [group["memberCount"] for group in page.json()] == [5] * 4
    assert len(captured) == 1
    assert "next" in page["Link"]


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_an_id_that_is_none_is_404(api: ApiClient, db: None, method: str) -> None:
    for group_id in ("nonsense", str(uuid4())):
        answer = getattr(api, method)(f"/groups/{group_id}", *([{"name": "x"}] if method == "put" else []))
        assert (answer.status_code, answer.json()["code"]) == (404, "GROUP_NOT_FOUND")


def test_viewers_read_and_operators_write(viewer_api: ApiClient, operator_api: ApiClient, db: None) -> None:
    assert viewer_api.get("/groups").status_code == 200
    assert viewer_api.post("/groups", {"name": "g"}).status_code == 403
    assert operator_api.post("/groups", {"name": "g"}).status_code == 201
