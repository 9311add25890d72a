"""Drift over time: each comparison is kept, and crossing the threshold is announced once."""

import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from cluster import evaluation
from cluster.kinds import all_kinds
from cluster.models import DriftEvaluation
from opencrane.errors import TimedOutError, UpstreamError
from operations import selectors
from operations.models import DriftAlert, DriftSample
from operations.services.webhooks import DRIFT_EVENT, emit

_ALERT = 1


def evaluate(kind_name: str) -> DriftEvaluation | None:
    """Compare a whole kind, keep what was found, and see whether drift has crossed its threshold.

    None when another evaluation is under way. One that the cluster did not let finish is recorded as failed; nothing
    is concluded from it.
    """
    found = evaluation.evaluate(kind_name)
    if found is not None and found.failed_at is None:
        _keep(found)
    return found


@transaction.atomic(durable=True)
def _keep(found: DriftEvaluation) -> None:
    DriftSample.objects.create(
        kind=found.kind,
        at=found.evaluated_at,
        source_count=found.source_count,
        projection_count=found.projection_count,
        drift_count=found.drift_count,
        pending_count=found.pending_count,
        lag_seconds=selectors.projection_lag(found.kind),
    )
    _look_at_threshold()


def _look_at_threshold() -> None:
    """Announce that drift, of all kinds together, has reached the threshold; once, until it was below again."""
    DriftAlert.objects.bulk_create([DriftAlert(pk=_ALERT)], ignore_conflicts=True)
    alert = DriftAlert.objects.select_for_update().get(pk=_ALERT)
    counts = {kind: each.drift_count for kind, each in selectors.drift_evaluations().items()}
    total, threshold = sum(counts.values()), settings.PROJECTION_DRIFT_ALERT_THRESHOLD
    is_above = 0 < threshold <= total
    if is_above == alert.is_above:
        return
    DriftAlert.objects.filter(pk=_ALERT).update(is_above=is_above, since=timezone.now())
    if is_above:
        emit(event=DRIFT_EVENT, payload={"driftCount": total, "threshold": threshold, "kinds": counts})


def projection_drift(*, refresh: bool = False) -> dict[str, Any]:
    """What the last evaluations found: for each kind its counts and `maxProjectionLagSeconds`, and the alert.

    Args:
        refresh: evaluate now. Done anyway for a kind whose last evaluation is older than two intervals.

    Raises:
        UpstreamError: it had to be evaluated, and the cluster could not be listed.
        TimedOutError: somebody else has been at the first evaluation for long.
    """
    names = [kind.name for kind in all_kinds()]
    known = selectors.drift_evaluations()
    too_old = timezone.now() - timedelta(seconds=2 * settings.DRIFT_INTERVAL_SECONDS)
    for name in names:
        before = known.get(name)
        if refresh or before is None or max(before.evaluated_at, before.failed_at or before.evaluated_at) < too_old:
            known[name] = evaluate(name) or _of_somebody_else(name, before)
    for name in names:
        found = known[name]
        # Counts of before a failure are still worth something, unless there are none or new ones were asked for.
        if found.failed_at is not None and (refresh or found.failed_at == found.evaluated_at):
            raise UpstreamError("The Kubernetes cluster could not be listed.", detail=found.error)
    shown = {_key(name): _summary(known[name]) for name in names}
    return shown | {
        "evaluatedAt": min(known[name].evaluated_at for name in names),
        "alertFired": selectors.drift_alert().is_above and settings.PROJECTION_DRIFT_ALERT_THRESHOLD > 0,
        "threshold": settings.PROJECTION_DRIFT_ALERT_THRESHOLD,
    }


def _of_somebody_else(name: str, before: DriftEvaluation | None) -> DriftEvaluation:
    """What the evaluation that is under way finds; what was known before, if that takes too long."""
    until = time.monotonic() + settings.REPAIR_WAIT_SECONDS
    while time.monotonic() < until:
        found = selectors.drift_evaluation(name)
        if found is not None and (before is None or found.evaluated_at > before.evaluated_at):
            return found
        time.sleep(0.1)
    if before is None:
        raise TimedOutError("The first evaluation of drift is under way.", detail="Ask again in a moment.")
    return before


def _key(kind_name: str) -> str:
    return kind_name[0].lower() + kind_name[1:]


def _summary(found: DriftEvaluation) -> dict[str, Any]:
    return {
        "sourceCount": found.source_count,
        "projectionCount": found.projection_count,
        "driftCount": found.drift_count,
        "pendingCount": found.pending_count,
        "maxProjectionLagSeconds": round(selectors.projection_lag(found.kind), 3),
        "evaluatedAt": found.evaluated_at,
        "error": found.error or None,
    }
