"""Make a bundle, or change one."""

from typing import Any

from django.contrib import admin, messages

from opencrane.api.params import parse_uuid
from opencrane.console.editing import EditPage, NewPage, Precondition
from opencrane.errors import DomainError
from skills import rules, selectors
from skills.models import SkillBundle
from skills.services import bundles
from skills.views.bundle import BundlePage
from skills.views.forms import BundleForm


class NewBundle(NewPage):
    """Also the next version of one that is there, by `?from=`."""

    resource = "skills"
    title = "New skill bundle"
    template_name = "skills/form.html"
    form = BundleForm
    submit = "Save as draft"
    list_page = "admin:skills"

    def blank(self) -> BundleForm:
        origin = parse_uuid(self.request.GET.get("from", ""))
        if origin is None:
            return BundleForm.blank()
        bundle = selectors.bundle_by_id(origin)
        form = BundleForm.of(bundle, with_content=self.may_write)
        form.raw["version"] = next_version(bundle.version)
        return form

    def create(self, values: dict[str, Any]) -> str:
        bundle_id = bundles.create_bundle(values=values, actor=self.actor)
        name = f"{values['name']} {values['version']}"
        messages.success(self.request, f"{name} is saved as a draft; a worker scans it now.")
        return BundlePage.url(bundle_id)

    def more(self, form: BundleForm, error: DomainError | None) -> dict[str, Any]:
        form.can_edit_text = True
        is_next = self.request.method == "GET" and bool(form.raw.get("name"))
        return {"title": f"New version of {form.raw['name']}"} if is_next else {}


class EditBundle(EditPage[SkillBundle]):
    resource = "skills"
    template_name = "skills/form.html"
    page = BundlePage
    form = BundleForm
    review_template = ""

    def form_of(self, bundle: SkillBundle) -> BundleForm:
        return BundleForm.of(bundle, with_content=self.may_write)

    def more(self, bundle: SkillBundle) -> dict[str, Any]:
        return {"bundle": bundle, "is_published": bundle.published_at is not None}

    def save(self, bundle: SkillBundle, changes: dict[str, Any], precondition: Precondition) -> None:
        bundles.update_bundle(bundle_id=bundle.pk, changes=changes, precondition=precondition, actor=self.actor)
        messages.success(self.request, f"{bundle.name} is saved.")


def next_version(version: str) -> str:
    """The next patch: what a correction is called (semver.org, 6)."""
    numbers = rules.version_key(version)[0]
    return f"{numbers[0]}.{numbers[1]}.{numbers[2] + 1}" if len(numbers) == 3 else version


def register() -> None:
    """Called by `skills.admin`."""
    site: Any = admin.site
    site.add_page("new-skill/", NewBundle.as_view(), "skill_new")
    site.add_page("skills/<uuid:bundle_id>/edit/", EditBundle.as_view(), "skill_edit")
