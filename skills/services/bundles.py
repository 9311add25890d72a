"""Skill bundles: make, change, publish, delete; grants and promotions go with them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from opencrane.actor import Actor
from opencrane.errors import ConflictError, InvalidError
from opencrane.rows import REQUIRED, Fields, one, unique
from opencrane.tasks import enqueue_on_commit
from operations.services import audit
from policies.models import Grant
from policies.services.grants import delete_grants, set_grants
from skills import rules, selectors
from skills.errors import BundleImmutableError, ScanRequiredError, SkillBundleExistsError
from skills.models import ScanFinding, SkillBundle, SkillPromotion
from skills.scanning.findings import FAILING
from skills.services import scanning

Precondition = Callable[[int], None]
Values = dict[str, Any]
_FIELDS = Fields(
    {"name": REQUIRED, "version": REQUIRED, "description": "", "scope": REQUIRED, "tags": list, "source_name": ""},
    {"source_name": "sourceName"},
)
_TRAIL = audit.Trail("skill_bundle", "SkillBundle")
_IDENTITY = {"name", "version"}
_FIRST = (SkillBundle.Status.DRAFT, SkillBundle.Status.REVIEW)


def create_bundle(*, values: Values, actor: Actor) -> UUID:
    """Make a draft and return its id; its content is scanned in the background.

    Args:
        values: fields of SkillBundle, `grants` (as `resolve_grants` takes them) and `promotions`, checked by the
            caller. `content` are bytes; without them `digest` names what the OCI store holds.

    Raises:
        SkillBundleExistsError: there is such a version already.
        ScanRequiredError: it is to be published at once.
        InvalidError: the digest does not fit the content, or something else makes no sense.
        ReferenceNotFoundError: a grant names what does not exist.
    """
    bundle = SkillBundle()
    _FIELDS.fill(bundle, values)
    bundle.status = values.get("status") or SkillBundle.Status.DRAFT
    if bundle.status == SkillBundle.Status.PUBLISHED:
        raise ScanRequiredError(detail="Make a draft, wait until its scan has passed, then publish it.")
    if bundle.status not in _FIRST:
        raise InvalidError(fields={"status": ["A new bundle is a draft, or in review."]})
    if not values.get("content") and not values.get("digest"):
        why = "Give the content, or the digest of content that is in the OCI store."
        raise InvalidError(fields={"content": [why]})
    with _new_version(), transaction.atomic(durable=True):
        after = _set_content(bundle, values)[1]
        bundle.save(force_insert=True)
        after |= _FIELDS.shown(bundle) | {"status": bundle.status} | _set_parts(bundle, values, actor)[1]
        scanning.enqueue_scan(bundle)
        _record(bundle, "created", f"Created skill bundle {bundle}.", None, after, actor)
    return bundle.pk


def update_bundle(
    *, bundle_id: UUID | None, changes: Values, precondition: Precondition = lambda _: None, actor: Actor
) -> None:
    """Set what `changes` holds; None clears. A list of grants or promotions replaces the old one whole.

    Changing nothing writes and audits nothing. New content is scanned, and what was found in the old one forgotten.
    Publishing hands the content to the OCI store, where there is one.

    Raises:
        SkillBundleNotFoundError, PreconditionFailedError, and as `create_bundle`.
        BundleImmutableError: it has been published, and its content, name or version would change.
        ScanRequiredError: it is to be published and its scan has not passed.
    """
    with _new_version(), transaction.atomic(durable=True):
        bundle = selectors.bundle_for_update(bundle_id)
        precondition(bundle.generation)
        before, after = _FIELDS.change(bundle, changes)
        gone, came = _set_content(bundle, changes)
        if bundle.published_at and (came or _IDENTITY & set(after)):
            changed = ", ".join(sorted({*came, *(_IDENTITY & set(after))}))
            raise BundleImmutableError(detail=f"This would change {changed} of what was published.")
        for part_gone, part_came in ((gone, came), _set_parts(bundle, changes, actor)):
            before |= part_gone
            after |= part_came
        verb = _set_status(bundle, changes.get("status", bundle.status), before, after)
        if not (before or after):
            return
        bundle.generation += 1
        bundle.updated_at = timezone.now()
        bundle.save()
        if came:
            ScanFinding.objects.filter(bundle=bundle).delete()
            scanning.enqueue_scan(bundle)
        if verb == "published" and bundle.oci_state == SkillBundle.OciState.PENDING:
            enqueue_on_commit("skills.push_bundle", str(bundle.pk))
        changed = ", ".join(sorted({*before, *after}))
        message = f"Changed {changed} of skill bundle {bundle}."
        _record(bundle, verb, message if verb == "updated" else f"{verb.title()} {bundle}.", before, after, actor)


def delete_bundle(
    *, bundle_id: UUID | None, reason: str = "", precondition: Precondition = lambda _: None, actor: Actor
) -> None:
    """Remove a bundle in whatever state it is, with its findings and promotions, and every grant about it.

    What the OCI store has stays there; without the row nobody is entitled to it.

    Raises:
        SkillBundleNotFoundError, PreconditionFailedError.
    """
    with transaction.atomic(durable=True):
        bundle = selectors.bundle_for_update(bundle_id)
        precondition(bundle.generation)
        grants = delete_grants(Grant.PayloadType.SKILL, str(bundle.pk))
        before = {"name": bundle.name, "version": bundle.version, "digest": bundle.digest, "status": bundle.status}
        bundle.delete()
        message = f"Deleted skill bundle {bundle}" + (f" and {grants} grants about it." if grants else ".")
        message += f" Reason: {reason}" if reason else ""
        _record(bundle, "deleted", message, before, None, actor)


def propose_promotion(*, bundle_id: UUID, to_scope: str, notes: str, actor: Actor) -> SkillPromotion:
    """Ask for a bundle to reach `to_scope`; somebody else may approve it.

    Raises:
        SkillBundleNotFoundError
        InvalidError: it has that scope already.
    """
    with transaction.atomic(durable=True):
        bundle = selectors.bundle_for_update(bundle_id)
        [promotion] = _promotions(bundle, [{"to_scope": to_scope, "notes": notes}], actor)
        promotion.save(force_insert=True)
        _touch(bundle)
        message = f"Proposed that skill bundle {bundle} goes from {promotion.from_scope} to {to_scope}."
        _record(bundle, "promotion_proposed", message, None, _promoted(promotion), actor)
    return promotion


def decide_promotion(*, bundle_id: UUID, promotion_id: UUID | None, is_approved: bool, actor: Actor) -> SkillPromotion:
    """Approve a proposed promotion, which gives the bundle its new scope, or reject it.

    Raises:
        SkillBundleNotFoundError
        ConflictError: it has been decided or is gone, or the bundle's scope is another by now.
    """
    with transaction.atomic(durable=True):
        bundle = selectors.bundle_for_update(bundle_id)
        decided = ConflictError("That promotion has been decided or withdrawn meanwhile.")
        promotion = one(bundle.promotions, decided, pk=promotion_id, status=SkillPromotion.Status.PROPOSED)
        before = {"scope": bundle.scope, "promotion": promotion.status}
        if is_approved and bundle.scope != promotion.from_scope:
            raise ConflictError(f"The bundle's scope is {bundle.scope} by now, not {promotion.from_scope}.")
        word = SkillPromotion.Status.APPROVED if is_approved else SkillPromotion.Status.REJECTED
        promotion.status = word
        promotion.save(update_fields=["status"])
        if is_approved:
            bundle.scope = promotion.to_scope
        _touch(bundle)
        after = {"scope": bundle.scope, "promotion": str(word)}
        message = f"{word.title()} that skill bundle {bundle} goes from {promotion.from_scope} to {promotion.to_scope}."
        _record(bundle, f"promotion_{word}", message, before, after, actor)
    return promotion


# -- status -----------------------------------------------------------------------------------------------------------


def _set_status(bundle: SkillBundle, wanted: str | None, before: Values, after: Values) -> str:
    """Move the bundle to another status, and say what became of it as the audit trail has it."""
    new = wanted or (bundle.status if bundle.published_at else SkillBundle.Status.DRAFT)
    if new == bundle.status:
        return "updated"
    if bundle.published_at and new in _FIRST:
        raise BundleImmutableError(f"What has been published cannot become a {new} again; make a new version.")
    if new == SkillBundle.Status.PUBLISHED:
        require_pass(bundle)
        bundle.published_at = bundle.published_at or timezone.now()
        if settings.SKILL_OCI_REGISTRY_URL and bundle.oci_state != SkillBundle.OciState.PUSHED:
            bundle.oci_state, bundle.oci_error, bundle.oci_attempts = SkillBundle.OciState.PENDING, "", 0
            bundle.oci_not_before = timezone.now()
    before["status"], after["status"] = bundle.status, str(new)
    bundle.status = SkillBundle.Status(new)
    return str(new) if new in {SkillBundle.Status.PUBLISHED, SkillBundle.Status.DEPRECATED} else "updated"


def require_pass(bundle: SkillBundle) -> None:
    """Refuse what no scan has found fit.

    Raises:
        ScanRequiredError: says what its scan said.
    """
    match bundle.scan_status:
        case SkillBundle.ScanStatus.PASSED:
            return
        case SkillBundle.ScanStatus.PENDING | SkillBundle.ScanStatus.SCANNING:
            why = "Its scan has not ended yet."
        case SkillBundle.ScanStatus.UNAVAILABLE:
            why = "It has no content that could be scanned."
        case _:
            counted = ", ".join(f"{bundle.severities[name]} {name}" for name in FAILING if name in bundle.severities)
            why = bundle.scan_error or f"Its scan failed with findings: {counted}."
    raise ScanRequiredError(detail=why)


# -- content ----------------------------------------------------------------------------------------------------------


def _set_content(bundle: SkillBundle, values: Values) -> tuple[Values, Values]:
    """Take over content, its type and digest where `values` has them; what went and what came."""
    if not {"content", "content_type", "digest"} & set(values):
        return {}, {}
    old = _about_content(bundle)
    is_given = "content" in values
    content: bytes | None = values.get("content")
    digest: str | None = values.get("digest")
    content_type = rules.DEFAULT_TYPE if "content_type" in values else bundle.content_type
    content_type = values.get("content_type") or content_type
    if content is not None:
        _check_content(content, content_type)
        computed = rules.digest_of(content)
        if digest not in {None, computed}:
            raise InvalidError(fields={"digest": [f"The content has another one: {computed}."]})
        if computed != bundle.digest or bundle.content_size is None:
            bundle.content, bundle.content_size, bundle.digest = content, len(content), computed
    elif is_given:
        bundle.content = bundle.content_size = None
        bundle.digest = digest or bundle.digest
    elif digest and digest != bundle.digest:
        if bundle.content_size is not None:
            raise InvalidError(fields={"digest": [f"The content has another one: {bundle.digest}."]})
        bundle.digest = digest
    if content_type != bundle.content_type:
        if bundle.content_size is not None and content is None:
            _check_content(bytes(bundle.content or b""), content_type)
        bundle.content_type = content_type
    new = _about_content(bundle)
    changed = [name for name in new if new[name] != old.get(name)]
    if not changed:
        return {}, {}
    scanning.reset_scan(bundle)
    bundle.oci_state = SkillBundle.OciState.NONE
    bundle.oci_digest = bundle.oci_reference = bundle.oci_error = ""
    return {name: old[name] for name in changed if old.get(name)}, {name: new[name] for name in changed}


def _about_content(bundle: SkillBundle) -> Values:
    return {"digest": bundle.digest, "contentType": bundle.content_type, "contentSize": bundle.content_size}


def _check_content(content: bytes, content_type: str) -> None:
    if rules.is_text(content_type):
        try:
            rules.check_text(content)
        except ValueError as exc:
            raise InvalidError(fields={"content": [str(exc)]}) from exc


# -- grants and promotions --------------------------------------------------------------------------------------------


def _set_parts(bundle: SkillBundle, values: Values, actor: Actor) -> tuple[Values, Values]:
    """Replace grants and promotions where `values` has them; what went and what came."""
    before: Values = {}
    after: Values = {}
    if "grants" in values:
        before["grants"], after["grants"] = set_grants(
            Grant.PayloadType.SKILL, str(bundle.pk), values["grants"] or [], scope=bundle.scope
        )
    if "promotions" in values:
        before["promotions"], after["promotions"] = _replace_promotions(bundle, values["promotions"] or [], actor)
    return {key: value for key, value in before.items() if value}, {key: value for key, value in after.items() if value}


def _replace_promotions(bundle: SkillBundle, wanted: list[Values], actor: Actor) -> tuple[list[Values], list[Values]]:
    """Make the bundle have exactly these; one that says the same stays the row it is."""
    present = list(SkillPromotion.objects.filter(bundle=bundle))
    came = []
    for promotion in _promotions(bundle, wanted, actor):
        match = next((row for row in present if _promoted(row) == _promoted(promotion)), None)
        if match is not None:
            present.remove(match)
            continue
        promotion.save(force_insert=True)
        came.append(_promoted(promotion))
    SkillPromotion.objects.filter(pk__in=[row.pk for row in present]).delete()
    return [_promoted(row) for row in present], came


def _promotions(bundle: SkillBundle, wanted: list[Values], actor: Actor) -> list[SkillPromotion]:
    found = []
    for index, values in enumerate(wanted):
        promotion = SkillPromotion(
            bundle=bundle,
            from_scope=values.get("from_scope") or bundle.scope,
            to_scope=values["to_scope"],
            promoted_by=values.get("promoted_by") or actor.name,
            status=values.get("status") or SkillPromotion.Status.PROPOSED,
            notes=values.get("notes") or "",
        )
        if promotion.from_scope == promotion.to_scope:
            raise InvalidError(fields={f"promotions.{index}.toScope": ["Has to differ from fromScope."]})
        found.append(promotion)
    return found


def _promoted(promotion: SkillPromotion) -> Values:
    found = {
        "fromScope": str(promotion.from_scope),
        "toScope": str(promotion.to_scope),
        "promotedBy": promotion.promoted_by,
        "status": str(promotion.status),
    }
    return found | ({"notes": promotion.notes} if promotion.notes else {})


def _touch(bundle: SkillBundle) -> None:
    bundle.generation += 1
    bundle.updated_at = timezone.now()
    bundle.save(update_fields=["scope", "generation", "updated_at"])


def _new_version() -> AbstractContextManager[None]:
    taken = SkillBundleExistsError(detail="A version is never changed once it is out; raise it.")
    return unique("skill_bundle_version_key", taken)


def _record(bundle: SkillBundle, verb: str, message: str, before: Any, after: Any, actor: Actor) -> None:
    _TRAIL.record(f"{bundle.name}@{bundle.version}", verb, message, before, after, actor)
