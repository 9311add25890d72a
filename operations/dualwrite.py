"""What every dual-written kind does with the audit trail; domain apps derive their kinds from this."""

from typing import Any, ClassVar

from cluster.kinds import Kind, RowT, Spec
from cluster.models import Revision
from opencrane.actor import SYSTEM, Actor
from operations.services import audit


class AuditedKind(Kind[RowT]):
    """A kind whose changes, refusals, deletions and repairs are audited as `<noun>.<past tense>`.

    Attributes:
        noun: first part of the audit action, such as `tenant`.
    """

    noun: ClassVar[str]

    def record(
        self, row: RowT, verb: str, message: str, *, before: Any = None, after: Any = None, actor: Actor
    ) -> None:
        """Write an audit entry about `row` in the caller's transaction."""
        about_tenant = self.name == "Tenant"
        audit.record(
            action=f"{self.noun}.{verb}",
            resource=f"{self.name}/{row.name}",
            tenant=row.name if about_tenant else "",
            tenant_id=row.pk if about_tenant else None,
            message=message,
            before=before,
            after=after,
            actor=actor,
        )

    def on_rejected(self, row: RowT, revision: Revision, message: str) -> None:
        verbs = {
            Revision.Action.CREATE: "create_rejected",
            Revision.Action.DELETE: "delete_rejected",
            Revision.Action.RESYNC: "resync_rejected",
        }
        self.record(
            row,
            verbs.get(Revision.Action(revision.action), "update_rejected"),
            f"The cluster refused it: {message}",
            before=revision.after,
            after=revision.before,
            actor=Actor.from_json(revision.actor),
        )

    def on_deleted(self, row: RowT, revision: Revision | None) -> None:
        actor = Actor.from_json(revision.actor) if revision is not None else SYSTEM
        self.record(row, "deleted", f"{self.name} {row.name} is gone.", before=self.spec(row), actor=actor)

    def on_repaired(self, row: RowT, action: str, before: Spec, after: Spec, actor: Actor) -> None:
        message = (
            f"Made the row of {row.name} from the cluster's resource."
            if action == "created"
            else f"Took over {', '.join(sorted({*before, *after})) or 'the identity'} of {row.name} from the cluster."
        )
        self.record(row, "repaired", message, before=before, after=after, actor=actor)
