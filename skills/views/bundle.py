"""One bundle: its content shown safely, findings, grants, promotions, versions; and the actions."""

from collections import defaultdict
from typing import Any
from uuid import UUID

import orjson
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from rest_framework import serializers

from opencrane.api.params import parse_uuid
from opencrane.api.serializers import flatten_errors
from opencrane.console.editing import Precondition
from opencrane.console.objects import ByName, ObjectActions
from opencrane.console.pages import ConsolePage
from opencrane.console.values import Difference, differences
from opencrane.console.writes import same_generation
from opencrane.errors import ForbiddenError, InvalidError
from operations.audit_pages import AuditFilter
from policies.models import Scope
from policies.views.grants import EditGrants, GrantedPage
from skills import reading, rendering, rules, selectors, source_reading
from skills.api.serializers import PromotionBodySerializer, UpdateBundleSerializer
from skills.errors import OciStoreNotConfiguredError, SkillBundleNotFoundError
from skills.models import SkillBundle, SkillPromotion
from skills.services import bundles, publishing, scanning
from skills.views.chips import SEVERITY, STATUS, chips_of, counted, size_of

_Status, _Scan, _Oci = SkillBundle.Status, SkillBundle.ScanStatus, SkillBundle.OciState


class BundlePage(GrantedPage[SkillBundle]):
    resource = "skills"
    template_name = "skills/bundle.html"
    noun = "skill bundle"
    url_name = "skill"
    scopes = Scope.values
    header_template = "skills/_bundle_header.html"
    tab_templates = "skills/bundle_"
    tabs = {
        "overview": "Overview",
        "source": "Source",
        "findings": "Findings",
        "grants": "Grants",
        "promotions": "Promotions",
        "versions": "Versions",
        "audit": "Audit",
    }

    def find(self, bundle_id: UUID) -> SkillBundle:
        return selectors.bundle_by_id(bundle_id)

    def header(self, bundle: SkillBundle) -> dict[str, Any]:
        """Chips, what may be done next, and whether something is under way that the page should follow."""
        is_scanning = bundle.scan_status in {_Scan.PENDING, _Scan.SCANNING}
        return {
            "title": f"{bundle.name} {bundle.version}",
            "generation": bundle.generation,
            "bundle": bundle,
            "size": size_of(bundle.content_size),
            **chips_of(bundle),
            "is_moving": is_scanning or bundle.oci_state == _Oci.PENDING,
            "is_scanning": is_scanning,
            "can_publish": bundle.status != _Status.PUBLISHED,
            "is_publishable": bundle.status != _Status.PUBLISHED and bundle.scan_status == _Scan.PASSED,
            "can_review": bundle.status == _Status.DRAFT,
            "can_return": bundle.published_at is None and bundle.status in {_Status.REVIEW, _Status.DEPRECATED},
            "can_deprecate": bundle.status == _Status.PUBLISHED,
            "can_push": bundle.status == _Status.PUBLISHED and bundle.oci_state in {_Oci.NONE, _Oci.FAILED},
        }

    def overview_tab(self, bundle: SkillBundle) -> dict[str, Any]:
        why = withheld(self, bundle)
        text = None if why else reading.text_of(bundle.pk)
        is_markdown = bundle.content_type.partition(";")[0] in {"text/markdown", "text/x-markdown"}
        return {
            "rendered": rendering.rendered(text) if text is not None and is_markdown else None,
            "withheld": why,
            "is_text": text is not None,
            "is_markdown": is_markdown,
            "is_from_source": bool(bundle.source_name) and source_reading.source_named(bundle.source_name) is not None,
        }

    def source_tab(self, bundle: SkillBundle) -> dict[str, Any]:
        if why := withheld(self, bundle):
            return {"withheld": why}
        text = reading.text_of(bundle.pk)
        found: dict[int, list[Any]] = defaultdict(list)
        for finding in bundle.findings.all():
            if finding.line and not finding.path:
                found[finding.line].append({"finding": finding, "chip": SEVERITY[finding.severity]})
        return {"lines": rendering.source_lines(text, found) if text is not None else None}

    def findings_tab(self, bundle: SkillBundle) -> dict[str, Any]:
        rows = [{"finding": each, "chip": SEVERITY[each.severity]} for each in bundle.findings.all()]
        return {"rows": rows, "is_text": rules.is_text(bundle.content_type), "scanners": bundle.scanners}

    def grants_of(self, bundle: SkillBundle) -> list[dict[str, Any]]:
        body, _ = selectors.bundle_json(bundle.pk, with_content=False)
        grants: list[dict[str, Any]] = orjson.loads(body)["grants"]
        return grants

    def promotions_tab(self, bundle: SkillBundle) -> dict[str, Any]:
        tones = {"proposed": ("info", "pending"), "approved": ("ok", "check_circle"), "rejected": ("muted", "block")}
        rows = [{"promotion": each, "tone": tones[each.status]} for each in bundle.promotions.all()]
        scopes = [each for each in Scope if each.value != bundle.scope]
        return {"promotions": rows, "scopes": scopes, "raw": {}, "errors": {}}

    def versions_tab(self, bundle: SkillBundle) -> dict[str, Any]:
        versions = [{"bundle": each, **chips_of(each)} for each in selectors.versions_of(bundle.name)]
        return {"versions": versions}

    def audited(self, bundle: SkillBundle) -> AuditFilter:
        return AuditFilter(resource=f"SkillBundle/{bundle.name}@{bundle.version}")


