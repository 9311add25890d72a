"""Groups: the list, and one group whose members and grants are edited in place."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from opencrane.console.editing import NewPage
from opencrane.console.forms import FormField, ObjectForm, Section, lines_of
from opencrane.console.listing import Filter
from opencrane.console.objects import ByName
from opencrane.console.pages import ConsoleAction
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkList, add_bulk_list
from operations.views.objects import AuditedPage
from policies import reading
from policies.api.grants import SCOPES
from policies.api.serializers import CreateGroupSerializer, UpdateGroupSerializer
from policies.errors import GroupNotFoundError
from policies.models import Group
from policies.reading import GroupView
from policies.services import groups
from policies.services.bulk import GROUPS
from policies.views.grant_rows import GrantRows
from policies.views.grants import suggestions

USES_SHOWN = 200
# With more members than this they are edited as lines of text.
MEMBER_ROWS = 200
_SCOPE_OPTIONS = [(scope, scope.capitalize()) for scope in SCOPES]


class GroupList(BulkList):
    resource = "groups"
    title = "Groups"
    template_name = "policies/groups.html"
    noun = "group"
    search = "Search name or description"
    keyset = reading.GROUPS_NEWEST
    new_page = "admin:group_new"
    bulk = GROUPS
    url_name = "groups"

    def filters(self) -> list[Filter]:
        return [
            Filter("scope", "Scope", "choice", _SCOPE_OPTIONS),
            Filter("member", "Member", placeholder="Tenant or e-mail"),
        ]

    def found(self, filters: dict[str, str]) -> QuerySet[Group]:
        return reading.groups_listed(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        sizes = reading.group_sizes(objects)
        return [{"members": sizes[group.pk][0], "grants": sizes[group.pk][1]} for group in objects]


class GroupForm(ObjectForm[GroupView]):
    """The fields, members and grants of a group."""

    sections = (
        Section(
            "Group",
            (
                FormField("name", "Name", is_required=True),
                FormField("scope", "Scope", "select", options=_SCOPE_OPTIONS),
                FormField("description", "Description"),
            ),
        ),
    )
    creates, updates = CreateGroupSerializer, UpdateGroupSerializer

    def __init__(self, raw: Mapping[str, Any], *, is_new: bool = False) -> None:
        super().__init__(raw, is_new=is_new)
        self.members: list[str] = []
        self.grants = GrantRows([], owner="the group")
        self.member_errors: dict[int, list[str]] = {}

    @classmethod
    def of(cls, view: GroupView) -> "GroupForm":
        group = view.group
        form = cls({"name": group.name, "scope": group.scope, "description": group.description})
        form.members = view.members
        form.grants = GrantRows.of(view.grants, owner=group.name, scope=group.scope)
        return form

    @classmethod
    def posted(cls, request: HttpRequest, *, is_new: bool = False, owner: str = "") -> "GroupForm":
        form = super().posted(request, is_new=is_new)
        form.members = [line for text in request.POST.getlist("member") for line in lines_of(text)]
        owner = owner or form.raw["name"] or "the group"
        form.grants = GrantRows.posted(request.POST, owner=owner, scope=form.raw["scope"] or "org")
        return form

    def body(self, touched: Collection[str] | None = None) -> dict[str, Any]:
        return super().body(touched) | {"members": self.members, "grants": self.grants.data()}

    def changes(self, view: GroupView) -> dict[str, Any] | None:
        present = GroupForm.of(view)
        body = self.body(self.raw)
        if sorted(set(self.members)) == present.members:
            del body["members"]
        if self.grants.rows == present.grants.rows:
            del body["grants"]
        return self.checked(self.updates, body)

    def note(self, fields: Mapping[str, Sequence[str]]) -> None:
        for path, reasons in self.grants.note(fields).items():
            head, _, index = path.partition(".")
            if head == "members" and index.isdigit():
                self.member_errors.setdefault(int(index), []).extend(reasons)
            else:
                where = head if head in {"members", "grants"} else self.input_for(path)
                self.errors.setdefault(where, []).extend(reasons)

    # -- for the template ---------------------------------------------------------------------------------------------

    @property
    def has_errors(self) -> bool:
        return bool(self.errors or self.member_errors or self.grants.errors)

    @property
    def as_lines(self) -> bool:
        return len(self.members) > MEMBER_ROWS

    @property
    def member_rows(self) -> list[dict[str, Any]]:
        found = enumerate(self.members)
        return [{"value": member, "errors": self.member_errors.get(index, [])} for index, member in found]

    @property
    def member_problems(self) -> list[str]:
        return [f"Line {index + 1}: {reason}" for index, found in self.member_errors.items() for reason in found]


class NewGroup(NewPage):
    resource = "groups"
    title = "New group"
    template_name = "policies/group_new.html"
    form = GroupForm
    submit = "Create group"
    list_page = "admin:groups"

    def blank(self) -> GroupForm:
        return GroupForm({"scope": "org"}, is_new=True)

    def create(self, values: dict[str, Any]) -> str:
        group_id = groups.create_group(values=values, actor=self.actor)
        messages.success(self.request, f"Group {values['name']} is saved.")
        return GroupPage.url(group_id)

    def more(self, form: GroupForm, error: DomainError | None) -> dict[str, Any]:
        return suggestions()


class GroupPage(AuditedPage[GroupView]):
    """The form for those who may write; lists to read for the others."""

    resource = "groups"
    http_method_names = ["get", "head", "post"]
    template_name = "policies/group.html"
    noun = "group"
    url_name = "group"
    header_template = "policies/_group_header.html"
    tab_templates = "policies/group_"
    tabs = {"lists": "Members and grants", "uses": "Used by", "audit": "Audit"}

    def find(self, group_id: UUID) -> GroupView:
        return reading.group_view(group_id)

    def header(self, view: GroupView) -> dict[str, Any]:
        return {
            "title": view.group.name,
            "generation": view.group.generation,
            "group": view.group,
            "members": view.members,
            "grants": view.grants,
        }

    def lists_tab(self, view: GroupView) -> dict[str, Any]:
        return {"form": GroupForm.of(view), **suggestions()}

    def uses_tab(self, view: GroupView) -> dict[str, Any]:
        return {"uses": _named_uses(view.group), "limit": USES_SHOWN}

    def audited(self, view: GroupView) -> AuditFilter:
        return AuditFilter(resource=f"Group/{view.group.name}")

    def post(self, request: HttpRequest, group_id: UUID) -> HttpResponse:
        view = self.find(group_id)
        precondition = same_generation(request)
        precondition(view.group.generation)
        form = GroupForm.posted(request, owner=view.group.name)
        values = form.changes(view)
        status = 400
        if values is not None:
            try:
                groups.update_group(group_id=group_id, changes=values, precondition=precondition, actor=self.actor)
            except DomainError as exc:
                form.refuse(exc, request)
                status = exc.http_status
            else:
                messages.success(request, f"Group {values.get('name', view.group.name)} is saved.")
                return HttpResponseRedirect(self.url(group_id))
        seen = request.POST.get("generation", "")
        return self.show(view, "lists", self.lists_tab(view) | {"form": form}, status=status, seen=seen)


def _named_uses(group: Group) -> list[dict[str, Any]]:
    """Grants elsewhere for this group, each with what it is about by name."""
    from mcpservers.reading import names_of as servers_named
    from skills.reading import names_of as bundles_named

    found = reading.grants_naming(group, USES_SHOWN)
    servers = servers_named([grant.payload_id for grant in found if grant.payload_type == "mcp-server"])
    bundles = bundles_named([grant.payload_id for grant in found if grant.payload_type == "skill-bundle"])
    return [
        {
            "grant": grant,
            "server_name": servers.get(grant.payload_id, ""),
            "bundle_name": bundles.get(grant.payload_id, ""),
        }
        for grant in found
    ]


class DeleteGroup(ConsoleAction):
    resource = "groups"

    def act(self, *, group_id: UUID) -> str:
        name = reading.group_view(group_id).group.name
        self.require_typed(name)
        groups.delete_group(group_id=group_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"Group {name} is deleted.")
        return reverse("admin:groups")

    def back(self, *, group_id: UUID) -> str:
        return GroupPage.url(group_id)


class GroupByName(ByName):
    resource = "groups"
    page = GroupPage
    missing = GroupNotFoundError

    def find(self, name: str) -> Group | None:
        return reading.group_named(name)


def register() -> None:
    """Called by `policies.admin`."""
    site: Any = admin.site
    add_bulk_list(site, "groups", GroupList)
    site.add_page("new-group/", NewGroup.as_view(), "group_new")
    site.add_page("groups/<uuid:group_id>/", GroupPage.as_view(), "group")
    site.add_page("groups/<uuid:group_id>/delete/", DeleteGroup.as_view(), "group_delete")
    site.add_page("group-named/<path:name>/", GroupByName.as_view(), "group_named")
    site.add_object_page("Group", "admin:group_named")
    site.add_navigation("Access", "Groups", "group_work", "admin:groups", resource="groups", position=33)
