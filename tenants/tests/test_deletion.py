"""What goes with a tenant's row, in one statement."""

from typing import Any

import pytest
from django.db import connection
from django.db.models import ForeignObjectRel
from django.utils import timezone

from awareness.models import Participation, SessionScope
from cluster import rows
from operations.models import Job
from policies.models import AwarenessPush, Grant, Group, GroupMember
from policies.tests.factories import make_tenant
from tenants.models import DatasetMembership, Tenant


def named_in(tenant: Tenant) -> None:
    """A row that refers to the tenant in every table that can."""
    group = Group.objects.create(name=f"of-{tenant.name}")
    GroupMember.objects.create(group=group, tenant=tenant)
    Grant.objects.create(
        payload_type="awareness", payload_id="d", subject_type="tenant", tenant=tenant, access="allow", scope="org"
    )
    AwarenessPush.objects.create(tenant=tenant)
    DatasetMembership.objects.create(tenant=tenant, scope="team", dataset="d")
    Participation.objects.create(tenant=tenant, last_seen_at=timezone.now())
    SessionScope.objects.create(session_key=tenant.name, principal=tenant.name, tenant=tenant, scopes=[])


def referring() -> list[tuple[Any, str]]:
    """Every model and field that can refer to a tenant."""
    found = Tenant._meta.get_fields(include_hidden=True)
    return [(each.related_model, each.field.name) for each in found if isinstance(each, ForeignObjectRel)]


@pytest.mark.django_db
def test_a_row_takes_along_what_refers_to_it_and_nothing_else(django_assert_num_queries: Any) -> None:
    anna, bert = make_tenant("anna"), make_tenant("bert")
    named_in(anna)
    named_in(bert)
    key = anna.pk
    with django_assert_num_queries(1):
        rows.delete(anna)
    connection.check_constraints()
    assert anna.pk == key
    assert [tenant.name for tenant in Tenant.objects.all()] == ["bert"]
    assert referring()
    for model, column in referring():
        left = model.objects.values_list(column, flat=True)
        assert list(left) == [bert.pk], f"{model.__name__} was not planted, or went wrong"


@pytest.mark.django_db
def test_what_one_statement_cannot_do_is_left_to_the_orm() -> None:
    first = Job.objects.create(kind="tenants.repair")
    again = Job.objects.create(kind="tenants.repair", retry_of=first)
    key = first.pk
    rows.delete(first)
    again.refresh_from_db()
    assert again.retry_of is None
    assert first.pk == key
