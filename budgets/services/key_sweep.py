"""What lags of the virtual keys at LiteLLM: found, and a worker woken for it."""

from datetime import timedelta

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from budgets import litellm as proxy
from budgets.models import LitellmKey
from budgets.services.key_rows import TASK, State, home_of, wanted_key
from cluster.locks import object_lock
from opencrane.tasks import enqueue_on_commit
from tenants.models import Tenant

# A claim of the sweep is also the retry: should the worker die, the row falls due again by itself.
LEASE = timedelta(seconds=90)
BATCH = 500

_NEED_ONE = """
SELECT t.id FROM tenants_tenant t WHERE NOT t.deleting AND t.observed_generation > 0
 AND NOT EXISTS (SELECT 1 FROM budgets_litellmkey k WHERE k.tenant_id = t.id) ORDER BY t.created_at LIMIT %s
"""
_ORPHANED = """
SELECT k.id FROM budgets_litellmkey k WHERE k.state IN ('wanted', 'active', 'retiring')
 AND NOT EXISTS (SELECT 1 FROM tenants_tenant t WHERE t.id = k.tenant_id) LIMIT %s
"""
# What LiteLLM enforces, or where the Secret is, is not what the tenant's row says now.
_BEHIND = """
SELECT k.id FROM budgets_litellmkey k JOIN tenants_tenant t ON t.id = k.tenant_id
 WHERE k.state = 'active' AND k.not_before <= now() AND (
  k.max_budget_usd IS DISTINCT FROM nullif(t.monthly_budget_usd, 0) OR
  k.namespace <> CASE WHEN t.cluster_tenant_ref = '' THEN %s ELSE 'opencrane-' || t.cluster_tenant_ref END) LIMIT %s
"""


def sweep_keys() -> int:
    """Find what lags and wake a worker for it; returns how many. Without LiteLLM only what is to be revoked shows."""
    with object_lock("budgets", "sweep-keys") as held:
        if not held:
            return 0
        _note_orphans()
        if proxy.is_configured():
            _want_missing()
        return _wake()


@transaction.atomic(durable=True)
def _note_orphans() -> None:
    """Keys of tenants that went without telling."""
    with connection.cursor() as cursor:
        cursor.execute(_ORPHANED, [BATCH])
        ids = [row[0] for row in cursor.fetchall()]
    LitellmKey.objects.filter(pk__in=ids).update(
        state=State.REVOKING, cause=LitellmKey.Cause.TENANT_DELETED, not_before=timezone.now(), attempts=0
    )


@transaction.atomic(durable=True)
def _want_missing() -> None:
    """A key for every tenant that the cluster has confirmed and that never had one."""
    with connection.cursor() as cursor:
        cursor.execute(_NEED_ONE, [BATCH])
        ids = [row[0] for row in cursor.fetchall()]
    for tenant in Tenant.objects.select_for_update().filter(pk__in=ids, deleting=False).order_by("pk"):
        wanted_key(tenant)


@transaction.atomic(durable=True)
def _wake() -> int:
    now = timezone.now()
    waiting = Q(state__in=[State.WANTED, State.REVOKING]) | Q(state=State.RETIRING, grace_until__lte=now)
    due = list(LitellmKey.objects.filter(waiting, not_before__lte=now).values_list("pk", flat=True)[:BATCH])
    if proxy.is_configured():
        with connection.cursor() as cursor:
            cursor.execute(_BEHIND, [home_of(""), BATCH])
            due += [row[0] for row in cursor.fetchall()]
    LitellmKey.objects.filter(pk__in=due).update(not_before=now + LEASE)
    for pk in due:
        enqueue_on_commit(TASK, str(pk))
    return len(due)
