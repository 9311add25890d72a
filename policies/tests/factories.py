"""Rows for tests, valid by default."""

from typing import Any

from policies.models import Grant, Group, GroupMember
from tenants.models import Tenant


def make_tenant(name: str = "anna", **values: Any) -> Tenant:
    """A tenant as a confirmed write leaves it, without going through the cluster."""
    confirmed: dict[str, Any] = {"generation": 1, "observed_generation": 1}
    defaults = {"display_name": name.title(), "email": f"{name}@example.com"} | confirmed
    return Tenant.objects.create(name=name, **defaults | values)


def make_group(name: str = "engineers", *members: Tenant | str, **values: Any) -> Group:
    """A group of tenants (rows) and e-mail addresses (text)."""
    group = Group.objects.create(name=name, **values)
    for member in members:
        if isinstance(member, Tenant):
            GroupMember.objects.create(group=group, tenant=member)
        else:
            GroupMember.objects.create(group=group, email=member.lower())
    return group


def make_grant(subject: Tenant | Group | str, payload_id: str = "handbook", **values: Any) -> Grant:
    """A grant of an awareness dataset unless `payload_type` says otherwise."""
    defaults: dict[str, Any] = {"payload_type": "awareness", "access": "allow", "scope": "org"}
    match subject:
        case Tenant():
            defaults |= {"subject_type": "tenant", "tenant": subject}
        case Group():
            defaults |= {"subject_type": "group", "group": subject}
        case _:
            defaults |= {"subject_type": "user", "user": subject.lower()}
    return Grant.objects.create(payload_id=payload_id, **defaults | values)
