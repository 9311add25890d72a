"""Access policies by the API, on the cluster: the engine's own behaviour is tested in tests/cluster."""

import threading
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cluster.locks import close_lock_connection
from cluster.resources import ACCESS_POLICIES
from conftest import API_TOKEN, ApiClient
from operations.models import AuditEntry
from policies import rules
from policies.models import AccessPolicy
from policies.tests.factories import make_tenant
from tenants.models import Tenant
from tests.cluster.kube import Kubectl

WEB: dict[str, Any] = {
    "name": "web",
    "description": "Where agents may go",
    "tenantSelector": {"matchTeam": "red", "matchLabels": {"tier": "gold"}},
    "domains": ["Example.com", "*.example.org", "example.com"],
    "egressRules": [{"cidr": "10.0.0.0/8", "ports": [443, 443, 80]}, {"cidr": "2001:DB8:0::/32", "protocol": "UDP"}],
    "mcpServers": {"allow": ["jira"], "deny": []},
}


@pytest.fixture
def kubectl(transactional_db: None, cluster_namespace: str) -> Kubectl:
    """Somebody else at the cluster, in a namespace without policies and tenants."""
    from cluster.client import cluster_client
    from cluster.resources import TENANTS

    client = cluster_client()
    for resource in (ACCESS_POLICIES, TENANTS):
        client.request("DELETE", resource.path(client.namespace))
    return Kubectl(ACCESS_POLICIES)


def test_a_policy_lives_in_both_places_until_it_is_deleted(api: ApiClient, kubectl: Kubectl) -> None:
    assert api.post("/policies", WEB).json() == {"name": "web", "status": "created"}
    rules_in_normal_form = [
        {"cidr": "10.0.0.0/8", "ports": [443, 80], "protocol": "TCP"},
        {"cidr": "2001:db8::/32", "protocol": "UDP"},
    ]
    assert kubectl.spec("web") == {
        "description": "Where agents may go",
        "tenantSelector": {"matchTeam": "red", "matchLabels": {"tier": "gold"}},
        "domains": {"allow": ["example.com", "*.example.org"]},
        "egressRules": rules_in_normal_form,
        "mcpServers": {"allow": ["jira"], "deny": []},
    }
    answer = api.get("/policies/web")
    detail = answer.json()
    assert detail["domains"] == ["example.com", "*.example.org"]
    assert detail["domainPolicy"] == {"allow": detail["domains"], "deny": [], "defaultDeny": False}
    assert detail["egressRules"] == rules_in_normal_form
    assert detail["namespace"] == kubectl.client.namespace
    assert detail["sync"]["state"] == "synced"
    assert answer["ETag"].startswith('"1.')
    assert api.get("/policies/drift").json()["summary"]["driftCount"] == 0
    [item] = api.get("/policies").json()
    assert {key: item[key] for key in item if key != "sync"} == {key: detail[key] for key in item if key != "sync"}

    assert api.put("/policies/web", {"domainPolicy": {"allow": ["a.com"], "deny": ["b.com"], "defaultDeny": True}})
    assert api.put("/policies/web", {"domains": ["c.com"], "description": None}).json()["status"] == "updated"
    assert kubectl.spec("web")["domains"] == {"allow": ["c.com"], "deny": ["b.com"], "defaultDeny": True}
    assert "description" not in kubectl.spec("web")
    assert api.put("/policies/web", {"domains": ["c.com"]}).status_code == 200
    assert api.put("/policies/web", {"domains": []}, headers={"If-Match": '"1.0"'}).status_code == 412
    assert api.post("/policies", WEB).json()["code"] == "POLICY_EXISTS"
    assert api.delete("/policies/web").json() == {"name": "web", "status": "deleted"}
    assert api.get("/policies/web").json()["code"] == "POLICY_NOT_FOUND"
    assert kubectl.get("web") is None
    actions = list(AuditEntry.objects.order_by("timestamp", "id").values_list("action", flat=True))
    assert actions == [
        "policy.created",
        "policy.updated",
        "policy.updated",
        "policy.delete_requested",
        "policy.deleted",
    ]


