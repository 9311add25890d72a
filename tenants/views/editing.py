"""Making and changing a tenant: a form, a look at the difference, then the write."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from rest_framework import serializers

from accounts.models import Role
from opencrane.api.serializers import flatten_errors
from opencrane.console.pages import ConsolePage, request_id, sentence
from opencrane.console.values import differences
from opencrane.console.writes import same_generation, settle
from opencrane.errors import DomainError
from tenants import selectors
from tenants.api.serializers import DatasetsSerializer
from tenants.errors import RetainedDataError
from tenants.models import Tenant
from tenants.services import datasets, lifecycle
from tenants.services.kind import TENANT
from tenants.views.detail import TenantPage
from tenants.views.forms import TenantForm

_SCOPES = (
    ("team", "Team data sets", "What everyone in the team may read."),
    ("project", "Project data sets", "What the projects this person works on may read."),
    ("personal", "Personal data sets", "What only this person may read."),
)


class NewTenant(ConsolePage):
    resource = "tenants"
    title = "New tenant"
    template_name = "tenants/form.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form(TenantForm.blank())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = TenantForm.posted(request.POST, is_new=True)
        values = form.created()
        if values is None:
            return self._form(form, status=400)
        name = values.pop("name")
        adopts = request.POST.get("adopt_retained") == "yes" and self._may_adopt
        try:
            write = lifecycle.create_tenant(name=name, values=values, adopt_retained=adopts, actor=self.actor)
            settle(request, write, f"Tenant {name} is in the cluster.")
        except DomainError as exc:
            offers = exc.code == RetainedDataError.code and self._may_adopt
            return self._form(noted(form, exc, request), status=exc.http_status, offers_data=offers)
        return HttpResponseRedirect(TenantPage.url(name))

    @property
    def _may_adopt(self) -> bool:
        return getattr(self.request.user, "role", "") == Role.ADMIN

    def _form(self, form: TenantForm, status: int = 200, *, offers_data: bool = False) -> HttpResponse:
        values = {"form": form, "sections": form.sections(), "cancel_url": reverse("admin:tenants")}
        return self.render(values | {"offers_data": offers_data}, status=status)


class EditTenant(ConsolePage):
    """Three steps by POST: `review` shows the difference, `edit` goes back to the form, `save` writes."""

    resource = "tenants"
    template_name = "tenants/form.html"

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        tenant = selectors.tenant_named(name)
        return self._form(tenant, TenantForm.of(tenant), str(tenant.generation))

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        tenant = selectors.tenant_named(name)
        form = TenantForm.posted(request.POST, is_new=False)
        seen = request.POST.get("generation", "")
        if request.POST.get("step") == "edit":
            return self._form(tenant, form, seen)
        precondition = same_generation(request)
        precondition(tenant.generation)
        changes = form.changes(tenant)
        if changes is None:
            return self._form(tenant, form, seen, status=400)
        if not changes:
            messages.info(request, "Nothing differs from what is there, so nothing was saved.")
            return HttpResponseRedirect(TenantPage.url(name, tab="spec"))
        if request.POST.get("step") != "save":
            return self._review(tenant, form, changes, seen)
        try:
            write = lifecycle.update_tenant(name=name, changes=changes, precondition=precondition, actor=self.actor)
            settle(request, write, f"The cluster has the changed spec of {name}.")
        except DomainError as exc:
            return self._form(tenant, noted(form, exc, request), seen, status=exc.http_status)
        return HttpResponseRedirect(TenantPage.url(name))

    def _form(self, tenant: Tenant, form: TenantForm, seen: str, status: int = 200) -> HttpResponse:
        return self.render(
            {
                "title": f"Edit {tenant.name}",
                "tenant": tenant,
                "form": form,
                "sections": form.sections(),
                "generation": seen,
                "cancel_url": TenantPage.url(tenant.name),
            },
            status=status,
        )

    def _review(self, tenant: Tenant, form: TenantForm, changes: dict[str, Any], seen: str) -> HttpResponse:
        present = TENANT.spec(tenant)
        before = {field: present.get(field) for field in changes}
        return self.render(
            {
                "title": f"Save {tenant.name}?",
                "tenant": tenant,
                "raw": form.raw,
                "generation": seen,
                "rows": differences(before, changes),
                "count": len(changes),
            },
            template="tenants/review.html",
        )


class EditDatasets(ConsolePage):
    resource = "tenants"
    template_name = "tenants/datasets.html"

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        lists = selectors.datasets_of(selectors.tenant_named(name).pk)
        return self._form(name, {scope: "\n".join(lists[scope]) for scope, _, _ in _SCOPES}, {})

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        raw = {scope: request.POST.get(scope, "") for scope, _, _ in _SCOPES}
        wanted = {scope: [line.strip() for line in text.splitlines() if line.strip()] for scope, text in raw.items()}
        serializer = DatasetsSerializer(data={"org": selectors.ORG_DATASETS, **wanted})
        try:
            serializer.is_valid(raise_exception=True)
            datasets.set_datasets(name=name, datasets=dict(serializer.validated_data), actor=self.actor)
        except serializers.ValidationError as exc:
            return self._form(name, raw, _by_scope(flatten_errors(exc.detail)), status=400)
        except DomainError as exc:
            errors = {"body": [f"{sentence(exc)} (request {request_id(request)})"]}
            return self._form(name, raw, errors, status=exc.http_status)
        messages.success(request, f"The data sets of {name} are saved.")
        return HttpResponseRedirect(TenantPage.url(name))

    def _form(self, name: str, raw: dict[str, str], errors: dict[str, list[str]], status: int = 200) -> HttpResponse:
        fields = [
            {"name": scope, "label": label, "help": text, "value": raw[scope], "errors": errors.get(scope, [])}
            for scope, label, text in _SCOPES
        ]
        return self.render(
            {
                "title": f"Data sets of {name}",
                "fields": fields,
                "problems": errors.get("body", []),
                "cancel_url": TenantPage.url(name),
            },
            status=status,
        )


def _by_scope(errors: dict[str, list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, reasons in errors.items():
        found.setdefault(path.partition(".")[0], []).extend(reasons)
    return found


def noted(form: TenantForm, error: DomainError, request: HttpRequest) -> TenantForm:
    """The form with a service's refusal at the field it is about, or above all fields."""
    if error.code.endswith("_EXISTS"):
        form.note({"name": [sentence(error)]})
    elif error.fields:
        form.note(error.fields)
    else:
        form.note({"body": [f"{sentence(error)} (request {request_id(request)})"]})
    return form


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("new-tenant/", NewTenant.as_view(), "tenant_new")
    site.add_page("tenants/<str:name>/edit/", EditTenant.as_view(), "tenant_edit")
    site.add_page("tenants/<str:name>/datasets/", EditDatasets.as_view(), "tenant_datasets")
