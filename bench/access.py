"""What one tenant gets, and the list of MCP servers, among many groups and grants."""

import random
from typing import TYPE_CHECKING

from django.db import connection

from bench.figures import Wanted
from mcpservers.models import McpServer
from policies.models import Grant, Group, GroupMember
from tenants.models import Tenant

if TYPE_CHECKING:
    from bench.scenarios import Bench

GROUPS, MEMBERS, GRANTS, SERVERS = 200, 100, 2_000, 92
MANY_SERVERS, GRANTS_EACH = 500, 5


def measure(bench: "Bench") -> None:
    """The contract of an ordinary tenant and of one that is in every group; 500 servers with 5 grants each."""
    if not bench.wants("contract", "servers"):
        return
    chance = random.Random(7)  # noqa: S311 - the same figures each time
    groups = [Group(name=f"bench-{number}") for number in range(GROUPS)]
    Group.objects.bulk_create(groups)
    everywhere, *others = list(Tenant.objects.order_by("name").only("pk", "name")[:5_000])
    ordinary = others[0]
    memberships = [
        GroupMember(group=group, tenant=tenant)
        for group in groups
        for tenant in [everywhere, *chance.sample(others[1:], min(MEMBERS - 1, len(others) - 1))]
    ]
    memberships += [GroupMember(group=group, tenant=ordinary) for group in groups[:5]]
    GroupMember.objects.bulk_create(memberships, batch_size=5_000)
    servers = _servers(SERVERS)
    Grant.objects.bulk_create(
        Grant(
            payload_type=Grant.PayloadType.MCP_SERVER if number % 2 else Grant.PayloadType.AWARENESS,
            payload_id=str(chance.choice(servers).pk) if number % 2 else f"dataset-{number % 300}",
            subject_type=Grant.SubjectType.GROUP,
            group=chance.choice(groups),
            access=chance.choice(["allow", "allow", "deny"]),
            scope="org",
            priority=chance.randint(0, 3),
        )
        for number in range(GRANTS)
    )
    _analyze()
    for label, tenant in (("in 5 groups", ordinary), (f"in all {GROUPS} groups", everywhere)):
        path = f"/api/v1/tenants/{tenant.name}/effective-contract"
        bench.read(f"effective contract, {label}", path, headers=bench.authorization, wanted=Wanted(milliseconds=5))
        bench.read(f"effective contract, {label}", path, clients=8, wanted=Wanted(rate=300))
    Grant.objects.bulk_create(
        Grant(
            payload_type=Grant.PayloadType.MCP_SERVER,
            payload_id=str(server.pk),
            subject_type=Grant.SubjectType.GROUP,
            group=chance.choice(groups),
            access=Grant.Access.ALLOW,
            scope="org",
            priority=number,
        )
        for server in _servers(MANY_SERVERS - SERVERS, start=SERVERS)
        for number in range(GRANTS_EACH)
    )
    _analyze()
    bench.read(
        f"{MANY_SERVERS} MCP servers, about {GRANTS_EACH} grants each", "/api/v1/mcp-servers",
        headers=bench.authorization, most=500, wanted=Wanted(milliseconds=12),
    )  # fmt: skip


def _servers(count: int, *, start: int = 0) -> list[McpServer]:
    made = [
        # Servers that speak WebSocket are not probed: hundreds of probes that fail would be measured along.
        McpServer(
            name=f"bench-{number}", endpoint=f"wss://s{number}.example/mcp", transport="websocket", status="active"
        )
        for number in range(start, start + count)
    ]
    return McpServer.objects.bulk_create(made)


def _analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE policies_grant, policies_group, policies_groupmember, mcpservers_mcpserver")
