"""Make a bundle, or change one."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from opencrane.api.params import parse_uuid
from opencrane.console.pages import ConsolePage, request_id, sentence
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError
from skills import rules, selectors
from skills.models import SkillBundle
from skills.services import bundles
from skills.views.bundle import BundlePage
from skills.views.forms import CONTENT, BundleForm


class NewBundle(ConsolePage):
    """Also the next version of one that is there, by `?from=`."""

    resource = "skills"
    title = "New skill bundle"
    template_name = "skills/form.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        origin = parse_uuid(request.GET.get("from", ""))
        if origin is None:
            return self._form(BundleForm.blank())
        bundle = selectors.bundle_by_id(origin)
        form = BundleForm.of(bundle, with_content=self.may_write, version=next_version(bundle.version))
        return self._form(form, title=f"New version of {bundle.name}")

    def post(self, request: HttpRequest) -> HttpResponse:
        form = BundleForm.posted(request.POST, request.FILES)
        values = form.created()
        if values is None:
            return self._form(form, status=400)
        try:
            bundle_id = bundles.create_bundle(values=values, actor=self.actor)
        except DomainError as exc:
            return self._form(noted(form, exc, request), status=exc.http_status)
        messages.success(request, f"{values['name']} {values['version']} is saved as a draft; a worker scans it now.")
        return HttpResponseRedirect(BundlePage.url(bundle_id))

    def _form(self, form: BundleForm, status: int = 200, title: str = "") -> HttpResponse:
        form.can_edit_text = True
        values = form_values(form) | {"title": title or self.title, "cancel_url": reverse("admin:skills")}
        return self.render(values, status=status)


class EditBundle(ConsolePage):
    resource = "skills"
    template_name = "skills/form.html"

    def get(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = selectors.bundle_by_id(bundle_id)
        return self._form(bundle, BundleForm.of(bundle, with_content=self.may_write), str(bundle.generation))

    def post(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = selectors.bundle_by_id(bundle_id)
        form = BundleForm.posted(request.POST, request.FILES)
        seen = request.POST.get("generation", "")
        precondition = same_generation(request)
        precondition(bundle.generation)
        changes = form.changes(bundle)
        if changes is None:
            return self._form(bundle, form, seen, status=400)
        if not changes:
            messages.info(request, "Nothing differs from what is there, so nothing was saved.")
            return HttpResponseRedirect(BundlePage.url(bundle_id))
        try:
            bundles.update_bundle(bundle_id=bundle_id, changes=changes, precondition=precondition, actor=self.actor)
        except DomainError as exc:
            return self._form(bundle, noted(form, exc, request), seen, status=exc.http_status)
        messages.success(request, f"{bundle.name} is saved.")
        return HttpResponseRedirect(BundlePage.url(bundle_id))

    def _form(self, bundle: SkillBundle, form: BundleForm, seen: str, status: int = 200) -> HttpResponse:
        values = form_values(form) | {
            "title": f"Edit {bundle}",
            "bundle": bundle,
            "generation": seen,
            "is_published": bundle.published_at is not None,
            "cancel_url": BundlePage.url(bundle.pk),
        }
        return self.render(values, status=status)


def form_values(form: BundleForm) -> dict[str, Any]:
    content = {"field": CONTENT, "value": form.raw.get("content", ""), "errors": form.errors.get("content", [])}
    return {"form": form, "sections": form.sections(), "content": content}


def next_version(version: str) -> str:
    """The next patch: what a correction is called (semver.org, 6)."""
    numbers = rules.version_key(version)[0]
    return f"{numbers[0]}.{numbers[1]}.{numbers[2] + 1}" if len(numbers) == 3 else version


def noted(form: BundleForm, error: DomainError, request: HttpRequest) -> BundleForm:
    """The form with a service's refusal at the field it is about, or above all fields."""
    if error.code.endswith("_EXISTS"):
        form.note({"version": [sentence(error)]})
    elif error.fields:
        form.note(error.fields)
    else:
        form.note({"body": [f"{sentence(error)} (request {request_id(request)})"]})
    return form


def register() -> None:
    """Called by `skills.admin`."""
    site: Any = admin.site
    site.add_page("new-skill/", NewBundle.as_view(), "skill_new")
    site.add_page("skills/<uuid:bundle_id>/edit/", EditBundle.as_view(), "skill_edit")
