"""What pods report, by real tokens of ServiceAccounts, and the report of the whole fleet."""

import itertools
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.db import connection

from bench.client import Target, at_once, one_by_one
from bench.figures import Wanted
from cluster.client import cluster_client
from cluster.resources import Resource

if TYPE_CHECKING:
    from bench.scenarios import Bench

PODS = 100
_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
# As if every pod had reported within the last minutes.
_SEED = """
    INSERT INTO awareness_participation
        (tenant_id, last_seen_at, running_contract_version, version_seen_at, policy_violations)
    SELECT id, now() - random() * interval '20 minutes', '1.0.0', now(), (random() < 0.01)::int FROM tenants_tenant
    ON CONFLICT DO NOTHING
"""


def measure(bench: "Bench") -> None:
    """The report of everybody, and reports coming in at one web process."""
    if not bench.wants("participation"):
        return
    with connection.cursor() as cursor:
        cursor.execute(_SEED)
        cursor.execute("SELECT count(*) FROM tenants_tenant")
        size = cursor.fetchone()[0]
        cursor.execute("SELECT name FROM tenants_tenant ORDER BY name LIMIT %s", [PODS])
        names = [name for (name,) in cursor.fetchall()]
    path = "/api/v1/awareness/participation"
    bench.read(
        f"participation of {size:,}", path, headers=bench.authorization, most=200, wanted=Wanted(milliseconds=30)
    )
    host, port = bench.target.address
    pods = [Target(f"http://{host}:{port}", {"Authorization": f"Bearer {_token(name)}"}) for name in names]
    reports = _reports(pods)
    # Every token is reviewed once.
    one_by_one(bench.target, reports, seconds=10, most=len(pods), least=len(pods))
    bench.measure(
        "participation: one report", 1,
        lambda: one_by_one(bench.target, reports, seconds=bench.plan.seconds, most=20_000),
    )  # fmt: skip
    bench.measure(
        "participation: reports", 8,
        lambda: at_once(bench.target, reports, clients=8, seconds=bench.plan.seconds, most=20_000),
        wanted=Wanted(rate=500),
    )  # fmt: skip


def _reports(pods: list[Target]) -> Iterator[bytes]:
    for pod in itertools.cycle(pods):
        body = {
            "kind": "heartbeat",
            "idempotencyKey": str(uuid.uuid4()),
            "contractVersion": "1.0.0",
            "outcome": "ok",
            "payload": {"uptimeSeconds": 5},
        }
        yield pod.message("POST", "/api/internal/awareness/participation", body)


def _token(tenant: str) -> str:
    client = cluster_client()
    name = f"openclaw-{tenant}"
    status, _ = client.request("GET", _ACCOUNTS.path(client.namespace, name))
    if status == 404:
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        client.request("POST", _ACCOUNTS.path(client.namespace), body=body)
    wanted = {"audiences": ["control-plane"], "expirationSeconds": 3600}
    _, answer = client.request(
        "POST",
        _ACCOUNTS.path(client.namespace, name, "token"),
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted},
    )
    return str(answer["status"]["token"])
