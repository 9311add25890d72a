"""Which of several unconfirmed writes the cluster refuses, and what the row is without them.

The cluster is asked by dry run, one write after the other on the last confirmed spec, so that nothing half-way shows.
"""

from collections.abc import Iterable
from typing import Any

from cluster.client import ClusterClient
from cluster.errors import KubeRefusedError
from cluster.kinds import Kind, Spec
from cluster.models import Revision, SyncedModel


def fold(waiting: Iterable[Revision], kept: Iterable[Revision]) -> dict[str, Any]:
    """Values of every field that a waiting write names, as if only `kept` had been written.

    Both in order of generation. None stands for a field that is not set.
    """
    values: dict[str, Any] = {}
    for revision in waiting:
        for name in revision.fields:
            values.setdefault(name, revision.before.get(name))
    for revision in kept:
        for name in revision.fields:
            values[name] = revision.after.get(name)
    return values


def refused_revisions(
    kind: Kind[Any], row: SyncedModel, revisions: list[Revision], client: ClusterClient, error: KubeRefusedError
) -> dict[int, str]:
    """Generations of the writes that the cluster refuses, each with its message.

    One write alone is to blame for `error`. Of several, each is tried on top of those before it that were accepted.
    Should the dry run accept them all, the last one is to blame: the refusal is not one that a dry run shows.
    """
    if len(revisions) <= 1:
        return {revision.generation: error.message for revision in revisions}
    live = client.get(kind.resource, row.name)
    base: Spec = dict(row.confirmed_spec or {})
    refused: dict[int, str] = {}
    for revision in revisions:
        candidate = dict(base)
        for name in revision.fields:
            if revision.after.get(name) is None:
                candidate.pop(name, None)
            else:
                candidate[name] = revision.after[name]
        uid = live["metadata"]["uid"] if live else ""
        try:
            client.apply(kind.resource, kind.manifest(row, candidate, uid=uid), force=True, dry_run=True)
        except KubeRefusedError as exc:
            refused[revision.generation] = exc.message
            if revision.action == Revision.Action.CREATE:
                break
        else:
            base = candidate
    return refused or {revisions[-1].generation: error.message}
