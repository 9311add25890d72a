"""Scheduled drift checks: what the console and the metrics show without asking the cluster each time."""

import time
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from cluster.drift import Comparison, Mismatch, compare
from cluster.errors import KubeError
from cluster.kinds import kind_named
from cluster.locks import object_lock
from cluster.models import DriftEvaluation, DriftFinding

BATCH = 500


def evaluate(kind_name: str) -> DriftEvaluation | None:
    """Compare a whole kind and record what was found; None when another evaluation is under way.

    A comparison that cannot be finished leaves the findings of the last one in place and records why.
    """
    kind = kind_named(kind_name)
    with object_lock("drift-evaluation", kind_name) as held:
        if not held:
            return None
        started, clock = timezone.now(), time.monotonic()
        counts = Comparison()
        batch: list[Mismatch] = []
        try:
            for mismatch in compare(kind, counts):
                batch.append(mismatch)
                if len(batch) >= BATCH:
                    _note(kind_name, batch, started)
                    batch = []
        except KubeError as exc:
            return _record(
                kind_name, {"failed_at": started, "error": exc.message, "evaluated_at": started}, failed=True
            )
        _note(kind_name, batch, started)
        with transaction.atomic(durable=True):
            DriftFinding.objects.filter(kind=kind_name).filter(~Q(evaluated_at=started)).delete()
        return _record(
            kind_name,
            {
                "evaluated_at": started,
                "source_count": counts.source_count,
                "projection_count": counts.projection_count,
                "drift_count": counts.drift_count,
                "pending_count": counts.pending_count,
                "duration_seconds": time.monotonic() - clock,
                "failed_at": None,
                "error": "",
            },
        )


def _record(kind_name: str, values: dict[str, Any], *, failed: bool = False) -> DriftEvaluation:
    changes = {key: value for key, value in values.items() if not (failed and key == "evaluated_at")}
    with transaction.atomic(durable=True):
        evaluation, _ = DriftEvaluation.objects.update_or_create(
            kind=kind_name, defaults=changes, create_defaults=values
        )
    return evaluation


def _note(kind_name: str, mismatches: list[Mismatch], now: Any) -> None:
    findings = [
        DriftFinding(
            kind=kind_name,
            name=m.name,
            issue=m.issue,
            fields=m.fields,
            differences=m.differences,
            managers=m.managers,
            since=now,
            evaluated_at=now,
        )
        for m in mismatches
    ]
    with transaction.atomic(durable=True):
        DriftFinding.objects.bulk_create(
            findings,
            update_conflicts=True,
            unique_fields=["kind", "name"],
            update_fields=["issue", "fields", "differences", "managers", "evaluated_at"],
        )
