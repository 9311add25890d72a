"""Groups: the list, and one group whose members and grants are edited in place."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from rest_framework import serializers

from opencrane.api.serializers import flatten_errors
from opencrane.console.access import READ, may
from opencrane.console.listing import Filter, FilterBar, capped_count, distinct_values, listing, page_of
from opencrane.console.pages import ConsoleAction, ConsolePage, request_id, sentence
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError, InvalidError
from operations import audit_reading
from operations.audit_pages import AuditFilter
from operations.views.bulk import BulkPage, bulk_bar, register_bulk
from policies import reading
from policies.api.grants import SCOPES
from policies.api.serializers import CreateGroupSerializer, UpdateGroupSerializer
from policies.errors import GroupNotFoundError
from policies.models import Group
from policies.services import groups
from policies.services.bulk import GROUPS
from policies.views.grant_rows import GrantRows

TABS = {"lists": "Members and grants", "uses": "Used by", "audit": "Audit"}
AUDIT_ROWS = 25
USES_SHOWN = 200
# With more members than this they are edited as lines of text.
MEMBER_ROWS = 200
_SCOPE_OPTIONS = [(scope, scope.capitalize()) for scope in SCOPES]


def group_url(group_id: UUID, tab: str = "") -> str:
    url = reverse("admin:group", args=[group_id])
    return f"{url}?tab={tab}" if tab else url


def filter_bar(request: HttpRequest) -> FilterBar:
    """Search and filters of the list, from the URL."""
    return FilterBar(
        request,
        [
            Filter("scope", "Scope", "choice", _SCOPE_OPTIONS),
            Filter("member", "Member", placeholder="Tenant or e-mail"),
        ],
        "Search name or description",
    )


class GroupList(ConsolePage):
    resource = "groups"
    title = "Groups"
    template_name = "policies/groups.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = filter_bar(request)
        found = reading.groups_listed(bar.values())
        page = listing(request, reading.GROUPS_NEWEST, found)
        sizes = reading.group_sizes(page.rows)
        rows = [{"group": row, "members": sizes[row.pk][0], "grants": sizes[row.pk][1]} for row in page.rows]
        is_filtered = bool(bar.active)
        count = capped_count(found)
        return self.render(
            bulk_bar(GROUPS, "admin:groups_bulk", bar, count)
            | {
                "bar": bar,
                "listing": page,
                "rows": rows,
                "count": count,
                "is_filtered": is_filtered,
                "is_empty": not rows and not is_filtered and not request.GET.get("cursor"),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )


class GroupsBulkPage(BulkPage):
    resource = "groups"
    bulk = GROUPS
    list_url = "admin:groups"

    def filters(self, request: HttpRequest) -> FilterBar:
        return filter_bar(request)

    def names(self, filters: dict[str, str], limit: int) -> list[str]:
        return reading.group_names(filters, limit)


class GroupForm:
    """What was filled in: the fields, members and grants of a group, and what is wrong with them."""

    def __init__(self, fields: dict[str, str], members: list[str], grants: GrantRows) -> None:
        self.fields, self.members, self.grants = fields, members, grants
        self.errors: dict[str, list[str]] = {}
        self.member_errors: dict[int, list[str]] = {}

    @classmethod
    def of(cls, view: reading.GroupView) -> "GroupForm":
        group = view.group
        fields = {"name": group.name, "scope": group.scope, "description": group.description}
        return cls(fields, view.members, GrantRows.of(view.grants, owner=group.name, scope=group.scope))

    @classmethod
    def posted(cls, request: HttpRequest, owner: str) -> "GroupForm":
        post = request.POST
        fields = {name: post.get(name, "").strip() for name in ("name", "scope", "description")}
        members = [line.strip() for text in post.getlist("member") for line in text.split("\n") if line.strip()]
        grants = GrantRows.posted(post, owner=owner or fields["name"] or "the group", scope=fields["scope"] or "org")
        return cls(fields, members, grants)

    def checked(self, *, is_new: bool, present: "GroupForm | None" = None) -> dict[str, Any] | None:
        """What a service takes, without what is as it is at present; None when `errors` says why not."""
        data: dict[str, Any] = {
            "name": self.fields["name"],
            "scope": self.fields["scope"] or None,
            "description": self.fields["description"] or None,
            "members": self.members,
            "grants": self.grants.data(),
        }
        if present is not None:
            if sorted(set(self.members)) == present.members:
                del data["members"]
            if self.grants.rows == present.grants.rows:
                del data["grants"]
        serializer: Any = (CreateGroupSerializer if is_new else UpdateGroupSerializer)(data=data)
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            self.note(flatten_errors(exc.detail))
            return None
        return dict(serializer.validated_data)

    def note(self, fields: dict[str, list[str]]) -> None:
        for path, reasons in self.grants.note(fields).items():
            head, _, index = path.partition(".")
            if head == "members" and index.isdigit():
                self.member_errors.setdefault(int(index), []).extend(reasons)
            else:
                where = head if head in {"name", "scope", "description", "members", "grants"} else "body"
                self.errors.setdefault(where, []).extend(reasons)

    def refuse(self, error: DomainError, request: HttpRequest) -> None:
        """Take over a service's refusal."""
        if error.code.endswith("_EXISTS"):
            self.note({"name": [sentence(error)]})
        elif error.fields:
            self.note(error.fields)
        else:
            self.errors.setdefault("body", []).append(f"{sentence(error)} (request {request_id(request)})")

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


