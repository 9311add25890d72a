"""Making and changing a tenant: a form, a look at the difference, then the write."""

from collections.abc import Collection
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from accounts.models import Role
from opencrane.console.editing import EditPage, NewPage, Precondition
from opencrane.console.forms import ApiForm, FormField, Section
from opencrane.console.pages import ConsolePage
from opencrane.console.writes import settle
from opencrane.errors import DomainError
from tenants import selectors
from tenants.api.serializers import DatasetsSerializer
from tenants.errors import RetainedDataError
from tenants.models import Tenant
from tenants.rules import NAME_MAX
from tenants.services import datasets, lifecycle
from tenants.services.kind import TENANT
from tenants.views.detail import TenantPage
from tenants.views.forms import TenantForm


def may_adopt(user: Any) -> bool:
    """Whether somebody may give a new tenant what an earlier one of its name has left."""
    return getattr(user, "role", "") == Role.ADMIN


class NewTenant(NewPage):
    resource = "tenants"
    title = "New tenant"
    template_name = "tenants/form.html"
    form = TenantForm
    submit = "Create tenant"
    list_page = "admin:tenants"

    def blank(self) -> TenantForm:
        return TenantForm.blank(self.request.GET.get("name", "")[:NAME_MAX])

    def create(self, values: dict[str, Any]) -> str:
        name = values.pop("name")
        adopts = self.request.POST.get("adopt_retained") == "yes" and may_adopt(self.request.user)
        write = lifecycle.create_tenant(name=name, values=values, adopt_retained=adopts, actor=self.actor)
        settle(self.request, write, f"Tenant {name} is in the cluster.")
        return TenantPage.url(name)

    def more(self, form: TenantForm, error: DomainError | None) -> dict[str, Any]:
        name = self.request.GET.get("name", "")
        is_there = isinstance(error, RetainedDataError) or (name and selectors.retained_data(name).exists())
        return {"offers_data": is_there and may_adopt(self.request.user)}


class EditTenant(EditPage[Tenant]):
    resource = "tenants"
    page = TenantPage
    form = TenantForm
    unchanged_tab = "spec"

    def save(self, tenant: Tenant, changes: dict[str, Any], precondition: Precondition) -> None:
        write = lifecycle.update_tenant(name=tenant.name, changes=changes, precondition=precondition, actor=self.actor)
        settle(self.request, write, f"The cluster has the changed spec of {tenant.name}.")

    def before(self, tenant: Tenant, changes: dict[str, Any]) -> dict[str, Any]:
        present = TENANT.spec(tenant)
        return {field: present.get(field) for field in changes}


class DatasetsForm(ApiForm):
    sections = (
        Section(
            "What it may read",
            (
                FormField("team", "Team data sets", "lines", "What everyone in the team may read."),
                FormField("project", "Project data sets", "lines", "What the projects this person works on may read."),
                FormField("personal", "Personal data sets", "lines", "What only this person may read."),
            ),
        ),
    )

    def body(self, touched: Collection[str] | None = None) -> dict[str, Any]:
        return {"org": selectors.ORG_DATASETS} | {field.name: self.value(field) or [] for field in self.fields}


class EditDatasets(ConsolePage):
    resource = "tenants"
    template_name = "tenants/datasets.html"

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        lists = selectors.datasets_of(selectors.tenant_named(name).pk)
        return self._form(name, DatasetsForm({scope: "\n".join(names) for scope, names in lists.items()}))

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        form = DatasetsForm.posted(request)
        wanted = form.checked(DatasetsSerializer, form.body())
        if wanted is None:
            return self._form(name, form, 400)
        try:
            datasets.set_datasets(name=name, datasets=wanted, actor=self.actor)
        except DomainError as exc:
            return self._form(name, form.refuse(exc, request), exc.http_status)
        messages.success(request, f"The data sets of {name} are saved.")
        return HttpResponseRedirect(TenantPage.url(name))

    def _form(self, name: str, form: DatasetsForm, status: int = 200) -> HttpResponse:
        values = {"form": form, "submit": "Save data sets", "cancel_url": TenantPage.url(name)}
        return self.render(values | {"title": f"Data sets of {name}"}, status=status)


def register() -> None:
    """Called by `tenants.admin`."""
    site: Any = admin.site
    site.add_page("new-tenant/", NewTenant.as_view(), "tenant_new")
    site.add_page("tenants/<str:name>/edit/", EditTenant.as_view(), "tenant_edit")
    site.add_page("tenants/<str:name>/datasets/", EditDatasets.as_view(), "tenant_datasets")
