"""Groups: make, change, delete; members and grants go with them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from opencrane.actor import Actor
from opencrane.errors import ReferenceNotFoundError
from opencrane.rows import REQUIRED, Fields, unique
from operations.services import audit
from policies import selectors
from policies.errors import GroupExistsError
from policies.models import Grant, Group, GroupMember, Scope
from policies.services import propagation
from policies.services.grants import locked_tenants, replace_grants, resolve_grants

Precondition = Callable[[int], None]
Values = dict[str, Any]
_FIELDS = Fields({"name": REQUIRED, "scope": Scope.ORG.value, "description": ""})
_record = audit.Trail("group", "Group").record


def create_group(*, values: Values, actor: Actor) -> UUID:
    """Make a group and return its id.

    Args:
        values: `name`, and optionally `scope`, `description`, `members` (names of tenants and e-mail addresses) and
            `grants` (as `resolve_grants` takes them), checked by the caller.

    Raises:
        GroupExistsError: the name is taken.
        ReferenceNotFoundError, InvalidError: a member or a grant names what does not exist, or makes no sense.
    """
    group = Group()
    _FIELDS.fill(group, values)
    with _named(group.name), transaction.atomic(durable=True):
        group.save(force_insert=True)
        after = _FIELDS.shown(group) | _set_parts(group, values)[1]
        _record(group.name, "created", f"Created group {group.name}.", None, after, actor)
    return group.pk


def update_group(
    *, group_id: UUID | None, changes: Values, precondition: Precondition = lambda _: None, actor: Actor
) -> None:
    """Set what `changes` holds; None clears. A list of members or grants replaces the old one whole.

    Changing nothing writes and audits nothing.

    Args:
        precondition: called with the group's generation under its lock; raises when the caller's view is stale.

    Raises:
        GroupNotFoundError, PreconditionFailedError, and as `create_group`.
    """
    with _named(changes.get("name")), transaction.atomic(durable=True):
        group = selectors.group_for_update(group_id)
        precondition(group.generation)
        before, after = _FIELDS.change(group, changes)
        gone, new = _set_parts(group, changes)
        before |= gone
        after |= new
        if not (before or after):
            return
        group.generation += 1
        group.updated_at = timezone.now()
        group.save()
        changed = ", ".join(sorted({*before, *after}))
        _record(group.name, "updated", f"Changed {changed} of group {group.name}.", before, after, actor)


def delete_group(*, group_id: UUID | None, precondition: Precondition = lambda _: None, actor: Actor) -> None:
    """Remove a group, its members, its list of grants, and every grant that names it, in whichever list it stands.

    Raises:
        GroupNotFoundError, PreconditionFailedError.
    """
    with transaction.atomic(durable=True):
        group = selectors.group_for_update(group_id)
        precondition(group.generation)
        before = {"name": group.name, "scope": group.scope, "members": _members(group)}
        listed = Grant.objects.filter(listed_in=group)
        propagation.subjects_changed(
            group_ids=[group.pk, *listed.filter(group__isnull=False).values_list("group", flat=True)],
            tenant_ids=list(listed.filter(tenant__isnull=False).values_list("tenant", flat=True)),
            emails=list(listed.exclude(user="").values_list("user", flat=True)),
        )
        naming = Grant.objects.filter(group=group)
        # Lists of others that lose a grant have changed, too.
        losing = Group.objects.filter(grants__in=naming).exclude(pk=group.pk)
        Group.objects.filter(pk__in=list(losing.values_list("pk", flat=True))).update(generation=F("generation") + 1)
        lost = naming.count()
        group.delete()
        message = f"Deleted group {group.name}" + (f" and {lost} grants that named it." if lost else ".")
        _record(group.name, "deleted", message, before, None, actor)


def _set_parts(group: Group, values: Values) -> tuple[Values, Values]:
    """Replace members and grants where `values` has them; what went and what came."""
    before: Values = {}
    after: Values = {}
    if "members" in values:
        old = _members(group)
        new = _set_members(group, values["members"] or [])
        if old != new:
            before["members"], after["members"] = old, new
    if "grants" in values:
        wanted = resolve_grants(
            values["grants"] or [], payload_type=Grant.PayloadType.AWARENESS, scope=group.scope, group=group
        )
        gone, came = replace_grants(Grant.objects.filter(listed_in=group), wanted)
        if gone or came:
            before["grants"], after["grants"] = gone, came
    return {key: value for key, value in before.items() if value}, {key: value for key, value in after.items() if value}


def _members(group: Group) -> list[str]:
    found = GroupMember.objects.filter(group=group).values_list("tenant__name", "email")
    return sorted(name or email for name, email in found)


def _set_members(group: Group, members: Sequence[str]) -> list[str]:
    """Make the group hold these tenants and addresses; members that stay keep their rows."""
    tenants = locked_tenants({member for member in members if "@" not in member})
    missing = {
        f"members.{index}": [f"There is no tenant {member}; people are named by e-mail address."]
        for index, member in enumerate(members)
        if "@" not in member and member not in tenants
    }
    if missing:
        raise ReferenceNotFoundError(fields=missing)
    wanted = {(tenants[member][0], "") if "@" not in member else (None, member.lower()) for member in members}
    present = {(row.tenant_id, row.email): row.pk for row in GroupMember.objects.filter(group=group)}
    gone = [key for key in present if key not in wanted]
    new = [key for key in wanted if key not in present]
    GroupMember.objects.filter(pk__in=[present[key] for key in gone]).delete()
    GroupMember.objects.bulk_create(
        GroupMember(group=group, tenant_id=tenant_id, email=email) for tenant_id, email in new
    )
    touched = [*gone, *new]
    propagation.subjects_changed(
        tenant_ids=[tenant_id for tenant_id, _ in touched if tenant_id], emails=[email for _, email in touched if email]
    )
    names = dict(tenants.values())
    return sorted(names[tenant_id] if tenant_id else email for tenant_id, email in wanted)


def _named(name: str | None) -> AbstractContextManager[None]:
    return unique("group_name_key", GroupExistsError(f"There is a group named {name} already."))
