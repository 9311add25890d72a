"""Which servers are probed when, and what follows from what a probe finds."""

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from cluster.locks import object_lock
from mcpservers import selectors
from mcpservers.models import McpHealth, McpProbe, McpServer
from mcpservers.probing import Finding, probe
from opencrane.errors import ConflictError
from opencrane.tasks import enqueue_on_commit
from operations.services.webhooks import emit

TASK = "mcpservers.probe_server"
# How many probes in a row have to agree before the health changes. The first success counts at once: until then
# nothing is known.
FAILURES_TO_UNHEALTHY = 3
SUCCESSES_TO_HEALTHY = 2
KEPT_PROBES = 50
BATCH = 200


@transaction.atomic(durable=True)
def request_probe(*, server_id: UUID | None) -> McpServer:
    """Have a server probed now, whatever its status. Should the message get lost, the sweep finds the wish.

    Raises:
        McpServerNotFoundError
        ConflictError: it speaks WebSocket, which the SDK does not.
    """
    server = selectors.server_for_update(server_id)
    if server.transport == McpServer.Transport.WEBSOCKET:
        raise ConflictError("Servers that speak WebSocket are not probed.")
    McpServer.objects.filter(pk=server.pk).update(is_probe_wanted=True, next_probe_at=timezone.now())
    enqueue_on_commit(TASK, str(server.pk))
    return server


@transaction.atomic(durable=True)
def start_due() -> int:
    """Hand out the probes that are due; returns how many. Each is due again after the interval, come what may."""
    due = list(selectors.servers_to_probe(BATCH).select_for_update(skip_locked=True).values_list("pk", flat=True))
    again = timezone.now() + timedelta(seconds=settings.PROBE_INTERVAL_SECONDS)
    McpServer.objects.filter(pk__in=due).update(next_probe_at=again)
    for server_id in due:
        enqueue_on_commit(TASK, str(server_id))
    return len(due)


def probe_server(*, server_id: UUID) -> Finding | None:
    """Probe one server and record what is found; None when it has gone, or is being probed already."""
    with object_lock("mcp-probe", server_id) as held:
        server = McpServer.objects.filter(pk=server_id).first()
        if not held or server is None or server.transport == McpServer.Transport.WEBSOCKET:
            return None
        finding = probe(server.endpoint, server.transport, settings.PROBE_ALLOW)
        return finding if record_finding(server, finding) else None


@transaction.atomic(durable=True)
def record_finding(probed: McpServer, finding: Finding) -> bool:
    """Record a probe, and change the server's health when enough of them agree; never its status.

    Args:
        probed: the server as it was when the probe began; if it has another endpoint by now, nothing is recorded.
    """
    server = McpServer.objects.select_for_update(no_key=True).filter(pk=probed.pk).first()
    if server is None or (server.endpoint, server.transport) != (probed.endpoint, probed.transport):
        return False
    now = timezone.now()
    health, _ = McpHealth.objects.get_or_create(server=server)
    health.successes = health.successes + 1 if finding.ok else 0
    health.failures = 0 if finding.ok else health.failures + 1
    state = _judged(health)
    if state != health.state:
        health.state, health.since = state, now
        if state == McpHealth.State.UNHEALTHY:
            about = {"serverId": str(server.pk), "name": server.name, "endpoint": server.endpoint}
            emit(event="probe.failed", payload=about | {"error": finding.error, "failures": health.failures})
    health.probed_at, health.latency_ms, health.error = now, finding.latency_ms, finding.error
    if finding.ok:
        health.server_name = finding.server_name
        health.server_version = finding.server_version
        health.protocol_version = finding.protocol_version
        if finding.tools is not None:
            health.tools = finding.tools
    health.save()
    tool_count = None if finding.tools is None else len(finding.tools)
    McpProbe.objects.create(
        server=server, ok=finding.ok, latency_ms=finding.latency_ms, error=finding.error, tool_count=tool_count
    )
    kept = McpProbe.objects.filter(server=server).values_list("pk", flat=True)[:KEPT_PROBES]
    McpProbe.objects.filter(server=server).exclude(pk__in=list(kept)).delete()
    if server.is_probe_wanted:
        McpServer.objects.filter(pk=server.pk).update(is_probe_wanted=False)
    return True


def _judged(health: McpHealth) -> str:
    if health.failures >= FAILURES_TO_UNHEALTHY:
        return McpHealth.State.UNHEALTHY
    needed = 1 if health.state == McpHealth.State.UNKNOWN else SUCCESSES_TO_HEALTHY
    if health.successes >= needed:
        return McpHealth.State.HEALTHY
    return health.state
