"""When bundles are scanned, and what follows from what is found.

A scan belongs to the content that a bundle has when it begins: should other content come meanwhile, its result is
dropped. A worker that dies leaves a lease behind; once that has run out the sweep hands the scan to another one.
"""

from collections import Counter
from datetime import timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from opencrane.actor import SYSTEM, Actor
from opencrane.masking import mask_text
from opencrane.tasks import enqueue_on_commit
from operations.services import audit
from skills import rules, selectors
from skills.errors import OciStoreNotConfiguredError
from skills.models import ScanFinding, SkillBundle
from skills.oci.errors import RegistryError, RegistryUnavailableError
from skills.scanning.findings import FAILING, Finding, Report, ranked
from skills.scanning.sandbox import Limits, SandboxError, scan
from skills.services.publishing import pull_content

log = structlog.get_logger(__name__)

TASK = "skills.scan_bundle"
BATCH = 200
# How often a scan may be begun before it is given up; each time the worker, or the machine, has let it down.
MAX_ATTEMPTS = 4
# Beyond the time that a scan may take, until it counts as lost with its worker.
GRACE = timedelta(seconds=60)
NO_CONTENT = "It has no content, and there is no OCI store to take it from."
_STATUS = SkillBundle.ScanStatus


def reset_scan(bundle: SkillBundle) -> None:
    """Note on a row about to be saved that nothing is known of its content; its findings are the caller's to delete."""
    bundle.is_cleared = False
    bundle.scan_error = ""
    bundle.scanned_at = None
    bundle.scanners, bundle.severities = [], {}
    _set_due(bundle)


def _set_due(bundle: SkillBundle) -> None:
    is_scannable = bundle.content_size is not None or bool(settings.SKILL_OCI_REGISTRY_URL)
    bundle.scan_status = _STATUS.PENDING if is_scannable else _STATUS.UNAVAILABLE
    bundle.scan_error = "" if is_scannable else NO_CONTENT
    bundle.scan_attempts = 0
    bundle.scan_not_before = timezone.now()


def enqueue_scan(bundle: SkillBundle) -> None:
    """Wake a worker for a bundle that waits for its scan; call in the transaction that saved it."""
    if bundle.scan_status == _STATUS.PENDING:
        enqueue_on_commit(TASK, str(bundle.pk))


@transaction.atomic(durable=True)
def request_scan(*, bundle_id: UUID | None, actor: Actor) -> SkillBundle:
    """Have a bundle scanned again. What the last scan said stands until the new one ends.

    Raises:
        SkillBundleNotFoundError
    """
    bundle = selectors.bundle_for_update(bundle_id)
    _set_due(bundle)
    bundle.save(update_fields=["scan_status", "scan_error", "scan_attempts", "scan_not_before"])
    enqueue_scan(bundle)
    audit.record(
        action="skill_bundle.scan_requested",
        resource=f"SkillBundle/{bundle.name}@{bundle.version}",
        message=f"Asked for a scan of skill bundle {bundle}.",
        actor=actor,
    )
    return bundle


def scans_due() -> list[UUID]:
    """Bundles whose scan is due, also those whose worker was lost; those waiting longest first."""
    return selectors.scans_due(timezone.now(), BATCH)


def scan_bundle(*, bundle_id: UUID) -> bool:
    """Scan one bundle and record what is found; False when there was nothing to do. Safe to run twice or late."""
    bundle = _claim(bundle_id)
    if bundle is None:
        return False
    try:
        content = selectors.content_of(bundle.pk, bundle.digest) or _pulled(bundle)
    except RegistryUnavailableError as exc:
        _put_off(bundle, _STATUS.UNAVAILABLE, f"The OCI store does not give its content: {exc.message}")
        return True
    except RegistryError as exc:
        _give_up(bundle, _STATUS.UNAVAILABLE, f"The OCI store does not give its content: {exc.message}")
        return True
    except OciStoreNotConfiguredError:
        _give_up(bundle, _STATUS.UNAVAILABLE, NO_CONTENT)
        return True
    if content is None:
        return True
    try:
        report = scan(content, name=bundle.name, content_type=bundle.content_type, limits=limits())
    except SandboxError as exc:
        # The machine's fault and not the bundle's: no processes, no disk. It may go better later.
        _put_off(bundle, _STATUS.FAILED, f"The scan could not be run: {exc}")
        return True
    return record_report(bundle, report)


def limits() -> Limits:
    """What a scan may use, from the settings."""
    return Limits(seconds=settings.SCAN_TIMEOUT_SECONDS, memory_mb=settings.SCAN_MEMORY_MB)


def _lease() -> timedelta:
    return timedelta(seconds=2 * settings.SCAN_TIMEOUT_SECONDS) + GRACE


