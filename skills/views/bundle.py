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
from opencrane.console.access import READ, may
from opencrane.console.listing import page_of
from opencrane.console.pages import ConsoleAction, ConsolePage, request_id, sentence
from opencrane.console.values import Difference, differences
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError, InvalidError
from operations import audit_reading
from operations.audit_pages import AuditFilter
from policies.models import Scope
from policies.views.grant_rows import GrantRows
from policies.views.groups import suggestions
from skills import reading, rendering, rules, selectors, source_reading
from skills.api.serializers import PromotionBodySerializer, UpdateBundleSerializer
from skills.errors import OciStoreNotConfiguredError, SkillBundleNotFoundError
from skills.models import SkillBundle, SkillPromotion
from skills.services import bundles, publishing, scanning
from skills.views.chips import SEVERITY, STATUS, chips_of, counted, size_of

TABS = {
    "overview": "Overview",
    "source": "Source",
    "findings": "Findings",
    "grants": "Grants",
    "promotions": "Promotions",
    "versions": "Versions",
    "audit": "Audit",
}
AUDIT_ROWS = 25
_Status, _Scan, _Oci = SkillBundle.Status, SkillBundle.ScanStatus, SkillBundle.OciState


def bundle_url(bundle_id: UUID, tab: str = "") -> str:
    url = reverse("admin:skill", args=[bundle_id])
    return f"{url}?tab={tab}" if tab else url


