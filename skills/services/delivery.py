"""Content of bundles for pods: who may have it is decided at each request, and what is given fits its digest."""

import threading
import time
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection

from opencrane.errors import UpstreamError
from policies.compiler import Principal, compiled
from policies.models import Grant
from skills.errors import ScanRequiredError, SkillBundleNotFoundError
from skills.models import SkillBundle
from skills.oci.artifact import digest_of
from skills.oci.errors import RegistryError, RegistryUnavailableError
from skills.oci.store import store
from tenants.models import Tenant

log = structlog.get_logger(__name__)

# A pod waits for the answer: rather the row's copy soon than the store's late.
PATIENCE_SECONDS = 5
DIGEST_LENGTH = len("sha256:") + 64
# After no answer nobody asks for this long: a store that hangs must not take the request threads with it.
PAUSE_SECONDS = 5.0
_asking = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))
_paused_until = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A bundle that a pod may have."""

    bundle_id: UUID
    digest: str
    content_type: str


def delivery_for(*, tenant_id: UUID, digest: str) -> Delivery:
    """The bundle with that content that the tenant is entitled to, right now.

    What does not exist and what the tenant may not have takes the same three queries and ends in the same refusal, so
    that neither answer nor time tells them apart.

    Raises:
        SkillBundleNotFoundError: there is none, it is not for this tenant, or it was never published.
        ScanRequiredError: it is for this tenant, but no scan has cleared it.
    """
    tenants = Tenant.objects.filter(pk=tenant_id)
    name, email, allowlist = tenants.values_list("name", "email", "skill_allowlist").first() or ("", "", [])
    found = SkillBundle.objects.filter(digest=digest[: DIGEST_LENGTH + 1]).order_by("-published_at", "pk")
    candidates = list(found.values_list("pk", "name", "status", "is_cleared", "content_type"))
    decisions = compiled(Principal(tenant_id=tenant_id, tenant_name=name, email=email), Grant.PayloadType.SKILL)
    allowed = {decision.payload_id for decision in decisions if decision.access == "allow"}
    entitled = [
        (bundle_id, status, is_cleared, content_type)
        for bundle_id, bundle_name, status, is_cleared, content_type in candidates
        if str(bundle_id) in allowed and (allowlist is None or bundle_name in allowlist)
    ]
    delivered = (SkillBundle.Status.PUBLISHED, SkillBundle.Status.DEPRECATED)
    for bundle_id, status, is_cleared, content_type in entitled:
        if is_cleared and status in delivered:
            return Delivery(bundle_id, digest, content_type)
    if entitled and not any(is_cleared for _, _, is_cleared, _ in entitled):
        raise ScanRequiredError("No scan has cleared this content yet.")
    raise SkillBundleNotFoundError


def content_for(delivery: Delivery) -> bytes:
    """The content: from the OCI store, or from the row where the store does not have it, or not soon enough.

    Raises:
        UpstreamError: neither has it.
    """
    content = _from_store(delivery.digest)
    if content is not None:
        return content
    rows = SkillBundle.objects.filter(pk=delivery.bundle_id, digest=delivery.digest)
    kept = rows.values_list("content", flat=True).first()
    if kept is None or digest_of(bytes(kept)) != delivery.digest:
        raise UpstreamError("The skill store does not have the content.", detail="Try again later.")
    return bytes(kept)


def _from_store(digest: str) -> bytes | None:
    global _paused_until  # noqa: PLW0603
    source = store(timeout_seconds=PATIENCE_SECONDS)
    if source is None or time.monotonic() < _paused_until or not _asking.acquire(blocking=False):
        return None
    try:
        if not connection.in_atomic_block:
            connection.close()
        return source.pull(digest, tries=1)
    except RegistryUnavailableError as exc:
        _paused_until = time.monotonic() + PAUSE_SECONDS
        log.warning("the skill store does not answer", digest=digest, error=exc.message)
    except RegistryError as exc:
        log.warning("the skill store does not give a bundle", digest=digest, error=exc.message)
    finally:
        _asking.release()
    return None


def forget_pause() -> None:
    """Ask the store again, whatever it did a moment ago."""
    global _paused_until  # noqa: PLW0603
    _paused_until = 0.0
