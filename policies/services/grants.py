"""Lists of grants, as groups, MCP servers and skills have them: resolve whom they name, and replace a list whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from opencrane.api.params import parse_uuid
from opencrane.errors import InvalidError, ReferenceNotFoundError
from policies.models import Grant, Group
from policies.services import propagation


@dataclass
class Subjects:
    """Rows that grants name, by id and by name; locked so that none of them is deleted before the commit."""

    groups: dict[str, tuple[UUID, str]] = field(default_factory=dict)
    tenants: dict[str, tuple[UUID, str]] = field(default_factory=dict)


def resolve_grants(
    items: Sequence[dict[str, Any]],
    *,
    payload_type: str,
    path: str = "grants",
    payload_id: str = "",
    scope: str,
    group: Group | None = None,
) -> list[Grant]:
    """Unsaved grants for what a caller sent, without those that say the same twice. Call in a transaction.

    Args:
        items: as `GrantSerializer` gives them.
        path: where they stand in the body, for errors.
        payload_id: what all of them are about; where empty, each says it itself.
        scope: for those that name none.
        group: whose list it is; also the subject of those that name none.

    Raises:
        InvalidError: one lacks its subject or payload, or is about another payload.
        ReferenceNotFoundError: one names a group or tenant that does not exist or is being deleted.
    """
    found = _subjects(items)
    invalid: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    grants: dict[tuple[Any, ...], Grant] = {}
    for index, item in enumerate(items):
        where = f"{path}.{index}"
        about = item.get("payload_id") or payload_id
        if not about:
            invalid[f"{where}.payloadId"] = ["This field is required."]
        elif payload_id and about != payload_id:
            invalid[f"{where}.payloadId"] = [f"Grants in this list are about {payload_id}."]
        subject = _subject(item, where, found, group, invalid, missing)
        grant = Grant(
            payload_type=payload_type,
            payload_id=about,
            listed_in=group,
            access=item.get("access") or Grant.Access.ALLOW,
            scope=item.get("scope") or scope,
            priority=item.get("priority") or 0,
            note=item.get("note") or "",
            **subject,
        )
        grants.setdefault(_identity(grant), grant)
    if invalid:
        raise InvalidError(fields=invalid)
    if missing:
        raise ReferenceNotFoundError(fields=missing)
    return list(grants.values())


def replace_grants(present: QuerySet[Grant], wanted: list[Grant]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make a list hold exactly `wanted`; what it holds already keeps its row, and so its age.

    Call with the owner of the list locked.

    Returns:
        What went and what came, for the audit trail; both empty when nothing changed.
    """
    kept = {_identity(grant): grant for grant in present.select_related("tenant", "group")}
    targets = {_identity(grant): grant for grant in wanted}
    gone = [grant for key, grant in kept.items() if key not in targets]
    new = [grant for key, grant in targets.items() if key not in kept]
    Grant.objects.filter(pk__in=[grant.pk for grant in gone]).delete()
    Grant.objects.bulk_create(new)
    told = [grant for grant in (*gone, *new) if grant.payload_type == Grant.PayloadType.AWARENESS]
    propagation.subjects_changed(
        tenant_ids=[grant.tenant_id for grant in told if grant.tenant_id],
        emails=[grant.user for grant in told if grant.user],
        group_ids=[grant.group_id for grant in told if grant.group_id],
    )
    return [audited(grant) for grant in gone], [audited(grant) for grant in new]


