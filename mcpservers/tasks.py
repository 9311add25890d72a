"""Celery tasks of MCP servers."""

from uuid import UUID

from celery import shared_task

from mcpservers.services import bulk, probes  # noqa: F401  (bulk registers the runner of its jobs)


@shared_task(name="mcpservers.start_probes", soft_time_limit=30, time_limit=45)
def start_probes() -> None:
    """Every 15 s: hand out the probes that are due."""
    probes.start_due()


@shared_task(name="mcpservers.probe_server", soft_time_limit=30, time_limit=45)
def probe_server(server_id: str) -> None:
    probes.probe_server(server_id=UUID(server_id))
