"""What each process asks the API server for while people do what they do, and what it may and never needs here."""

import json
from pathlib import Path
from typing import Any

from cluster.client import MERGE_PATCH, cluster_client
from cluster.resources import ACCESS_POLICIES, CLUSTER_TENANTS, LEASES, OPERATOR, TENANTS
from tests import kubernetes
from tests.composed import Composed


def rights(**verbs: str) -> set[kubernetes.Right]:
    return {kubernetes.Right(name, verb) for name, listed in verbs.items() for verb in listed.split()}


# What processes ask for where this test does not go: rare turns, and what the development cluster lacks.
NOT_ASKED_FOR_HERE: dict[str, set[kubernetes.Right]] = {
    # The definitions are there already.
    "migrate": rights(**{"customresourcedefinitions.apiextensions.k8s.io": "create"}),
    # A person's session, for the token; and the other kind of issuer.
    "web": rights(**{"serviceaccounts/token": "create", "issuers.cert-manager.io": "get"}),
    # A tenant that is let go of, the other kind of issuer, and a metrics API.
    "jobs": rights(
        **{
            "tenants.opencrane.io": "patch",
            "issuers.cert-manager.io": "get create patch",
            "nodes": "list",
            "nodes.metrics.k8s.io": "list",
        }
    ),
    # Cilium, an object that turns up while it is made, a tenant that is gone, and an admission plugin that looks at
    # owner references.
    "operator": rights(
        **{
            "ciliumnetworkpolicies.cilium.io": "list watch create patch delete",
            "persistentvolumeclaims": "get",
            "secrets": "get",
            "tenants.opencrane.io": "get",
            "tenants.opencrane.io/finalizers": "update",
        }
    ),
}


def asked_by(composed: Composed, log: Path) -> tuple[dict[str, set[kubernetes.Right]], list[str]]:
    """What each process has asked the API server for, and what it was refused."""
    asked: dict[str, set[kubernetes.Right]] = {}
    refused = []
    prefix = f"system:serviceaccount:{composed.namespace}-system:opencrane-"
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        user = event["user"]["username"]
        if not user.startswith(prefix):
            continue
        about, code, verb = event["objectRef"], event["responseStatus"]["code"], event["verb"]
        name = f"{about['resource']}.{about['apiGroup']}" if "apiGroup" in about else about["resource"]
        resource = f"{name}/{about['subresource']}" if "subresource" in about else name
        # An apply that makes an object asks for both.
        verbs = (verb, "create") if (verb, code) == ("patch", 201) else (verb,)
        asked.setdefault(user.removeprefix(prefix), set()).update(kubernetes.Right(resource, each) for each in verbs)
        if code == 403:
            refused.append(f"{user} {verb} {resource}")
    return asked, refused


def everything_that_reaches_the_cluster(composed: Composed) -> None:
    """What people do in a year, in seconds."""

    def do(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        code, answer = composed.request(method, f"/api/v1{path}", body)
        assert code == status, f"{method} {path}: {code} {answer}"
        return answer

    def running(name: str) -> None:
        composed.wait("operator", lambda: do("GET", f"/tenants/{name}")["phase"] == "Running")

    client = cluster_client()
    customer = f"{composed.namespace[-20:]}-acme".strip("-")
    person = {"displayName": "Anna", "email": "anna@example.com", "team": "red"}
    do("POST", "/policies", {"name": "closed", "tenantSelector": {"matchTeam": "red"}, "domains": ["a.example"]}, 201)
    do("PUT", "/policies/closed", {"description": "For red."})
    place = {"isolationTier": "shared", "compute": {"mode": "shared"}, "resources": {"quota": {"pods": 5}}}

    def placed() -> None:
        body = {"name": customer, "displayName": "Acme", **place}
        # 409 while the place of the one before is cleared away.
        composed.wait("jobs", lambda: composed.request("POST", "/api/v1/cluster-tenants", body)[0] == 201)
        composed.wait("jobs", lambda: do("GET", f"/cluster-tenants/{customer}")["status"]["phase"] == "ready")

    placed()
    do("PUT", f"/cluster-tenants/{customer}", {"displayName": "Acme AG"})
    do("POST", "/tenants", {"name": "anna", **person}, 201)
    do("POST", "/tenants", {"name": "berta", **person, "clusterTenantRef": customer}, 201)
    running("anna")
    running("berta")
    do("POST", "/tenants/anna/suspend")
    composed.wait("operator", lambda: do("GET", "/tenants/anna")["phase"] == "Suspended")
    do("POST", "/tenants/anna/resume")
    running("anna")
    token = composed.token("openclaw-anna", composed.namespace, "control-plane")
    assert composed.request("GET", "/api/internal/contract/anna", token=token)[0] == 200
    do(
        "PUT",
        "/platform/dns",
        {
            "provider": "cloudflare",
            "zone": "a.example",
            "email": "a@a.example",
            "apiToken": "t" * 20,
            "issuerName": composed.namespace,
        },
    )
    assert do("GET", f"/platform/dns?issuerName={composed.namespace}")["configured"] is True
    do("PUT", "/providers/keys/openai", {"apiKey": "sk-" + "t" * 20})
    do("POST", "/tenants/anna/sync")
    for resource, name, where, field in (
        (TENANTS, "anna", "tenants", "team"),
        (ACCESS_POLICIES, "closed", "policies", "description"),
        (CLUSTER_TENANTS, customer, "cluster-tenants", "displayName"),
    ):
        path = resource.path(composed.namespace, name)
        client.request("PATCH", path, body={"spec": {field: "blue"}}, content_type=MERGE_PATCH)
        assert do("GET", f"/{where}/drift")["mismatches"][0]["fields"] == [field]
        do("POST", f"/{where}/repair?dryRun=false")
    composed.wait("beat", lambda: "opencrane_definition_outdated{" in composed.metrics())

    def is_renewed() -> bool:
        lease = (client.get(LEASES, OPERATOR, namespace=composed.namespace) or {})["spec"]
        return bool(lease["renewTime"] != lease["acquireTime"])

    composed.wait("operator", is_renewed)
    do("DELETE", "/tenants/berta?purge=true")
    do("DELETE", "/tenants/anna")
    (left,) = [each for each in do("GET", "/retained-data") if each["tenant"] == "anna"]
    do("DELETE", f"/retained-data/{left['id']}")
    do("DELETE", f"/cluster-tenants/{customer}")
    placed()
    do("DELETE", f"/cluster-tenants/{customer}?purge=true")
    do("DELETE", "/policies/closed")
