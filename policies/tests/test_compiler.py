"""The compiler agrees with a slow, plain reading of its rule, on thousands of sets of grants."""

import datetime
import functools
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import compiler
from policies.compiler import Decision, Principal
from policies.models import Grant, Group, GroupMember
from policies.tests.factories import make_grant, make_group, make_tenant
from tenants.models import Tenant

TENANTS, GROUPS, PAYLOADS = 4, 4, 3
EMAILS = ["a@example.com", "b@example.com", "a@example.com", "D@Example.com"]
DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

subjects = st.one_of(
    st.tuples(st.just("tenant"), st.integers(0, TENANTS - 1)),
    st.tuples(st.just("group"), st.integers(0, GROUPS - 1)),
    st.tuples(st.just("user"), st.sampled_from(["a@example.com", "b@example.com", "d@example.com"])),
)
grants = st.tuples(
    subjects,
    st.sampled_from(["awareness", "mcp-server"]),
    st.integers(0, PAYLOADS - 1),
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["org", "personal"]),
    st.integers(-1, 1),
    st.integers(0, 2),
)
members = st.one_of(st.integers(0, TENANTS - 1), st.sampled_from(["a@example.com", "d@example.com"]))
worlds = st.tuples(
    st.lists(st.lists(members, max_size=3, unique=True), min_size=GROUPS, max_size=GROUPS),
    st.lists(grants, max_size=30),
)


def decide(grants: list[Grant]) -> Grant:
    """Which of the grants of one payload counts, compared pair by pair."""

    def stronger(one: Grant, other: Grant) -> Grant:
        if one.priority != other.priority:
            return one if one.priority > other.priority else other
        if one.access != other.access:
            return one if one.access == "deny" else other
        if one.created_at != other.created_at:
            return one if one.created_at > other.created_at else other
        return one if str(one.pk) < str(other.pk) else other

    return functools.reduce(stronger, grants)


def reference(tenant: Tenant, payload_type: str, members: list[GroupMember], grants: list[Grant]) -> list[Decision]:
    email = tenant.email.lower()
    mine = {m.group_id for m in members if m.tenant_id == tenant.pk or (m.email and m.email == email)}
    by_payload: dict[str, list[Grant]] = {}
    for grant in grants:
        is_mine = grant.tenant_id == tenant.pk or grant.group_id in mine or (grant.user and grant.user == email)
        if grant.payload_type == payload_type and is_mine:
            by_payload.setdefault(grant.payload_id, []).append(grant)
    winners = [decide(same) for _, same in sorted(by_payload.items())]
    return [Decision(w.payload_id, w.access, w.scope, w.pk, w.priority) for w in winners]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(worlds, min_size=1, max_size=8))
def test_it_agrees_with_the_slow_reference(db: None, batch: list[Any]) -> None:
    with transaction.atomic():
        tenants, all_members, all_grants = [], [], []
        for number, (groups, given_grants) in enumerate(batch):
            rows = [
                Tenant(name=f"t{number}-{index}", display_name="T", email=f"{number}{email}")
                for index, email in enumerate(EMAILS)
            ]
            group_rows = [Group(name=f"g{number}-{index}") for index in range(GROUPS)]
            Tenant.objects.bulk_create(rows)
            Group.objects.bulk_create(group_rows)
            tenants += rows
            all_members += [
                GroupMember(group=group_rows[index], tenant=rows[member])
                if isinstance(member, int)
                else GroupMember(group=group_rows[index], email=f"{number}{member}")
                for index, who in enumerate(groups)
                for member in who
            ]
            for (kind, who), payload_type, payload, access, scope, priority, age in given_grants:
                all_grants.append(
                    Grant(
                        payload_type=payload_type,
                        payload_id=f"p{payload}",
                        subject_type=kind,
                        tenant=rows[who] if kind == "tenant" else None,
                        group=group_rows[who] if kind == "group" else None,
                        user=f"{number}{who}" if kind == "user" else "",
                        access=access,
                        scope=scope,
                        priority=priority,
                        created_at=DAY + datetime.timedelta(microseconds=age),
                    )
                )
        GroupMember.objects.bulk_create(all_members)
        Grant.objects.bulk_create(all_grants)
        for tenant in tenants:
            principal = compiler.principal_of(tenant)
            both = compiler.compiled_types(principal, ["awareness", "mcp-server"])
            for payload_type, found in both.items():
                assert found == reference(tenant, payload_type, all_members, all_grants)
                for decision in found[:1]:
                    first = compiler.considered(principal, payload_type, decision.payload_id)[0]
                    assert first.grant_id == decision.grant_id
        transaction.set_rollback(True)