def test_repair_takes_over_what_the_cluster_has(api: ApiClient, kubectl: Kubectl) -> None:
    api.post("/policies", WEB)
    kubectl.edit("web", {"spec": {"mcpServers": {"deny": ["jira"]}}})
    kubectl.create("made-there", {"domains": {"allow": ["x.com"]}})
    kubectl.create("drift", {})
    kubectl.create("odd", {"egressRules": [{"cidr": "10.1.2.3/8"}]})
    found = {m["name"]: m["issue"] for m in api.get("/policies/drift").json()["mismatches"]}
    assert found == {"web": "field-mismatch"} | dict.fromkeys(("made-there", "drift", "odd"), "missing-projection")
    report = api.post("/policies/repair?dryRun=false").json()
    assert report["resource"] == "AccessPolicy"
    done = {entry["name"]: (entry["action"], entry["reason"]) for entry in report["entries"]}
    assert done["web"][0] == "updated"
    assert done["made-there"][0] == "created"
    assert "reserved" in done["drift"][1]
    assert "10.0.0.0/8" in done["odd"][1]
    assert api.get("/policies/web").json()["mcpServers"] == {"allow": ["jira"], "deny": ["jira"]}
    assert api.get("/policies/made-there").json()["domains"] == ["x.com"]


def test_a_policy_that_tenants_name_stays(api: ApiClient, kubectl: Kubectl) -> None:
    api.post("/policies", {"name": "web"})
    for number in range(12):
        make_tenant(f"t{number:02}", policy_ref="web")
    answer = api.delete("/policies/web")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert "t00, t01" in answer.json()["detail"]
    assert "t10" not in answer.json()["detail"]
    Tenant.objects.update(policy_ref="")
    assert api.delete("/policies/web").status_code == 200


def test_a_tenant_never_ends_up_with_a_policy_that_is_gone(api: ApiClient, kubectl: Kubectl) -> None:
    for round_ in range(6):
        api.post("/policies", {"name": "web"})
        name = f"t{round_}"
        start = threading.Barrier(2)
        answers: dict[str, int] = {}

        def run(label: str, send: Any, start: Any = start, answers: Any = answers) -> None:
            start.wait()
            try:
                answers[label] = send(ApiClient(API_TOKEN)).status_code
            finally:
                close_lock_connection()
                connection.close()

        body = {"name": name, "displayName": "T", "email": "t@example.com", "policyRef": "web"}
        threads = [
            threading.Thread(target=run, args=("tenant", lambda client, body=body: client.post("/tenants", body))),
            threading.Thread(target=run, args=("policy", lambda client: client.delete("/policies/web"))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers in ({"tenant": 201, "policy": 409}, {"tenant": 422, "policy": 200})
        api.delete(f"/tenants/{name}")
        api.delete("/policies/web")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "drift"}, "name"),
        ({"name": "Web"}, "name"),
        ({"domains": ["no domain"]}, "domains.0"),
        ({"domains": ["10.0.0.1"]}, "domains.0"),
        ({"domains": ["a.*.com"]}, "domains.0"),
        ({"domains": {"allow": ["-a.com"]}}, "domains.allow.0"),
        ({"domains": {"defaultDeny": "yes"}}, "domains.defaultDeny"),
        ({"domains": {"deni": []}}, "domains.deni"),
        ({"domains": ["a.com"], "domainPolicy": {"allow": ["b.com"]}}, "domains"),
        ({"egressRules": [{"cidr": "10.1.2.3/8"}]}, "egressRules.0.cidr"),
        ({"egressRules": [{"cidr": "10.1.2.3"}]}, "egressRules.0.cidr"),
        ({"egressRules": [{"cidr": "fe80::1%eth0/64"}]}, "egressRules.0.cidr"),
        ({"egressRules": [{"cidr": "10.0.0.0/8", "ports": [0]}]}, "egressRules.0.ports.0"),
        ({"egressRules": [{"cidr": "10.0.0.0/8", "ports": ["443"]}]}, "egressRules.0.ports.0"),
        ({"egressRules": [{"cidr": "10.0.0.0/8", "protocol": "ICMP"}]}, "egressRules.0.protocol"),
        ({"tenantSelector": {"matchTeam": "a b"}}, "tenantSelector.matchTeam"),
        ({"tenantSelector": {"matchLabels": {"a b": "c"}}}, "tenantSelector.matchLabels.a b"),
        ({"tenantSelector": {"matchLabels": {"a": 1}}}, "tenantSelector.matchLabels.a"),
        ({"mcpServers": {"allow": "jira"}}, "mcpServers.allow"),
        ({"mcpServer": {}}, "mcpServer"),
    ],
)
def test_bad_input_is_named(api: ApiClient, db: None, body: Any, field: str) -> None:
    answer = api.post("/policies", {"name": "web"} | body)
    assert answer.status_code == 400, answer.json()
    assert list(answer.json()["fields"]) == [field]
    assert not AccessPolicy.objects.exists()


