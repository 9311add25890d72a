"""Fills the stack as if it had been in use: tenants that are in sync, and an audit trail.

Resources are applied through the API server by the workers' own client and manifests; rows are copied into PostgreSQL
in the state in which a confirmed write leaves them.
"""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.db import connection

from cluster.client import cluster_client
from cluster.resources import TENANTS
from tenants.models import Tenant
from tenants.services.kind import TENANT

THREADS = 4
BATCH = 500
TEAMS = ("search", "payments", "support", "research", "platform")
_START = datetime(2026, 1, 1, tzinfo=UTC)


def tenant_name(number: int) -> str:
    return f"agent-{number:06d}"


def _row(number: int) -> Tenant:
    name = tenant_name(number)
    return Tenant(
        pk=uuid.uuid4(),
        name=name,
        display_name=f"Agent {number}",
        email=f"{name}@example.com",
        team=TEAMS[number % len(TEAMS)],
        monthly_budget_usd=Decimal(25 + number % 50),
        resources={"cpu": "500m", "memory": "1Gi"},
        skill_allowlist=["summarize", "search"],
        created_at=_START + timedelta(seconds=number),
        generation=1,
    )


def _applied(number: int) -> Tenant:
    """A tenant whose resource is in the cluster; its row is not stored yet.

    What an operator would report as its status goes into the row alone: reporting it to the cluster for every one
    would take as long again, and nothing that is measured reads it there.
    """
    row, client = _row(number), cluster_client()
    _, live = client.apply(TENANTS, TENANT.manifest(row, TENANT.spec(row)), force=False)
    row.observed_generation = row.generation
    row.confirmed_spec = live["spec"]
    row.cluster_uid = live["metadata"]["uid"]
    row.resource_generation = live["metadata"]["generation"]
    row.resource_labels = live["metadata"]["labels"]
    row.status = {
        "phase": "Running",
        "podName": f"openclaw-{row.name}-0",
        "ingressHost": f"{row.name}.agents.example.com",
        "observedGeneration": row.resource_generation,
    }
    row.status_revision = 1
    for column, value in TENANT.projected({"metadata": {"name": row.name}, "status": row.status}).items():
        setattr(row, column, value)
    return row


def add_tenants(numbers: range, settle: Callable[[], None]) -> None:
    """Make the tenants of these numbers, in the cluster and in the database.

    Args:
        settle: waits until the stack is idle. The projector has to be done with the resources before the rows are
            there: it would copy their empty status.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="seed") as pool:
        rows = list(pool.map(_applied, numbers))
    settle()
    Tenant.objects.bulk_create(rows, batch_size=BATCH)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE tenants_tenant")
    settle()


def add_audit_entries(count: int) -> None:
    """Add this many audit entries of the past, ten to each timestamp."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO operations_auditentry
                (timestamp, tenant, action, resource, message,
                 actor_kind, actor_name, request_id, address, before, after)
            SELECT timestamptz '2026-01-01 00:00:00Z' + (number / 10) * interval '1 second',
                   'agent-' || lpad((number %% 10000)::text, 6, '0'), 'tenant.updated',
                   'Tenant/agent-' || lpad((number %% 10000)::text, 6, '0'),
                   'Changed team of tenant agent-' || lpad((number %% 10000)::text, 6, '0') || '.',
                   'token', 'api-token', md5(number::text), '127.0.0.1', '{"team": "search"}', '{"team": "support"}'
              FROM generate_series(1, %s) AS number
            """,
            [count],
        )
        cursor.execute("VACUUM ANALYZE operations_auditentry")