def withheld(page: ConsolePage, bundle: SkillBundle) -> str:
    """Why who looks at a page may not see the bundle's content; empty when they may."""
    return "" if page.may_write else selectors.why_withheld(bundle)


class BundleContent(ConsolePage):
    """The content as a file, which no browser is to open."""

    resource = "skills"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = selectors.bundle_by_id(bundle_id)
        if why := withheld(self, bundle):
            raise ForbiddenError(f"The content is for operators. {why}")
        content = selectors.content_of(bundle.pk, bundle.digest)
        if content is None:
            raise SkillBundleNotFoundError("The bundle has no content here.")
        safe = "".join(each if each.isascii() and (each.isalnum() or each in "-_.") else "-" for each in bundle.name)
        end = {"text/markdown": "md", "application/zip": "zip", "application/gzip": "tar.gz"}.get(
            bundle.content_type.partition(";")[0], "bin"
        )
        return HttpResponse(
            content,
            content_type="application/octet-stream",
            headers={
                "Content-Disposition": f'attachment; filename="{safe[:100]}-{bundle.version[:60]}.{end}"',
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "default-src 'none'; sandbox",
            },
        )


class BundleDiff(ConsolePage):
    """What differs between two versions: fields, and content line by line."""

    resource = "skills"
    template_name = "skills/compare.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        new = selectors.bundle_by_id(bundle_id)
        old = selectors.bundle_by_id(parse_uuid(request.GET.get("with", "")))
        kept_back = [{"bundle": each, "withheld": why} for each in (old, new) if (why := withheld(self, each))]
        before, after = (None if kept_back else reading.text_of(each.pk) for each in (old, new))
        is_text = before is not None and after is not None
        changes = rendering.compared(before or "", after or "") if is_text else None
        return self.render(
            {
                "title": f"{old} and {new}",
                "old": old,
                "new": new,
                "rows": _different_fields(old, new),
                "kept_back": kept_back,
                "is_text": is_text,
                "is_same": old.digest == new.digest,
                "changes": changes,
                "gone": sum(each.kind == "gone" for each in changes or ()),
                "came": sum(each.kind == "new" for each in changes or ()),
            }
        )


def _different_fields(old: SkillBundle, new: SkillBundle) -> list[Difference]:
    before, after = _compared_fields(old), _compared_fields(new)
    names = [name for name in before if before[name] != after[name]]
    return differences({name: before[name] for name in names}, {name: after[name] for name in names})


def _compared_fields(bundle: SkillBundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "description": bundle.description or None,
        "scope": bundle.scope,
        "tags": bundle.tags,
        "contentType": bundle.content_type,
        "contentSize": bundle.content_size,
        "digest": bundle.digest,
        "scanStatus": bundle.scan_status,
        "findings": counted(bundle.severities) or None,
    }


class EditBundleGrants(EditGrants[SkillBundle], BundlePage):
    serializer = UpdateBundleSerializer

    def save(self, bundle: SkillBundle, changes: dict[str, Any], precondition: Precondition) -> None:
        bundles.update_bundle(bundle_id=bundle.pk, changes=changes, precondition=precondition, actor=self.actor)


