"""What can be done to many MCP servers at once."""

from collections.abc import Callable
from uuid import UUID

from cluster.wait import Write
from mcpservers.errors import McpServerNotFoundError
from mcpservers.models import McpServer
from mcpservers.services import probes, servers
from opencrane.actor import Actor
from operations.services import bulk
from operations.services.bulk import BulkAction, BulkKind


def _to_server(act: Callable[[UUID, Actor], object]) -> Callable[[str, str, Actor], Write | None]:
    def run(name: str, _reason: str, actor: Actor) -> Write | None:
        server_id = McpServer.objects.filter(name=name).values_list("pk", flat=True).first()
        if server_id is None:
            raise McpServerNotFoundError
        act(server_id, actor)
        return None

    return run


def _set_status(status: McpServer.Status) -> Callable[[str, str, Actor], Write | None]:
    return _to_server(
        lambda server_id, actor: servers.update_server(server_id=server_id, changes={"status": status}, actor=actor)
    )


MCP_SERVERS = BulkKind(
    job="mcp-servers.bulk",
    noun="MCP server",
    model=McpServer,
    actions={
        "activate": BulkAction(
            label="Set active",
            icon="toggle_on",
            future="active",
            done="activated",
            warning="Tenants that are granted them find them in their contracts, and they are probed on schedule.",
            run=_set_status(McpServer.Status.ACTIVE),
        ),
        "draft": BulkAction(
            label="Back to draft",
            icon="edit_note",
            future="drafts",
            done="drafted",
            warning="They leave the contracts of all tenants; grants and credentials stay.",
            run=_set_status(McpServer.Status.DRAFT),
        ),
        "probe": BulkAction(
            label="Probe",
            icon="network_ping",
            future="probed",
            done="asked for",
            run=_to_server(lambda server_id, _actor: probes.request_probe(server_id=server_id)),
        ),
        "delete": bulk.deletion(
            _to_server(lambda server_id, actor: servers.delete_server(server_id=server_id, actor=actor)),
            "Their credentials and every grant about them go with them. This cannot be undone.",
        ),
    },
)
bulk.register(MCP_SERVERS)
