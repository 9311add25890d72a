"""Who gets into /api/internal: pods with a token of their own ServiceAccount, as themselves, and nobody else."""

import base64
import datetime
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from accounts import reviews
from accounts.models import Role
from cluster import client as cluster_module
from cluster.client import cluster_client
from conftest import API_TOKEN, ApiClient, issue
from mcpservers.models import McpCredential, McpServer
from opencrane import env
from tenants.models import Tenant
from tests.cluster.conftest import OwnCluster
from tests.cluster.kube import eventually
from tests.cluster.pods import (
    delete_account,
    forget_reviews,
    make_account,
    make_namespace,
    make_tenant,
    pod_of,
    token_of,
)

pytestmark = pytest.mark.cluster

OWN = "/api/internal/contract/anna"


@pytest.fixture
def anna(db: None, cluster_namespace: str) -> Iterator[Tenant]:
    forget_reviews()
    yield make_tenant("anna")
    forget_reviews()


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_pod_reads_its_own_contract_as_the_api_gives_it(anna: Tenant, api: ApiClient) -> None:
    pod = pod_of(anna)
    answer = pod.get(OWN)
    assert answer.status_code == 200, answer.content
    official = api.get("/tenants/anna/effective-contract")
    assert answer.content == official.content
    assert answer["ETag"] == official["ETag"]
    again = pod.get(OWN, headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert pod.get(OWN, headers={"X-Request-ID": "from-the-pod"})["X-Request-ID"] == "from-the-pod"


def test_a_pod_learns_nothing_of_other_tenants(anna: Tenant) -> None:
    make_tenant("bert")
    pod = pod_of(anna)
    others = [pod.get(f"/api/internal/contract/{name}") for name in ("bert", "nobody", "Anna", "anna%20")]
    assert {refusal(answer) for answer in others} == {(403, "FORBIDDEN")}
    assert len({answer.content for answer in others}) == 1


def test_two_pods_read_each_their_own(anna: Tenant) -> None:
    bert = make_tenant("bert")
    for tenant in (anna, bert):
        assert pod_of(tenant).get(f"/api/internal/contract/{tenant.name}").json()["tenant"]["name"] == tenant.name


@pytest.mark.parametrize(
    "audience", ["skill-registry", "openclaw-session", "https://kubernetes.default.svc.cluster.local"]
)
def test_a_token_for_another_audience_is_refused(anna: Tenant, audience: str) -> None:
    answer = pod_of(anna, audience).get(OWN)
    assert refusal(answer) == (401, "UNAUTHORIZED")
    assert answer["WWW-Authenticate"] == "Bearer"


def test_only_the_tenants_own_account_in_its_own_namespace_speaks_for_it(anna: Tenant) -> None:
    elsewhere = f"{cluster_client().namespace}-elsewhere"
    make_namespace(elsewhere)
    tokens = [
        token_of("openclaw-anna", namespace=elsewhere),
        token_of("anna"),
        token_of("openclaw-annas"),
        token_of("default"),
    ]
    assert {refusal(ApiClient(token).get(OWN)) for token in tokens} == {(401, "UNAUTHORIZED")}


def test_the_pod_of_a_cluster_tenant_lives_in_the_bound_namespace(anna: Tenant) -> None:
    customer = f"for-{cluster_client().namespace}"
    bound_namespace = f"opencrane-{customer}"
    Tenant.objects.filter(pk=anna.pk).update(cluster_tenant_ref=customer)
    make_namespace(bound_namespace)
    assert ApiClient(token_of("openclaw-anna")).get(OWN).status_code == 401
    bound = ApiClient(token_of("openclaw-anna", namespace=bound_namespace))
    assert bound.get(OWN).status_code == 200
    Tenant.objects.filter(pk=anna.pk).update(cluster_tenant_ref="")
    assert bound.get(OWN).status_code == 401


def test_access_tokens_sessions_and_nonsense_are_refused_without_asking_the_cluster(
    anna: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No cluster at all: whoever asked it would get a 503.
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    cluster_module.reset_cluster_client()
    try:
        over = base64.urlsafe_b64encode(b'{"exp": 1}').decode().rstrip("=")
        odd = ("a.b.c", "a.b", "é.é.é", "x" * 20_000, "..", "a.e30.c", "a.bnVsbA.c", f"a.{over}.c")
        for token in (API_TOKEN, issue(Role.ADMIN), *odd):
            assert refusal(ApiClient(token).get(OWN)) == (401, "UNAUTHORIZED"), token
        assert refusal(ApiClient().get(OWN)) == (401, "UNAUTHORIZED")
        assert refusal(ApiClient().get(OWN, headers={"Authorization": "Basic YTpi"})) == (401, "UNAUTHORIZED")
        client = ApiClient()
        client.cookies["sessionid"] = "anything"
        assert client.get(OWN).status_code == 401
    finally:
        monkeypatch.undo()
        cluster_module.reset_cluster_client()


def test_a_pods_token_opens_nothing_else(anna: Tenant) -> None:
    pod = pod_of(anna)
    assert pod.get(OWN).status_code == 200
    for path in ("/tenants", "/tenants/anna", "/audit", "/awareness/rollout"):
        assert pod.get(path).status_code == 401


def test_errors_are_in_the_envelope(anna: Tenant) -> None:
    pod = pod_of(anna)
    assert refusal(pod.get("/api/internal/nothing")) == (404, "NOT_FOUND")
    assert refusal(pod.put(OWN, {})) == (405, "METHOD_NOT_ALLOWED")


def test_a_tenant_that_is_going_or_gone_has_no_pod(anna: Tenant) -> None:
    pod = pod_of(anna)
    assert pod.get(OWN).status_code == 200
    Tenant.objects.filter(pk=anna.pk).update(deleting=True)
    assert pod.get(OWN).status_code == 401
    Tenant.objects.filter(pk=anna.pk).delete()
    assert pod.get(OWN).status_code == 401


def test_a_deleted_account_is_refused_once_the_kept_answer_is_gone(anna: Tenant) -> None:
    make_tenant("cleo")
    token = token_of("openclaw-cleo")
    delete_account("openclaw-cleo")
    unused = ApiClient(token).get("/api/internal/contract/cleo")
    assert unused.status_code == 401
    make_account("openclaw-cleo")
    assert ApiClient(token).get("/api/internal/contract/cleo").status_code == 401


def test_an_answer_is_kept_but_not_for_a_new_tenant_of_the_old_name(anna: Tenant) -> None:
    Tenant.objects.filter(pk=anna.pk).update(created_at=timezone.now() - datetime.timedelta(minutes=5))
    token = token_of("openclaw-anna")
    pod = ApiClient(token)
    assert pod.get(OWN).status_code == 200
    delete_account("openclaw-anna")
    assert pod.get(OWN).status_code == 200
    Tenant.objects.filter(pk=anna.pk).delete()
    make_tenant("anna")
    # Asked again, the API server may go on for ten seconds with what it has kept itself.
    eventually("the token is refused", lambda: pod.get(OWN).status_code == 401)


def test_what_is_kept_is_bounded_and_never_outlives_the_token(anna: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "MOST_KEPT", 3)
    # Tokens of the same second and length may be the same token.
    for seconds in range(600, 605):
        token = token_of("openclaw-anna", seconds=seconds)
        assert ApiClient(token).get(OWN).status_code == 200
    kept = reviews.reviews._kept
    assert len(kept) == 3
    assert all(until <= time.monotonic() + reviews.KEPT_SECONDS for until, _, _ in kept.values())
    assert token.encode() not in repr(kept).encode()


def test_a_good_token_is_asked_about_once(anna: Tenant, django_assert_num_queries: Any) -> None:
    Tenant.objects.filter(pk=anna.pk).update(created_at=timezone.now() - datetime.timedelta(minutes=5))
    asked = reviews.reviews._ask
    calls = []

    def counted(token: str, audiences: frozenset[str]) -> Any:
        calls.append(token)
        return asked(token, audiences)

    reviews.reviews._ask = counted  # type: ignore[method-assign]
    try:
        pod = pod_of(anna)
        for _ in range(3):
            assert pod.get(OWN).status_code == 200
    finally:
        del reviews.reviews._ask
    assert len(calls) == 1


# -- other workloads --------------------------------------------------------------------------------------------------

SERVERS = "/api/internal/obot-registry/v0.1/servers"


def test_internal_callers_are_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCRANE_INTERNAL_CALLERS", "obot/gateway:control-plane, billing/importer.v2:https://usage")
    assert env.workloads("OPENCRANE_INTERNAL_CALLERS") == {
        "obot/gateway": "control-plane", "billing/importer.v2": "https://usage"
    }  # fmt: skip
    for nonsense in ("obot", "obot/gateway", "obot/gateway:", "/gateway:x", "Obot/gateway:x", "a/b:x y", "a/b:x,a/b:y",
                     "a/openclaw-anna:control-plane", "a/b/c:x"):  # fmt: skip
        monkeypatch.setenv("OPENCRANE_INTERNAL_CALLERS", nonsense)
        with pytest.raises(SystemExit, match="OPENCRANE_INTERNAL_CALLERS"):
            env.workloads("OPENCRANE_INTERNAL_CALLERS")


@pytest.fixture
def gateway(anna: Tenant, settings: Any) -> ApiClient:
    """The Obot gateway, as the settings name it."""
    namespace = cluster_client().namespace
    settings.INTERNAL_CALLERS = {f"{namespace}/obot-gateway": "mcp-gateway"}
    return ApiClient(token_of("obot-gateway", "mcp-gateway"))


def server(name: str, **fields: Any) -> McpServer:
    values = {"endpoint": f"https://{name[:20]}.example.com/mcp", "transport": "streamable-http", "status": "active"}
    return McpServer.objects.create(name=name, **values | fields)


def test_the_gateway_reads_the_active_servers_as_from_an_mcp_registry(
    gateway: ApiClient, django_assert_num_queries: Any
) -> None:
    wiki = server("wiki", description="Search the wiki")
    server("draft", status="draft")
    server("ill", status="degraded")
    server("socket", transport="websocket", endpoint="wss://socket.example.com")
    McpCredential.objects.create(server=wiki, display_name="key", secret_ref="wiki-key")
    with django_assert_num_queries(1):
        answer = gateway.get(SERVERS)
    assert answer.status_code == 200, answer.content
    [found] = answer.json()["servers"]
    assert answer.json()["metadata"] == {"count": 1}
    assert found["server"]["name"] == "io.opencrane/wiki"
    assert found["server"]["remotes"] == [{"type": "streamable-http", "url": "https://wiki.example.com/mcp"}]
    assert (found["server"]["description"], found["server"]["version"]) == ("Search the wiki", "1.0.1")
    official = found["_meta"]["io.modelcontextprotocol.registry/official"]
    assert (official["status"], official["isLatest"]) == ("active", True)
    assert b"wiki-key" not in answer.content


def test_the_registry_has_pages_and_names_of_its_own_form(gateway: ApiClient) -> None:
    for name in ("a b", "a/b", "a-b", "ünï", "x" * 253):
        server(name)
    names: list[str] = []
    cursor = ""
    while True:
        body = gateway.get(f"{SERVERS}?limit=2{cursor}").json()
        names += [each["server"]["name"] for each in body["servers"]]
        if "nextCursor" not in body["metadata"]:
            break
        cursor = f"&cursor={body['metadata']['nextCursor']}"
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", name) and len(name) <= 200 for name in names)
    assert gateway.get(f"{SERVERS}?search=X").json()["metadata"]["count"] == 1
    assert gateway.get(f"{SERVERS}?updated_since=2100-01-01").json()["servers"] == []
    assert gateway.get(f"{SERVERS}?cursor=x").json()["code"] == "INVALID_CURSOR"


def test_pods_and_other_workloads_keep_out_of_each_others_endpoints(gateway: ApiClient, anna: Tenant) -> None:
    assert refusal(pod_of(anna).get(SERVERS)) == (403, "FORBIDDEN")
    assert refusal(gateway.get(OWN)) == (403, "FORBIDDEN")
    event = {"kind": "heartbeat", "idempotencyKey": "k"}
    assert refusal(gateway.post("/api/internal/awareness/participation", event)) == (403, "FORBIDDEN")
    assert ApiClient(token_of("obot-gateway", "control-plane")).get(SERVERS).status_code == 401
    assert ApiClient(token_of("stranger", "mcp-gateway")).get(SERVERS).status_code == 401
    assert ApiClient(API_TOKEN).get(SERVERS).status_code == 401


# -- a cluster that is away -------------------------------------------------------------------------------------------


def test_an_expired_or_forged_token_is_refused(own_cluster: OwnCluster) -> None:
    forget_reviews()
    make_tenant("anna")
    good = token_of("openclaw-anna")
    assert ApiClient(good).get(OWN).status_code == 200
    head, claims, signature = good.split(".")
    other = token_of("openclaw-bert").split(".")
    for forged in (f"{head}.{claims}.{other[2]}", f"{head}.{other[1]}.{signature}", f"{head}.{claims}."):
        assert refusal(ApiClient(forged).get(OWN)) == (401, "UNAUTHORIZED")


def test_a_cluster_that_is_away_is_named_and_costs_no_thread(own_cluster: OwnCluster) -> None:
    forget_reviews()
    anna = make_tenant("anna", created_at=timezone.now() - datetime.timedelta(minutes=5))
    known, unknown = pod_of(anna), pod_of(anna)
    assert known.get(OWN).status_code == 200
    own_cluster.freeze()
    began = time.monotonic()
    answer = unknown.get(OWN)
    assert refusal(answer) == (503, "DEPENDENCY_UNAVAILABLE")
    assert "Kubernetes" in answer.json()["error"]
    assert time.monotonic() - began < 10 * reviews.REVIEW_SECONDS
    # Now that it is known to be away, nobody waits that long again.
    began = time.monotonic()
    assert unknown.get(OWN).status_code == 503
    assert time.monotonic() - began < reviews.REVIEW_SECONDS
    assert known.get(OWN).status_code == 200
    own_cluster.thaw()
    own_cluster.kill()
    reviews.reviews._paused_until = 0.0
    assert refusal(unknown.get(OWN)) == (503, "DEPENDENCY_UNAVAILABLE")
    own_cluster.start()
    reviews.reviews._paused_until = 0.0
    assert unknown.get(OWN).status_code == 200
