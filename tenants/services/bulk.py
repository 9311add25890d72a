"""What can be done to many tenants at once."""

from operations.services import bulk
from operations.services.bulk import BulkAction, BulkKind
from tenants.models import Tenant
from tenants.services import lifecycle

TENANTS = BulkKind(
    job="tenants.bulk",
    noun="tenant",
    model=Tenant,
    actions={
        "suspend": BulkAction(
            label="Suspend",
            icon="pause_circle",
            future="suspended",
            done="suspended",
            warning="Their agents stop; their data stays. Resume brings them back.",
            takes_reason=True,
            run=lambda name, reason, actor: lifecycle.suspend_tenant(name=name, reason=reason, actor=actor),
        ),
        "resume": BulkAction(
            label="Resume",
            icon="play_circle",
            future="resumed",
            done="resumed",
            takes_reason=True,
            run=lambda name, reason, actor: lifecycle.resume_tenant(name=name, reason=reason, actor=actor),
        ),
        "sync": BulkAction(
            label="Try now",
            icon="sync",
            future="applied to the cluster again",
            done="applied",
            run=lambda name, _reason, actor: lifecycle.resync_tenant(name=name, actor=actor),
        ),
        "delete": bulk.deletion(
            lambda name, reason, actor: lifecycle.delete_tenant(name=name, reason=reason, actor=actor),
            "Their agents stop, their resources are removed from the cluster, and their data sets, memberships "
            "and keys go with them. This cannot be undone.",
            takes_reason=True,
        ),
    },
)
bulk.register(TENANTS)
