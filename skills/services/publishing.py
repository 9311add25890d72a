"""Bring published bundles into the OCI store, and content out of it.

The row says what is to be pushed and how far that is; a message only says where to look, and the sweep finds what was
lost. The row keeps the content: what the store has is a copy for others, until it is asked for first.
"""

import random
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from cluster.locks import object_lock
from opencrane.actor import SYSTEM, Actor
from opencrane.errors import ConflictError
from opencrane.tasks import enqueue_on_commit
from operations.services import audit
from skills.errors import OciStoreNotConfiguredError, SkillBundleNotFoundError
from skills.models import SkillBundle
from skills.oci.artifact import Artifact, artifact_of
from skills.oci.errors import BlobNotFoundError, DigestMismatchError, RegistryError, RegistryUnavailableError
from skills.oci.store import OciStore, Pushed, store

log = structlog.get_logger(__name__)

TASK = "skills.push_bundle"
LOCK = "skill-push"
BATCH = 200
CANARIES = 3
LONGEST_DELAY_SECONDS = 60
NO_CONTENT = "There is no content to push, here or in the store."
_OCI = SkillBundle.OciState


def push_bundle(*, bundle_id: UUID) -> str:
    """Push one bundle if it waits for that; safe to run twice, late or in parallel.

    Returns:
        The state that this left, or empty when there was nothing to do.
    """
    target = store()
    if target is None:
        return ""
    with object_lock(LOCK, bundle_id) as held:
        bundle = SkillBundle.objects.filter(pk=bundle_id).first()
        if not held or bundle is None or bundle.oci_state != _OCI.PENDING:
            return ""
        if bundle.status != SkillBundle.Status.PUBLISHED:
            note_failure(bundle, RegistryError("It is not published any more."), is_final=True)
            return _OCI.FAILED
        try:
            artifact = artifact_for(bundle)
            if artifact is None:
                raise BlobNotFoundError(NO_CONTENT)
            pushed = target.push(artifact)
        except RegistryError as exc:
            is_final = not isinstance(exc, RegistryUnavailableError)
            note_failure(bundle, exc, is_final=is_final)
            return _OCI.FAILED if is_final else _OCI.PENDING
        note_pushed([(bundle, pushed)], SYSTEM)
        had_failed = bundle.oci_attempts > 0
    if had_failed:
        _wake_others()
    return _OCI.PUSHED


def artifact_for(bundle: SkillBundle) -> Artifact | None:
    """What to push for a bundle; None when its row has no content.

    Raises:
        DigestMismatchError: the row's content is not what its digest says.
    """
    rows = SkillBundle.objects.filter(pk=bundle.pk, digest=bundle.digest)
    content = rows.values_list("content", flat=True).first()
    if content is None:
        return None
    artifact = artifact_of(
        name=bundle.name, version=bundle.version, content=bytes(content), content_type=bundle.content_type
    )
    if artifact.digest != bundle.digest:
        raise DigestMismatchError(f"The content that is kept here has the digest {artifact.digest}, not the bundle's.")
    return artifact


@transaction.atomic(durable=True)
def note_pushed(news: Sequence[tuple[SkillBundle, Pushed]], actor: Actor) -> None:
    """Record that the store has these bundles; nothing where a row has other content by now or says so already."""
    now = timezone.now()
    changes = []
    ids = sorted(bundle.pk for bundle, _ in news)
    rows = {row.pk: row for row in SkillBundle.objects.select_for_update().filter(pk__in=ids).order_by("pk")}
    for bundle, pushed in news:
        row = rows.get(bundle.pk)
        if row is None or row.digest != bundle.digest:
            continue
        if row.oci_state == _OCI.PUSHED and row.oci_reference == pushed.reference:
            continue
        SkillBundle.objects.filter(pk=row.pk).update(
            oci_state=_OCI.PUSHED,
            oci_error="",
            oci_attempts=0,
            oci_digest=pushed.digest,
            oci_reference=pushed.reference,
            oci_pushed_at=now,
        )
        changes.append(
            audit.Change(
                action="skill_bundle.pushed",
                resource=_resource(bundle),
                message=f"Skill bundle {bundle} is in the OCI store.",
                after={"reference": pushed.reference, "digest": bundle.digest},
            )
        )
    audit.record_many(changes, actor=actor)


