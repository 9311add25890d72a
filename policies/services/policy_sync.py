"""Having the cluster catch up with a policy's row: at once, or all over."""

from django.db import transaction

from cluster import intent
from cluster.wait import Write
from opencrane.actor import Actor
from policies.errors import PolicyNotFoundError
from policies.models import AccessPolicy
from policies.services.kind import ACCESS_POLICY


def try_now(*, name: str) -> int:
    """Lift the backoff of a policy whose write is in flight; returns 0 when there is none."""
    return intent.try_now(ACCESS_POLICY, list(AccessPolicy.objects.filter(name=name).values_list("pk", flat=True)))


def resync_policy(*, name: str, actor: Actor) -> Write:
    """Apply the whole row again, also to make a resource that someone deleted.

    Raises:
        PolicyNotFoundError, ConflictError (being deleted).
    """
    with transaction.atomic(durable=True):
        policy = intent.locked_row(ACCESS_POLICY, name)
        if policy is None:
            raise PolicyNotFoundError(f"There is no access policy named {name}.")
        write, is_new = intent.resynced(ACCESS_POLICY, policy, actor=actor)
        if is_new:
            ACCESS_POLICY.record(policy, "resynced", f"Applied access policy {name} again.", actor=actor)
    return write
