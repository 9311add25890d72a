"""What beat finds out about the cluster's definitions of our kinds, kept for console and metrics.

The web process may not read definitions, and where one is of another version the status of resources may say nothing.
"""

from django.db import transaction
from django.utils import timezone

from cluster import crds
from cluster.client import cluster_client
from cluster.errors import KubeRefusedError
from cluster.models import Definition
from cluster.resources import CRDS


def check_definitions() -> int:
    """Compare each of our definitions with the cluster's and record it; returns how many will not do.

    One that must not be read is recorded as such.

    Raises:
        KubeTransientError: the cluster is away; what was known stays.
    """
    client = cluster_client()
    problems: dict[str, str] = {}
    for wanted in crds.definitions():
        name = wanted["metadata"]["name"]
        try:
            problems[name] = crds.standing(wanted, client.get(CRDS, name)).problem
        except KubeRefusedError as exc:
            problems[name] = f"The cluster's definition of {name} cannot be read: {exc.message}"
    _record(problems)
    return sum(bool(problem) for problem in problems.values())


@transaction.atomic(durable=True)
def _record(problems: dict[str, str]) -> None:
    now = timezone.now()
    known = {each.name: each for each in Definition.objects.select_for_update()}
    for name, problem in problems.items():
        before = known.get(name)
        since = before.since if before is not None and bool(before.problem) == bool(problem) else now
        values = {"problem": problem, "checked_at": now, "since": since}
        Definition.objects.update_or_create(name=name, defaults=values)