def test_domains_may_be_as_long_as_they_get() -> None:
    assert rules.domain(".".join(["a" * 61] * 4)) == ".".join(["a" * 61] * 4)
    assert rules.domain("*.XN--BCHER-KVA.example") == "*.xn--bcher-kva.example"
    for bad in ("", "*", "*.", "a..b", "a" * 64, ".".join(["a" * 63] * 5), "exämple.com", "a_b.com", "a.com\n"):
        with pytest.raises(ValueError, match=r"Has to|Holds"):
            rules.domain(bad)


def test_who_is_reached(api: ApiClient, db: None) -> None:
    make_tenant("red-gold", team="red", resource_labels={"tier": "gold", "x": "y"})
    make_tenant("red-plain", team="red")
    make_tenant("gold-only", resource_labels={"tier": "gold"})
    make_tenant("names-it", policy_ref="web")
    make_tenant("names-another", team="red", resource_labels={"tier": "gold"}, policy_ref="other")
    make_tenant("going", team="red", resource_labels={"tier": "gold"}, deleting=True)
    policy = AccessPolicy.objects.create(name="web")

    def reached(selector: Any) -> list[str]:
        policy.tenant_selector = selector
        policy.save()
        assert api.get("/policies/web").json()["tenantCount"] == len(api.get("/policies/web/tenants").json())
        return [tenant["name"] for tenant in api.get("/policies/web/tenants").json()]

    assert reached(None) == ["names-it"]
    assert reached({}) == ["gold-only", "names-it", "red-gold", "red-plain"]
    assert reached({"matchTeam": "red"}) == ["names-it", "red-gold", "red-plain"]
    assert reached({"matchLabels": {"tier": "gold"}}) == ["gold-only", "names-it", "red-gold"]
    assert reached({"matchLabels": {"tier": "gold"}, "matchTeam": "red"}) == ["names-it", "red-gold"]
    first = api.get("/policies/web/tenants?limit=1")
    assert [(t["name"], t["via"]) for t in first.json()] == [("names-it", "policyRef")]
    path = first["Link"].split(">")[0][1:]
    assert [(t["name"], t["via"]) for t in api.get(path).json()] == [("red-gold", "tenantSelector")]


def test_lists_cost_one_query(api: ApiClient, db: None) -> None:
    for number in range(7):
        AccessPolicy.objects.create(name=f"p{number}", description="odd" if number % 2 else "")
    for path, count in (("/policies", 7), ("/policies?limit=3", 3), ("/policies?q=ODD", 3)):
        with CaptureQueriesContext(connection) as captured:
            assert len(api.get(path).json()) == count
        assert len(captured) == 1