def note_failure(bundle: SkillBundle, error: RegistryError, *, is_final: bool) -> None:
    """Record why a push failed, and when it is tried again; not at all by itself if that is final."""
    attempts = bundle.oci_attempts + 1
    delay = min(LONGEST_DELAY_SECONDS, 2 ** min(attempts, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    log.warning("push failed", bundle=str(bundle.pk), error=error.message, final=is_final)
    SkillBundle.objects.filter(pk=bundle.pk, digest=bundle.digest).exclude(oci_state=_OCI.PUSHED).update(
        oci_state=_OCI.FAILED if is_final else _OCI.PENDING,
        oci_error=error.message,
        oci_attempts=attempts,
        oci_not_before=timezone.now() + timedelta(seconds=delay),
    )


def pushes_due() -> list[UUID]:
    """Pushes whose time has come, those waiting longest first; none without a store.

    While the store does not answer only a few are tried, so that a registry that hangs does not take all workers.
    """
    if store() is None:
        return []
    waiting = SkillBundle.objects.filter(oci_state=_OCI.PENDING)
    limit = CANARIES if waiting.filter(oci_attempts__gt=0).exists() else BATCH
    due = waiting.filter(oci_not_before__lte=Now()).order_by("oci_not_before")
    return list(due.values_list("pk", flat=True)[:limit])


def _wake_others() -> None:
    """The store has just taken something: what waited for it need not wait on."""
    waiting = SkillBundle.objects.filter(oci_state=_OCI.PENDING, oci_attempts__gt=0)
    found = list(waiting.values_list("pk", flat=True)[:BATCH])
    SkillBundle.objects.filter(pk__in=found, oci_state=_OCI.PENDING).update(oci_attempts=0, oci_not_before=Now())
    for bundle_id in found:
        enqueue_on_commit(TASK, str(bundle_id))


@transaction.atomic(durable=True)
def request_push(*, bundle_id: UUID, actor: Actor) -> SkillBundle:
    """Have a published bundle pushed now, whatever came of it before.

    Raises:
        OciStoreNotConfiguredError
        SkillBundleNotFoundError
        ConflictError: it is not published.
    """
    if store() is None:
        raise OciStoreNotConfiguredError
    bundle = SkillBundle.objects.select_for_update().filter(pk=bundle_id).first()
    if bundle is None:
        raise SkillBundleNotFoundError
    if bundle.status != SkillBundle.Status.PUBLISHED:
        raise ConflictError("Only published bundles go to the OCI store.")
    bundle.oci_state, bundle.oci_attempts, bundle.oci_not_before = _OCI.PENDING, 0, timezone.now()
    bundle.save(update_fields=["oci_state", "oci_attempts", "oci_not_before"])
    audit.record(
        action="skill_bundle.push_requested",
        resource=_resource(bundle),
        message=f"Asked for skill bundle {bundle} to be pushed to the OCI store.",
        actor=actor,
    )
    enqueue_on_commit(TASK, str(bundle.pk))
    return bundle


def pull_content(digest: str) -> bytes:
    """The content that the OCI store has under a digest, verified.

    Raises:
        OciStoreNotConfiguredError
        RegistryError: it does not have it, has something else, or does not answer.
    """
    source: OciStore | None = store()
    if source is None:
        raise OciStoreNotConfiguredError
    return source.pull(digest)


def _resource(bundle: SkillBundle) -> str:
    return f"SkillBundle/{bundle.name}@{bundle.version}"