def header_values(bundle: SkillBundle) -> dict[str, Any]:
    """Chips, what may be done next, and whether something is under way that the page should follow."""
    is_scanning = bundle.scan_status in {_Scan.PENDING, _Scan.SCANNING}
    return {
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


class BundlePage(ConsolePage):
    resource = "skills"
    template_name = "skills/bundle.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = selectors.bundle_by_id(bundle_id)
        if request.GET.get("part") == "header":
            return self._header(bundle)
        tabs = visible_tabs(self)
        tab = request.GET.get("tab", "")
        tab = tab if tab in tabs else "overview"
        return bundle_page(self, bundle, tab, getattr(self, f"_{tab}")(bundle))

    def _header(self, bundle: SkillBundle) -> HttpResponse:
        values = header_values(bundle)
        response = self.fragment("skills/_bundle_header.html", values)
        if not values["is_moving"]:
            # What was under way has ended; the whole page has more to say.
            response["HX-Refresh"] = "true"
        return response

    def _overview(self, bundle: SkillBundle) -> dict[str, Any]:
        text = reading.text_of(bundle.pk)
        is_markdown = bundle.content_type.partition(";")[0] in {"text/markdown", "text/x-markdown"}
        return {
            "rendered": rendering.rendered(text) if text is not None and is_markdown else None,
            "is_text": text is not None,
            "is_markdown": is_markdown,
            "is_from_source": bool(bundle.source_name) and source_reading.source_named(bundle.source_name) is not None,
        }

    def _source(self, bundle: SkillBundle) -> dict[str, Any]:
        text = reading.text_of(bundle.pk)
        found: dict[int, list[Any]] = defaultdict(list)
        for finding in bundle.findings.all():
            if finding.line and not finding.path:
                found[finding.line].append({"finding": finding, "chip": SEVERITY[finding.severity]})
        return {"lines": rendering.source_lines(text, found) if text is not None else None}

    def _findings(self, bundle: SkillBundle) -> dict[str, Any]:
        rows = [{"finding": each, "chip": SEVERITY[each.severity]} for each in bundle.findings.all()]
        return {"rows": rows, "is_text": rules.is_text(bundle.content_type), "scanners": bundle.scanners}

    def _grants(self, bundle: SkillBundle) -> dict[str, Any]:
        body, _ = selectors.bundle_json(bundle.pk, with_content=False)
        grants = orjson.loads(body)["grants"]
        rows = GrantRows.of(grants, scope=bundle.scope, scopes=Scope.values)
        return {"grants": grants, "rows": rows, **suggestions()}

    def _promotions(self, bundle: SkillBundle) -> dict[str, Any]:
        return promotion_values(bundle)

    def _versions(self, bundle: SkillBundle) -> dict[str, Any]:
        versions = [{"bundle": each, **chips_of(each)} for each in selectors.versions_of(bundle.name)]
        return {"versions": versions}

    def _audit(self, bundle: SkillBundle) -> dict[str, Any]:
        wanted = AuditFilter(resource=f"SkillBundle/{bundle.name}@{bundle.version}")
        found = audit_reading.read_page(wanted, self.request, rows=AUDIT_ROWS)
        return {"entries": found.entries, "listing": page_of(self.request, found.entries, found.next_cursor)}


def visible_tabs(page: ConsolePage) -> dict[str, str]:
    return {key: label for key, label in TABS.items() if key != "audit" or may(page.request.user, "audit", READ)}


def bundle_page(
    page: ConsolePage, bundle: SkillBundle, tab: str, values: dict[str, Any], status: int = 200
) -> HttpResponse:
    """A bundle's page at one tab."""
    shown = header_values(bundle) | {"generation": bundle.generation} | values
    shown |= {"title": f"{bundle.name} {bundle.version}", "tab": tab, "tabs": visible_tabs(page)}
    shown["tab_template"] = f"skills/bundle_{tab}.html"
    return page.render(shown, template="skills/bundle.html", status=status)


def promotion_values(bundle: SkillBundle) -> dict[str, Any]:
    """The promotions tab."""
    tones = {"proposed": ("info", "pending"), "approved": ("ok", "check_circle"), "rejected": ("muted", "block")}
    rows = [{"promotion": each, "tone": tones[each.status]} for each in bundle.promotions.all()]
    scopes = [each for each in Scope if each.value != bundle.scope]
    return {"promotions": rows, "scopes": scopes, "raw": {}, "errors": {}}


class BundleContent(ConsolePage):
    """The content as a file, which no browser is to open."""

    resource = "skills"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = selectors.bundle_by_id(bundle_id)
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
        before, after = (reading.text_of(each.pk) for each in (old, new))
        is_text = before is not None and after is not None
        changes = rendering.compared(before or "", after or "") if is_text else None
        return self.render(
            {
                "title": f"{old} and {new}",
                "old": old,
                "new": new,
                "rows": _different_fields(old, new),
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


class EditGrants(ConsolePage):
    """Replaces the bundle's list of grants."""

    resource = "skills"
    http_method_names = ["post"]

    def post(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = selectors.bundle_by_id(bundle_id)
        rows = GrantRows.posted(request.POST, scope=bundle.scope, scopes=Scope.values)
        serializer: Any = UpdateBundleSerializer(data={"grants": rows.data()})
        status, rest = 400, {}
        try:
            serializer.is_valid(raise_exception=True)
            bundles.update_bundle(
                bundle_id=bundle_id,
                changes=dict(serializer.validated_data),
                precondition=same_generation(request),
                actor=self.actor,
            )
        except serializers.ValidationError as exc:
            rest = rows.note(flatten_errors(exc.detail))
        except DomainError as exc:
            rest, status = rows.note(exc.fields), exc.http_status
            if not exc.fields:
                rest = {"body": [f"{sentence(exc)} (request {request_id(request)})"]}
        else:
            messages.success(request, f"The grants of {bundle} are saved.")
            return HttpResponseRedirect(bundle_url(bundle_id, "grants"))
        problems = [reason for reasons in rest.values() for reason in reasons]
        seen = request.POST.get("generation", "")
        values = {"rows": rows, "problems": problems, "generation": seen, **suggestions()}
        return bundle_page(self, bundle, "grants", values, status=status)


class ProposePromotion(ConsolePage):
    resource = "skills"
    http_method_names = ["post"]

    def post(self, request: HttpRequest, bundle_id: UUID) -> HttpResponse:
        bundle = selectors.bundle_by_id(bundle_id)
        raw = {name: request.POST.get(name, "").strip() for name in ("toScope", "notes")}
        serializer: Any = PromotionBodySerializer(data={name: value for name, value in raw.items() if value})
        try:
            serializer.is_valid(raise_exception=True)
            asked = serializer.validated_data
            bundles.propose_promotion(
                bundle_id=bundle_id, to_scope=asked["to_scope"], notes=asked.get("notes") or "", actor=self.actor
            )
        except serializers.ValidationError as exc:
            values = promotion_values(bundle) | {"raw": raw, "errors": flatten_errors(exc.detail)}
            return bundle_page(self, bundle, "promotions", values, status=400)
        except InvalidError as exc:
            reasons = [reason for found in exc.fields.values() for reason in found]
            values = promotion_values(bundle) | {"raw": raw, "errors": {"toScope": reasons}}
            return bundle_page(self, bundle, "promotions", values, status=exc.http_status)
        messages.success(request, f"It is proposed that {bundle} reaches {raw['toScope']}.")
        return HttpResponseRedirect(bundle_url(bundle_id, "promotions"))


class BundleAction(ConsoleAction):
    """Scan, push, move through its life, decide a promotion, delete."""

    resource = "skills"

    def act(self, *, bundle_id: UUID, action: str) -> str:
        bundle = selectors.bundle_by_id(bundle_id)
        match action:
            case "scan":
                scanning.request_scan(bundle_id=bundle_id, actor=self.actor)
                messages.info(self.request, f"A worker scans {bundle} now; the result shows here.")
            case "push":
                self._push(bundle)
            case "review" | "publish" | "deprecate" | "return":
                self._move(bundle, action)
            case "approve" | "reject":
                self._decide(bundle, is_approved=action == "approve")
                return self.next_or(bundle_url(bundle_id, "promotions"))
            case "delete":
                return self._delete(bundle)
            case _:
                raise InvalidError("There is no such action.")
        return self.next_or(bundle_url(bundle_id))

    def _push(self, bundle: SkillBundle) -> None:
        try:
            publishing.request_push(bundle_id=bundle.pk, actor=self.actor)
        except OciStoreNotConfiguredError as exc:
            raise InvalidError("There is no OCI store to push to; SKILL_OCI_REGISTRY_URL names one.") from exc
        messages.info(self.request, f"A worker pushes {bundle} to the store now; the result shows here.")

    def _move(self, bundle: SkillBundle, action: str) -> None:
        status = {"review": "review", "publish": "published", "deprecate": "deprecated", "return": "draft"}[action]
        bundles.update_bundle(
            bundle_id=bundle.pk,
            changes={"status": status},
            precondition=same_generation(self.request),
            actor=self.actor,
        )
        messages.success(self.request, f"{bundle} is {STATUS[status][2].lower()} now.")

    def _decide(self, bundle: SkillBundle, *, is_approved: bool) -> None:
        promotion = bundles.decide_promotion(
            bundle_id=bundle.pk,
            promotion_id=parse_uuid(self.request.POST.get("promotion", "")),
            is_approved=is_approved,
            actor=self.actor,
        )
        word = SkillPromotion.Status(promotion.status).label.lower()
        messages.success(self.request, f"The promotion of {bundle} to {promotion.to_scope} is {word}.")

    def _delete(self, bundle: SkillBundle) -> str:
        if self.request.POST.get("confirm", "").strip() != bundle.name:
            raise InvalidError(f"Nothing was deleted: the name typed was not {bundle.name}.")
        bundles.delete_bundle(bundle_id=bundle.pk, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"Skill bundle {bundle} is deleted.")
        return reverse("admin:skills")

    def back(self, *, bundle_id: UUID, action: str) -> str:
        return self.next_or(bundle_url(bundle_id))


class BundleByName(ConsolePage):
    """Where links from the audit trail go, which knows `name@version`."""

    resource = "skills"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        bundle = selectors.bundle_named(name)
        if bundle is None:
            raise SkillBundleNotFoundError(f"There is no skill bundle {name} any more.")
        return HttpResponseRedirect(bundle_url(bundle.pk))


def register() -> None:
    """Called by `skills.admin`."""
    site: Any = admin.site
    site.add_page("skills/<uuid:bundle_id>/", BundlePage.as_view(), "skill")
    site.add_page("skills/<uuid:bundle_id>/content/", BundleContent.as_view(), "skill_content")
    site.add_page("skills/<uuid:bundle_id>/compare/", BundleDiff.as_view(), "skill_compare")
    site.add_page("skills/<uuid:bundle_id>/grants/", EditGrants.as_view(), "skill_grants")
    site.add_page("skills/<uuid:bundle_id>/promotions/", ProposePromotion.as_view(), "skill_promotions")
    site.add_page("skills/<uuid:bundle_id>/do/<str:action>/", BundleAction.as_view(), "skill_do")
    site.add_page("skill-named/<path:name>/", BundleByName.as_view(), "skill_named")
    site.add_object_page("SkillBundle", "admin:skill_named")
