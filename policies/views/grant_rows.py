"""A list of grants that is edited in place, row by row; groups, MCP servers and skills have one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from policies.api.grants import SCOPES
from policies.models import Grant

# As inputs are named, each with the prefix `grant.`.
COLUMNS = ("payloadId", "subjectType", "subjectName", "access", "scope", "priority", "note")
SUBJECT_WORDS = {"group": "Group", "tenant": "Tenant", "user": "Person"}
Row = dict[str, str]
_NUMBER = re.compile(r"-?[0-9]{1,10}")


@dataclass
class GrantRows:
    """The rows as they were filled in, and what is wrong with them.

    Attributes:
        owner: name of the group whose list it is; its grants may leave out the subject. Empty for other lists, whose
            grants all are about the same payload.
        scope: what a new row begins with.
        scopes: what may be chosen.
    """

    rows: list[Row]
    owner: str = ""
    scope: str = "org"
    scopes: Sequence[str] = tuple(SCOPES)
    errors: dict[int, dict[str, list[str]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, grants: Sequence[Mapping[str, Any]], *, owner: str = "", scope: str = "org", scopes: Sequence[str] = SCOPES
    ) -> "GrantRows":
        """The rows of grants as answers have them."""
        return cls([_row(grant, owner) for grant in grants], owner, scope, scopes)

    @classmethod
    def posted(
        cls, post: QueryDict, *, owner: str = "", scope: str = "org", scopes: Sequence[str] = SCOPES
    ) -> "GrantRows":
        """The rows that a form sent, without blank ones."""
        columns = [post.getlist(f"grant.{column}") for column in COLUMNS]
        rows = [dict(zip(COLUMNS, map(str.strip, values), strict=True)) for values in zip(*columns, strict=False)]
        needed = "payloadId" if owner else "subjectName"
        return cls([row for row in rows if row[needed] or row["note"]], owner, scope, scopes)

    def data(self) -> list[dict[str, Any]]:
        """The list as the API takes it; what makes no sense is left for the serializer to name."""
        found = []
        for row in self.rows:
            grant: dict[str, Any] = {name: value for name, value in row.items() if value}
            if priority := row["priority"]:
                grant["priority"] = (
                    int(priority) if priority.lstrip("-").isdecimal() and len(priority) < 12 else priority
                )
            found.append(grant)
        return found

    def note(self, fields: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
        """Take over what is wrong with the rows; returns what is about something else."""
        rest = {}
        for path, reasons in fields.items():
            head, _, tail = path.partition(".")
            index, _, column = tail.partition(".")
            if head == "grants" and index.isdigit() and int(index) < len(self.rows):
                column = "subjectName" if column not in COLUMNS else column
                self.errors.setdefault(int(index), {}).setdefault(column, []).extend(reasons)
            else:
                rest[path] = reasons
        return rest

    # -- for the template ---------------------------------------------------------------------------------------------

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [
            {"value": row, "errors": self.errors.get(index, {}), "number": index + 1}
            for index, row in enumerate(self.rows)
        ]

    @property
    def blank(self) -> dict[str, Any]:
        subject = "" if self.owner else "group"
        value = dict.fromkeys(COLUMNS, "") | {"subjectType": subject, "access": "allow", "priority": "0"}
        return {"value": value | {"scope": self.scope}, "errors": {}, "number": "new"}

    @property
    def subjects(self) -> list[tuple[str, str]]:
        own = [("", "This group")] if self.owner else []
        return [*own, *SUBJECT_WORDS.items()]

    @property
    def accesses(self) -> list[tuple[str, str]]:
        return [(each.value, each.label) for each in Grant.Access]


def _row(grant: Mapping[str, Any], owner: str) -> Row:
    row = {column: str(grant[column] if grant[column] is not None else "") for column in COLUMNS}
    if owner and row["subjectType"] == "group" and row["subjectName"] == owner:
        row |= {"subjectType": "", "subjectName": ""}
    return row