def set_grants(
    payload_type: str, payload_id: str, items: Sequence[dict[str, Any]], *, scope: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make a payload have exactly these grants, as `resolve_grants` takes them; returns what `replace_grants` does."""
    wanted = resolve_grants(items, payload_type=payload_type, payload_id=payload_id, scope=scope)
    return replace_grants(Grant.objects.filter(payload_type=payload_type, payload_id=payload_id), wanted)


def delete_grants(payload_type: str, payload_id: str) -> int:
    """Drop every grant about one payload that is going; returns how many there were."""
    return Grant.objects.filter(payload_type=payload_type, payload_id=payload_id).delete()[0]


def audited(grant: Grant) -> dict[str, Any]:
    """A grant as the audit trail has it."""
    subject = grant.group or grant.tenant
    return {
        "payloadId": grant.payload_id,
        "subjectType": grant.subject_type,
        "subjectName": subject.name if subject else grant.user,
        "access": grant.access,
        "scope": grant.scope,
        "priority": grant.priority,
    } | ({"note": grant.note} if grant.note else {})


def _identity(grant: Grant) -> tuple[Any, ...]:
    return (
        grant.payload_type, grant.payload_id, grant.tenant_id, grant.group_id, grant.user, grant.access, grant.scope,
        grant.priority, grant.note,
    )  # fmt: skip


def _subjects(items: Sequence[dict[str, Any]]) -> Subjects:
    """Look up all groups and tenants at once, whatever their number."""
    named: dict[str, set[str]] = {"group": set(), "tenant": set()}
    for item in items:
        wanted = named.get(item.get("subject_type") or "group")
        if wanted is not None:
            wanted |= {text for text in (item.get("subject_id"), item.get("subject_name")) if text}
    return Subjects(
        groups=_rows("SELECT id, name FROM policies_group WHERE {} ORDER BY id FOR KEY SHARE", named["group"]),
        tenants=locked_tenants(named["tenant"]),
    )


def locked_tenants(named: set[str]) -> dict[str, tuple[UUID, str]]:
    """Tenants by id and by name, kept from being deleted until the transaction ends; those on their way out are not."""
    return _rows("SELECT id, name FROM tenants_tenant WHERE ({}) AND NOT deleting ORDER BY id FOR KEY SHARE", named)


def _rows(sql: str, named: set[str]) -> dict[str, tuple[UUID, str]]:
    if not named:
        return {}
    ids = [found for text in named if (found := parse_uuid(text))]
    with connection.cursor() as cursor:
        cursor.execute(sql.format("id = ANY(%s) OR name = ANY(%s)"), [ids, list(named)])
        rows = cursor.fetchall()
    return {str(pk): (pk, name) for pk, name in rows} | {name: (pk, name) for pk, name in rows}


def _subject(
    item: dict[str, Any],
    where: str,
    found: Subjects,
    group: Group | None,
    invalid: dict[str, list[str]],
    missing: dict[str, list[str]],
) -> dict[str, Any]:
    """Whom a grant is for, as columns; what is wrong with it goes into `invalid` or `missing`."""
    given = {key: item[name] for key, name in _GIVEN if item.get(name)}
    kind = item.get("subject_type") or ("group" if given or group else None)
    if kind is None:
        invalid[f"{where}.subjectType"] = ["This field is required."]
        return {}
    if not given:
        if kind == Grant.SubjectType.GROUP and group is not None:
            return {"subject_type": kind, "group": group}
        invalid[f"{where}.subjectName"] = ["Name the subject: subjectId or subjectName."]
        return {}
    if kind == Grant.SubjectType.USER:
        names = {text.lower() for text in given.values()}
        if len(names) > 1:
            invalid[f"{where}.subjectName"] = ["subjectId and subjectName name different people."]
        return {"subject_type": kind, "user": min(names)}
    rows = found.groups if kind == Grant.SubjectType.GROUP else found.tenants
    ids = set()
    for key, text in given.items():
        # An id is looked for in its normal form; groups and tenants may also be given by name in `subjectId`.
        row = rows.get(text) or rows.get(str(parse_uuid(text)))
        if row is None:
            missing[f"{where}.{key}"] = [f"There is no {kind} {text}."]
        else:
            ids.add(row)
    if len(ids) > 1:
        invalid[f"{where}.subjectName"] = [f"subjectId and subjectName name different {kind}s."]
    if len(ids) != 1:
        return {}
    [(pk, name)] = ids
    return _column(kind, pk, name)


_GIVEN = (("subjectId", "subject_id"), ("subjectName", "subject_name"))


def _column(kind: str, pk: UUID, name: str) -> dict[str, Any]:
    from tenants.models import Tenant

    if kind == Grant.SubjectType.GROUP:
        return {"subject_type": kind, "group": Group(pk=pk, name=name)}
    return {"subject_type": kind, "tenant": Tenant(pk=pk, name=name)}
