"""What can be done to many skill bundles at once. A bundle is called `name@version`."""

from collections.abc import Callable

from django.db.models import Value
from django.db.models.functions import Concat

from cluster.wait import Write
from opencrane.actor import Actor
from opencrane.errors import ConflictError
from operations.services import bulk
from operations.services.bulk import BulkAction, BulkKind
from skills import selectors
from skills.errors import ScanRequiredError, SkillBundleNotFoundError
from skills.models import SkillBundle
from skills.services import bundles, scanning

_Status, _Scan = SkillBundle.Status, SkillBundle.ScanStatus


def _to_bundle(act: Callable[[SkillBundle, str, Actor], object]) -> Callable[[str, str, Actor], Write | None]:
    def run(name: str, reason: str, actor: Actor) -> Write | None:
        bundle = selectors.bundle_at(name)
        if bundle is None:
            raise SkillBundleNotFoundError
        act(bundle, reason, actor)
        return None

    return run


def _scan(bundle: SkillBundle, _reason: str, actor: Actor) -> None:
    asked = scanning.request_scan(bundle_id=bundle.pk, actor=actor)
    if asked.scan_status == _Scan.UNAVAILABLE:
        raise ConflictError("It cannot be scanned.", detail=asked.scan_error)


def _review(bundle: SkillBundle, _reason: str, actor: Actor) -> None:
    # A person may send a draft to review whatever its scan says; of many, only those that are worth the look.
    try:
        bundles.require_pass(bundle)
    except ScanRequiredError as exc:
        raise ScanRequiredError("Only what has passed its scan is sent to review.", detail=exc.detail) from exc
    bundles.update_bundle(bundle_id=bundle.pk, changes={"status": _Status.REVIEW}, actor=actor)


def _publish(bundle: SkillBundle, _reason: str, actor: Actor) -> None:
    bundles.update_bundle(bundle_id=bundle.pk, changes={"status": _Status.PUBLISHED}, actor=actor)


def _deprecate(bundle: SkillBundle, _reason: str, actor: Actor) -> None:
    if bundle.status not in {_Status.PUBLISHED, _Status.DEPRECATED}:
        raise ConflictError(f"Only what is published can be deprecated; its status is {bundle.status}.")
    bundles.update_bundle(bundle_id=bundle.pk, changes={"status": _Status.DEPRECATED}, actor=actor)


SKILL_BUNDLES = BulkKind(
    job="skills.bulk",
    noun="skill bundle",
    model=SkillBundle,
    name=Concat("name", Value("@"), "version"),
    actions={
        "scan": BulkAction(
            label="Scan again",
            icon="radar",
            future="scanned again",
            done="asked for",
            warning="What the last scans said stands until the new ones end. Those without content say so.",
            run=_to_bundle(_scan),
        ),
        "review": BulkAction(
            label="Send to review",
            icon="rate_review",
            future="sent to review",
            done="sent to review",
            warning="Those whose scan has not passed, and those that were published before, are left as they are, and "
            "the result says why.",
            run=_to_bundle(_review),
        ),
        "publish": BulkAction(
            label="Publish",
            icon="verified",
            future="published",
            done="published",
            warning="Whoever is granted them gets them, and their content can never change again; deprecated ones are "
            "published again. Those whose scan has not passed are left as they are, and the result says why.",
            run=_to_bundle(_publish),
        ),
        "deprecate": BulkAction(
            label="Deprecate",
            icon="archive",
            future="deprecated",
            done="deprecated",
            warning="They leave the contracts of all tenants; grants and content stay, and they can be published "
            "again. Those that are not published are left as they are.",
            run=_to_bundle(_deprecate),
        ),
        "delete": bulk.deletion(
            _to_bundle(
                lambda bundle, reason, actor: bundles.delete_bundle(bundle_id=bundle.pk, reason=reason, actor=actor)
            ),
            "Their content, findings and promotions, and every grant about them, go with them; what the OCI "
            "store has stays there. This cannot be undone.",
            takes_reason=True,
        ),
    },
)
bulk.register(SKILL_BUNDLES)
