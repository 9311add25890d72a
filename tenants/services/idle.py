"""Suspending agents that nobody uses, through the same service as everybody else, so that it is no drift."""

import datetime
import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from awareness.models import ParticipationEvent
from opencrane.actor import Actor
from opencrane.errors import DomainError
from tenants.models import Phase, Tenant
from tenants.services import lifecycle

log = logging.getLogger(__name__)

IDLE = Actor(kind="system", name="idle suspension")
AT_ONCE = 500


def suspend_idle() -> int:
    """Suspend tenants that have not been active for `IDLE_SUSPEND_MINUTES`; returns how many.

    Active is what a pod reports beyond its heartbeat, a change of the tenant, and its becoming ready.
    """
    minutes = settings.IDLE_SUSPEND_MINUTES
    if not minutes:
        return 0
    since = timezone.now() - timedelta(minutes=minutes)
    used = ParticipationEvent.objects.filter(tenant_id=OuterRef("pk"), received_at__gte=since).exclude(
        kind=ParticipationEvent.Kind.HEARTBEAT
    )
    running = Tenant.objects.filter(~Exists(used), phase=Phase.RUNNING, deleting=False, updated_at__lt=since)
    done = 0
    for name, status in running.order_by("updated_at").values_list("name", "status")[:AT_ONCE]:
        ready = ready_since(status)
        if ready is None or ready >= since:
            continue
        try:
            lifecycle.suspend_tenant(name=name, reason=f"Nobody has used it for {minutes} minutes.", actor=IDLE)
        except DomainError as exc:
            log.info("idle tenant %s is not suspended: %s", name, exc.message)
        else:
            done += 1
    return done


def ready_since(status: dict[str, Any]) -> datetime.datetime | None:
    """When the tenant's pod became ready; None while it is not."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            return parse_datetime(str(condition.get("lastTransitionTime") or ""))
    return None