def test_somebody_without_a_tenant_is_met_by_e_mail_alone(db: None) -> None:
    anna = make_tenant("anna")
    make_grant(anna, "of-the-tenant")
    make_grant("Anna@Example.com", "of-the-person")
    make_grant(make_group("everyone", "ANNA@example.com"), "of-the-group")
    person = Principal(tenant_id=None, tenant_name="", email="anna@EXAMPLE.com")
    assert [d.payload_id for d in compiler.compiled(person, "awareness")] == ["of-the-group", "of-the-person"]
    assert compiler.compiled(Principal(None, "", ""), "awareness") == []
    nobody = Principal(UUID(int=0), "nobody", "nobody@example.com")
    assert compiler.compiled(nobody, "awareness") == []


def test_it_says_by_which_way_a_grant_meets(db: None) -> None:
    anna = make_tenant("anna")
    make_grant(anna, priority=3)
    make_grant("anna@example.com", priority=2)
    make_grant(make_group("by-name", anna), priority=1)
    make_grant(make_group("by-mail", "anna@example.com"))
    found = compiler.considered(compiler.principal_of(anna), "awareness", "handbook")
    assert [(c.via, c.group_name, c.member) for c in found] == [
        ("tenant", "", ""),
        ("user", "", ""),
        ("group", "by-name", "anna"),
        ("group", "by-mail", "anna@example.com"),
    ]


def test_one_query_whatever_the_number_of_groups(db: None) -> None:
    anna = make_tenant("anna")
    for number in range(30):
        make_grant(make_group(f"g{number}", anna), f"p{number:02}")
    with CaptureQueriesContext(connection) as captured:
        assert len(compiler.compiled(compiler.principal_of(anna), "awareness")) == 30
    assert len(captured) == 1


def test_the_last_word_goes_down_the_list(db: None) -> None:
    anna = make_tenant("anna")
    principal = compiler.principal_of(anna)
    old = make_grant(anna, scope="org", created_at=DAY)
    assert compiler.compiled(principal, "awareness")[0].grant_id == old.pk
    newer = make_grant(anna, scope="personal", created_at=DAY + datetime.timedelta(seconds=1))
    assert compiler.compiled(principal, "awareness")[0].grant_id == newer.pk
    deny = make_grant(anna, access="deny", created_at=DAY - datetime.timedelta(days=9))
    assert compiler.compiled(principal, "awareness")[0].grant_id == deny.pk
    louder = make_grant(anna, priority=1)
    assert compiler.compiled(principal, "awareness")[0].grant_id == louder.pk
    twin = make_grant(anna, priority=1, created_at=louder.created_at)
    assert compiler.compiled(principal, "awareness")[0].grant_id == min(louder.pk, twin.pk)


@pytest.mark.parametrize("payload_type", ["awareness", "mcp-server", "skill-bundle"])
def test_payload_types_do_not_mix(db: None, payload_type: str) -> None:
    anna = make_tenant("anna")
    make_grant(anna, payload_type=payload_type)
    for other in ("awareness", "mcp-server", "skill-bundle"):
        assert len(compiler.compiled(compiler.principal_of(anna), other)) == (other == payload_type)
