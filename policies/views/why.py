"""Why can, or can't, a tenant use something: the deciding grant, those it beat, and what one more would do."""

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from rest_framework import serializers

from opencrane.api.serializers import flatten_errors
from opencrane.console.listing import distinct_values
from opencrane.console.pages import ConsolePage, sentence
from opencrane.errors import DomainError
from policies.api.grants import GrantSerializer
from tenants import access, selectors
from tenants.errors import TenantNotFoundError
from tenants.models import Tenant

TYPES = (("mcp-server", "MCP server"), ("skill-bundle", "Skill"), ("awareness", "Data set"))
_ASKED = ("tenant", "type", "payload")
_WHAT_IF = ("access", "subjectType", "subjectName", "priority")


class WhyPage(ConsolePage):
    resource = "tenants"
    title = "Why can, or can't, a tenant use something?"
    template_name = "policies/why.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        given = {name: request.GET.get(name, "").replace("\x00", "").strip()[:253] for name in (*_ASKED, *_WHAT_IF)}
        if given["type"] not in dict(TYPES):
            given["type"] = TYPES[0][0]
        values: dict[str, Any] = {
            "given": given,
            "types": TYPES,
            "errors": {},
            "known_servers": distinct_values("mcpservers_mcpserver", "name"),
            "known_skills": distinct_values("skills_skillbundle", "name"),
            "known_groups": distinct_values("policies_group", "name"),
        }
        status = 200
        if given["tenant"] and given["payload"]:
            try:
                tenant = selectors.tenant_named(given["tenant"])
            except TenantNotFoundError as exc:
                values["errors"], status = {"tenant": [exc.message]}, 404
            else:
                values |= {"tenant": tenant, **self._answers(tenant, given)}
        return self.render(values, status=status)

    def _answers(self, tenant: Tenant, given: dict[str, str]) -> dict[str, Any]:
        """The answer as it is, and as it would be with one grant more."""
        about: dict[str, Any] = {"payload_type": given["type"], "payload": given["payload"]}
        found: dict[str, Any] = {"answer": access.explain_access(tenant=tenant, **about)}
        if not given["access"]:
            return found
        try:
            preview = access.Preview(grant=_unsaved(given))
        except serializers.ValidationError as exc:
            return found | {"errors": flatten_errors(exc.detail)}
        except DomainError as exc:
            fields = {path.rpartition(".")[2]: reasons for path, reasons in exc.fields.items()}
            return found | {"errors": fields or {"subjectName": [sentence(exc)]}}
        return found | {"what_if": access.explain_access(tenant=tenant, preview=preview, **about)}


def _unsaved(given: dict[str, str]) -> Any:
    priority = given["priority"]
    data: dict[str, Any] = {name: given[name] for name in ("access", "subjectType", "subjectName") if given[name]}
    if priority:
        is_number = priority.removeprefix("-").isascii() and priority.removeprefix("-").isdecimal()
        data["priority"] = int(priority[:12]) if is_number else priority
    serializer: Any = GrantSerializer(data=data)
    serializer.is_valid(raise_exception=True)
    with transaction.atomic():
        return access.unsaved_grant(
            dict(serializer.validated_data), payload_type=given["type"], payload=given["payload"]
        )


def register() -> None:
    """Called by `policies.admin`."""
    site: Any = admin.site
    site.add_page("why/", WhyPage.as_view(), "why")
    site.add_navigation("Access", "Why can it?", "help_center", "admin:why", resource="tenants", position=35)