class NewGroup(ConsolePage):
    resource = "groups"
    title = "New group"
    template_name = "policies/group_new.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form(GroupForm({"name": "", "scope": "org", "description": ""}, [], GrantRows([], "the group")))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = GroupForm.posted(request, "")
        values = form.checked(is_new=True)
        if values is None:
            return self._form(form, status=400)
        try:
            group_id = groups.create_group(values=values, actor=self.actor)
        except DomainError as exc:
            form.refuse(exc, request)
            return self._form(form, status=exc.http_status)
        messages.success(request, f"Group {values['name']} is saved.")
        return HttpResponseRedirect(group_url(group_id))

    def _form(self, form: GroupForm, status: int = 200) -> HttpResponse:
        return self.render({"form": form, "scope_options": _SCOPE_OPTIONS, **suggestions()}, status=status)


class GroupPage(ConsolePage):
    """The form for those who may write; lists to read for the others."""

    resource = "groups"
    template_name = "policies/group.html"

    def get(self, request: HttpRequest, group_id: UUID) -> HttpResponse:
        tabs = {key: label for key, label in TABS.items() if key != "audit" or may(request.user, "audit", READ)}
        tab = request.GET.get("tab", "")
        view = reading.group_view(group_id)
        match tab if tab in tabs else "":
            case "uses":
                values = {"uses": _named_uses(view.group), "limit": USES_SHOWN}
            case "audit":
                found = audit_reading.read_page(
                    AuditFilter(resource=f"Group/{view.group.name}"), request, rows=AUDIT_ROWS
                )
                page = page_of(request, found.entries, found.next_cursor)
                values = {"entries": found.entries, "listing": page}
            case _:
                tab, values = "lists", {"form": GroupForm.of(view), **suggestions()}
        return self._page(view, values | {"tab": tab, "tabs": tabs, "generation": view.group.generation})

    def post(self, request: HttpRequest, group_id: UUID) -> HttpResponse:
        view = reading.group_view(group_id)
        precondition = same_generation(request)
        precondition(view.group.generation)
        form = GroupForm.posted(request, view.group.name)
        values = form.checked(is_new=False, present=GroupForm.of(view))
        status = 400
        if values is not None:
            try:
                groups.update_group(group_id=group_id, changes=values, precondition=precondition, actor=self.actor)
            except DomainError as exc:
                form.refuse(exc, request)
                status = exc.http_status
            else:
                messages.success(request, f"Group {values.get('name', view.group.name)} is saved.")
                return HttpResponseRedirect(group_url(group_id))
        seen = request.POST.get("generation", "")
        shown = {"form": form, "tab": "lists", "tabs": TABS, "generation": seen, **suggestions()}
        return self._page(view, shown, status=status)

    def _page(self, view: reading.GroupView, values: dict[str, Any], status: int = 200) -> HttpResponse:
        return self.render(
            {
                "title": view.group.name,
                "group": view.group,
                "members": view.members,
                "grants": view.grants,
                "scope_options": _SCOPE_OPTIONS,
                **values,
            },
            status=status,
        )


def suggestions() -> dict[str, Any]:
    """Names of groups that inputs suggest."""
    return {"known_groups": distinct_values("policies_group", "name")}


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
        if self.request.POST.get("confirm", "").strip() != name:
            raise InvalidError(f"Nothing was deleted: the name typed was not {name}.")
        groups.delete_group(group_id=group_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"Group {name} is deleted.")
        return reverse("admin:groups")

    def back(self, *, group_id: UUID) -> str:
        return group_url(group_id)


class GroupByName(ConsolePage):
    """Where links from the audit trail go, which knows names."""

    resource = "groups"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        group = reading.group_named(name)
        if group is None:
            raise GroupNotFoundError(f"There is no group named {name} any more.")
        return HttpResponseRedirect(group_url(group.pk))


def register() -> None:
    """Called by `policies.admin`."""
    site: Any = admin.site
    site.add_page("groups/", GroupList.as_view(), "groups")
    register_bulk(site, "groups-bulk/", GroupsBulkPage, "groups_bulk")
    site.add_page("new-group/", NewGroup.as_view(), "group_new")
    site.add_page("groups/<uuid:group_id>/", GroupPage.as_view(), "group")
    site.add_page("groups/<uuid:group_id>/delete/", DeleteGroup.as_view(), "group_delete")
    site.add_page("group-named/<path:name>/", GroupByName.as_view(), "group_named")
    site.add_object_page("Group", "admin:group_named")
    site.add_navigation("Access", "Groups", "group_work", "admin:groups", resource="groups", position=33)