class ProposePromotion(BundlePage):
    http_method_names = ["post"]

    def post(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = self.find(bundle_id)
        raw = {name: request.POST.get(name, "").strip() for name in ("toScope", "notes")}
        serializer: Any = PromotionBodySerializer(data={name: value for name, value in raw.items() if value})
        status = 400
        try:
            serializer.is_valid(raise_exception=True)
            asked = serializer.validated_data
            bundles.propose_promotion(
                bundle_id=bundle_id, to_scope=asked["to_scope"], notes=asked.get("notes") or "", actor=self.actor
            )
        except serializers.ValidationError as exc:
            errors = flatten_errors(exc.detail)
        except InvalidError as exc:
            errors, status = {"toScope": [reason for found in exc.fields.values() for reason in found]}, exc.http_status
        else:
            messages.success(request, f"It is proposed that {bundle} reaches {raw['toScope']}.")
            return HttpResponseRedirect(self.url(bundle_id, tab="promotions"))
        values = self.promotions_tab(bundle) | {"raw": raw, "errors": errors}
        return self.show(bundle, "promotions", values, status=status)


class BundleActions(ObjectActions):
    resource = "skills"
    page = BundlePage

    def do_scan(self, bundle_id: UUID) -> None:
        bundle = selectors.bundle_by_id(bundle_id)
        scanning.request_scan(bundle_id=bundle_id, actor=self.actor)
        messages.info(self.request, f"A worker scans {bundle} now; the result shows here.")

    def do_push(self, bundle_id: UUID) -> None:
        try:
            bundle = publishing.request_push(bundle_id=bundle_id, actor=self.actor)
        except OciStoreNotConfiguredError as exc:
            raise InvalidError("There is no OCI store to push to; SKILL_OCI_REGISTRY_URL names one.") from exc
        messages.info(self.request, f"A worker pushes {bundle} to the store now; the result shows here.")

    def do_review(self, bundle_id: UUID) -> None:
        self._move(bundle_id, _Status.REVIEW)

    def do_publish(self, bundle_id: UUID) -> None:
        self._move(bundle_id, _Status.PUBLISHED)

    def do_deprecate(self, bundle_id: UUID) -> None:
        self._move(bundle_id, _Status.DEPRECATED)

    def do_return(self, bundle_id: UUID) -> None:
        self._move(bundle_id, _Status.DRAFT)

    def do_approve(self, bundle_id: UUID) -> str:
        return self._decide(bundle_id, is_approved=True)

    def do_reject(self, bundle_id: UUID) -> str:
        return self._decide(bundle_id, is_approved=False)

    def do_delete(self, bundle_id: UUID) -> str:
        bundle = selectors.bundle_by_id(bundle_id)
        self.require_typed(bundle.name)
        bundles.delete_bundle(
            bundle_id=bundle_id, reason=self.reason, precondition=same_generation(self.request), actor=self.actor
        )
        messages.success(self.request, f"Skill bundle {bundle} is deleted.")
        return reverse("admin:skills")

    def _move(self, bundle_id: UUID, status: SkillBundle.Status) -> None:
        bundle = selectors.bundle_by_id(bundle_id)
        bundles.update_bundle(
            bundle_id=bundle_id,
            changes={"status": status},
            precondition=same_generation(self.request),
            actor=self.actor,
        )
        messages.success(self.request, f"{bundle} is {STATUS[status][2].lower()} now.")

    def _decide(self, bundle_id: UUID, *, is_approved: bool) -> str:
        bundle = selectors.bundle_by_id(bundle_id)
        promotion = bundles.decide_promotion(
            bundle_id=bundle_id,
            promotion_id=parse_uuid(self.request.POST.get("promotion", "")),
            is_approved=is_approved,
            actor=self.actor,
        )
        word = SkillPromotion.Status(promotion.status).label.lower()
        messages.success(self.request, f"The promotion of {bundle} to {promotion.to_scope} is {word}.")
        return self.next_or(BundlePage.url(bundle_id, tab="promotions"))


class BundleByName(ByName):
    resource = "skills"
    page = BundlePage
    missing = SkillBundleNotFoundError

    def find(self, name: str) -> SkillBundle | None:
        return selectors.bundle_named(name)


def register() -> None:
    """Called by `skills.admin`."""
    site: Any = admin.site
    site.add_page("skills/<uuid:bundle_id>/", BundlePage.as_view(), "skill")
    site.add_page("skills/<uuid:bundle_id>/content/", BundleContent.as_view(), "skill_content")
    site.add_page("skills/<uuid:bundle_id>/compare/", BundleDiff.as_view(), "skill_compare")
    site.add_page("skills/<uuid:bundle_id>/grants/", EditBundleGrants.as_view(), "skill_grants")
    site.add_page("skills/<uuid:bundle_id>/promotions/", ProposePromotion.as_view(), "skill_promotions")
    site.add_page("skills/<uuid:bundle_id>/do/<str:action>/", BundleActions.as_view(), "skill_do")
    site.add_page("skill-named/<path:name>/", BundleByName.as_view(), "skill_named")
    site.add_object_page("SkillBundle", "admin:skill_named")