@transaction.atomic(durable=True)
def _claim(bundle_id: UUID) -> SkillBundle | None:
    now = timezone.now()
    waiting = SkillBundle.objects.filter(
        pk=bundle_id, scan_status__in=[_STATUS.PENDING, _STATUS.SCANNING], scan_not_before__lte=now
    )
    bundle = waiting.select_for_update(skip_locked=True).first()
    if bundle is None:
        return None
    if bundle.scan_attempts >= MAX_ATTEMPTS:
        _record_end(
            bundle, _STATUS.FAILED, f"The scan was begun {bundle.scan_attempts} times and never came to an end."
        )
        return None
    bundle.scan_attempts += 1
    bundle.scan_status = _STATUS.SCANNING
    # The lease is also the retry: should this worker die, the scan falls due again by itself.
    bundle.scan_not_before = now + _lease()
    bundle.save(update_fields=["scan_attempts", "scan_status", "scan_not_before"])
    return bundle


def _mine(bundle: SkillBundle) -> "selectors.Bundles":
    """The row, while it is still this scan that counts: same content, and nobody has asked for another one."""
    return SkillBundle.objects.filter(
        pk=bundle.pk,
        digest=bundle.digest,
        content_type=bundle.content_type,
        scan_status=_STATUS.SCANNING,
        scan_not_before=bundle.scan_not_before,
    )


@transaction.atomic(durable=True)
def record_report(claimed: SkillBundle, report: Report) -> bool:
    """Replace a bundle's findings by those of a scan, and say whether it has passed.

    Args:
        claimed: the row as it was when the scan began; if it has other content by now, nothing is recorded.
    """
    bundle = _mine(claimed).select_for_update().first()
    if bundle is None:
        return False
    findings = ranked(report.findings)
    ScanFinding.objects.filter(bundle=bundle).delete()
    ScanFinding.objects.bulk_create(_row(bundle, position, finding) for position, finding in enumerate(findings))
    counted = Counter(finding.severity for finding in findings)
    bundle.severities = {name: counted[name] for name in ScanFinding.Severity.values if counted[name]}
    bundle.scanners = [scanner.as_json() for scanner in report.scanners]
    failed = bool(report.error) or any(counted[name] for name in FAILING)
    bundle.is_cleared = not failed
    _record_end(bundle, _STATUS.FAILED if failed else _STATUS.PASSED, report.error)
    return True


def _pulled(bundle: SkillBundle) -> bytes | None:
    """The content that the OCI store has, now in the row as well; None when it turned out to be none for a bundle."""
    content = pull_content(bundle.digest)
    try:
        if len(content) > rules.CONTENT_MAX_BYTES:
            raise ValueError("It is too large.")
        if rules.is_text(bundle.content_type):
            rules.check_text(content)
    except ValueError as exc:
        _give_up(bundle, _STATUS.FAILED, f"What the OCI store has is not fit for a bundle: {exc}")
        return None
    _mine(bundle).filter(content=None).update(content=content, content_size=len(content))
    return content


def _put_off(bundle: SkillBundle, at_last: str, why: str) -> None:
    """Try again later, with a delay that grows; after MAX_ATTEMPTS the scan ends as `at_last`."""
    log.warning("scan put off", bundle=str(bundle.pk), error=why)
    if bundle.scan_attempts >= MAX_ATTEMPTS:
        _give_up(bundle, at_last, why)
    else:
        later = timezone.now() + timedelta(seconds=5 * 4**bundle.scan_attempts)
        _mine(bundle).update(scan_status=_STATUS.PENDING, scan_not_before=later, scan_error=why)


@transaction.atomic(durable=True)
def _give_up(claimed: SkillBundle, status: str, why: str) -> None:
    bundle = _mine(claimed).select_for_update().first()
    if bundle is not None:
        _record_end(bundle, status, why)


def _record_end(bundle: SkillBundle, status: str, error: str) -> None:
    """Write the end of a scan into its locked row."""
    bundle.scan_status = SkillBundle.ScanStatus(status)
    bundle.scan_error = error
    bundle.is_cleared = bundle.is_cleared and not error
    bundle.scanned_at = timezone.now()
    bundle.save(update_fields=["scan_status", "scan_error", "is_cleared", "scanned_at", "severities", "scanners"])
    found = ", ".join(f"{count} {name}" for name, count in bundle.severities.items()) or "no findings"
    audit.record(
        action="skill_bundle.scanned",
        resource=f"SkillBundle/{bundle.name}@{bundle.version}",
        message=f"Scan of skill bundle {bundle}: {status}, {error or found}.",
        after={"scanStatus": str(status), "digest": bundle.digest, "findings": bundle.severities},
        actor=SYSTEM,
    )


def _row(bundle: SkillBundle, position: int, finding: Finding) -> ScanFinding:
    return ScanFinding(
        bundle=bundle,
        position=position,
        scanner=finding.scanner,
        rule=finding.rule,
        severity=finding.severity,
        path=finding.path,
        line=finding.line,
        # Versions that other people's scanners report may be addresses with passwords in them.
        message=mask_text(finding.message),
    )
