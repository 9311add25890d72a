"""What can be done to many access policies or groups at once."""

from cluster.wait import Write
from opencrane.actor import Actor
from operations.services import bulk
from operations.services.bulk import BulkAction, BulkKind
from policies.models import AccessPolicy, Group
from policies.selectors import group_id_named
from policies.services import access_policies, groups, policy_sync

ACCESS_POLICIES = BulkKind(
    job="policies.bulk",
    noun="access policy,access policies",
    model=AccessPolicy,
    actions={
        "sync": BulkAction(
            label="Try now",
            icon="sync",
            future="applied to the cluster again",
            done="applied",
            run=lambda name, _reason, actor: policy_sync.resync_policy(name=name, actor=actor),
        ),
        "delete": bulk.deletion(
            lambda name, reason, actor: access_policies.delete_policy(name=name, reason=reason, actor=actor),
            "What they allow and deny ends for the tenants they reach. A policy that a tenant names is left as "
            "it is, and the result says who names it.",
            takes_reason=True,
        ),
    },
)


def _delete_group(name: str, _reason: str, actor: Actor) -> Write | None:
    groups.delete_group(group_id=group_id_named(name), actor=actor)
    return None


GROUPS = BulkKind(
    job="groups.bulk",
    noun="group",
    model=Group,
    actions={
        "delete": bulk.deletion(
            _delete_group,
            "Their members, their lists of grants, and every grant that names one of them go with them.",
        ),
    },
)

bulk.register(ACCESS_POLICIES)
bulk.register(GROUPS)
