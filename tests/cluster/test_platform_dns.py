"""Platform DNS: the issuer and its Secret in the cluster, tokens that never come back, and clusters that refuse."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection

from cluster.client import cluster_client
from cluster.resources import CRDS
from cluster.secrets import secret_data
from conftest import ApiClient
from operations import dns
from operations.models import AuditEntry, DnsRequest
from operations.tasks import apply_dns, sweep_dns
from tests.cluster.conftest import OwnCluster
from tests.cluster.kube import Kubectl

TOKEN = "cf-token-0123456789-of-nobody"
PATH = "/platform/dns"


@pytest.fixture
def issuer(cert_manager: None, kubectl: Kubectl, settings: Any) -> Iterator[str]:
    """The name of a ClusterIssuer that is free; its Secrets go where this test process may write."""
    name = f"issuer-{django_settings.NAMESPACE}"
    settings.CERT_MANAGER_NAMESPACE = cluster_client().namespace
    yield name
    cluster_client().request("DELETE", dns.RESOURCES[dns.CLUSTER_ISSUER].path("", name))


@pytest.fixture
def namespaced(cert_manager: None, kubectl: Kubectl, settings: Any) -> Iterator[str]:
    """The default name, as an Issuer in this process's namespace."""
    settings.PLATFORM_DNS_ISSUER_KIND = dns.ISSUER
    yield dns.DEFAULT_ISSUER
    client = cluster_client()
    client.request("DELETE", dns.RESOURCES[dns.ISSUER].path(client.namespace, dns.DEFAULT_ISSUER))


def body_of(**values: Any) -> dict[str, Any]:
    body = {"provider": "cloudflare", "zone": "agents.example.com", "email": "ops@example.com", "apiToken": TOKEN}
    return {key: value for key, value in (body | values).items() if value is not ...}


def test_a_cluster_issuer_and_its_secret_are_made_and_read_back(api: ApiClient, issuer: str) -> None:
    absent = api.get(f"{PATH}?issuerName={issuer}").json()
    assert (absent["configured"], absent["provider"], absent["issuerKind"]) == (False, None, "ClusterIssuer")
    made = api.put(PATH, body_of(issuerName=issuer))
    assert made.status_code == 200, made.content
    assert made.json() == {
        "status": "created",
        "issuerName": issuer,
        "issuerKind": "ClusterIssuer",
        "issuerNamespace": None,
        "provider": "cloudflare",
        "zone": "agents.example.com",
        "secretName": "opencrane-dns01-cloudflare",
    }
    assert secret_data(name="opencrane-dns01-cloudflare") == {"api-token": TOKEN}
    live = Kubectl(dns.RESOURCES[dns.CLUSTER_ISSUER]).get(issuer)
    assert live is not None
    assert live["spec"]["acme"] == {
        "email": "ops@example.com",
        "server": "https://acme-v02.api.letsencrypt.org/directory",
        "privateKeySecretRef": {"name": f"{issuer}-account-key"},
        "solvers": [
            {
                "selector": {"dnsZones": ["agents.example.com"]},
                "dns01": {
                    "cloudflare": {"apiTokenSecretRef": {"name": "opencrane-dns01-cloudflare", "key": "api-token"}}
                },
            }
        ],
    }
    ready = {"type": "Ready", "status": "False", "reason": "ErrRegisterACMEAccount", "message": "No route."}
    Kubectl(dns.RESOURCES[dns.CLUSTER_ISSUER]).set_status(issuer, conditions=[ready])
    shown = api.get(f"{PATH}?issuerName={issuer}").json()
    assert shown["conditions"] == [ready | {"lastTransitionTime": None}]
    assert shown == shown | {
        "configured": True,
        "provider": "cloudflare",
        "zone": "agents.example.com",
        "email": "ops@example.com",
        "server": dns.DEFAULT_SERVER,
        "secretName": "opencrane-dns01-cloudflare",
    }


def test_the_token_is_nowhere_but_in_the_secret(api: ApiClient, issuer: str) -> None:
    assert api.put(PATH, body_of(issuerName=issuer)).status_code == 200
    pages = [api.get(f"{PATH}?issuerName={issuer}"), api.get("/audit")]
    assert all(TOKEN not in page.content.decode() for page in pages)
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_token, d::text FROM operations_dnsrequest d")
        token, everything = cursor.fetchone()
    assert token == ""
    assert TOKEN not in everything


def test_while_it_waits_the_token_is_sealed_and_the_sweep_finishes(
    api: ApiClient, namespaced: str, no_worker: Any
) -> None:
    assert api.put(PATH, body_of()).status_code == 504
    row = DnsRequest.objects.get()
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_token FROM operations_dnsrequest")
        assert cursor.fetchone()[0].startswith("oc1.")
    assert api.get(PATH).json()["configured"] is False
    apply_dns(str(row.pk))
    assert api.get(PATH).json()["configured"] is True
    assert DnsRequest.objects.get().api_token == ""


def test_a_change_needs_no_token_again_but_another_provider_does(api: ApiClient, namespaced: str) -> None:
    assert api.put(PATH, body_of()).json()["issuerNamespace"] == cluster_client().namespace
    changed = api.put(PATH, body_of(email="dns@example.com", apiToken=..., server="https://acme.example.com/dir"))
    assert (changed.status_code, changed.json()["status"]) == (200, "updated")
    shown = api.get(PATH).json()
    assert (shown["email"], shown["server"]) == ("dns@example.com", "https://acme.example.com/dir")
    assert secret_data(name="opencrane-dns01-cloudflare") == {"api-token": TOKEN}
    refused = api.put(PATH, body_of(provider="digitalocean", apiToken=...))
    assert (refused.status_code, refused.json()["code"]) == (422, "DNS_PROVIDER_MISCONFIGURED")
    assert api.put(PATH, body_of(provider="digitalocean", apiToken="dop_v1_x")).status_code == 200
    assert secret_data(name="opencrane-dns01-digitalocean") == {"access-token": "dop_v1_x"}
    assert api.get(PATH).json()["provider"] == "digitalocean"


def test_other_providers_are_taken_as_they_are(api: ApiClient, namespaced: str) -> None:
    config = {"region": "eu-central-1", "accessKeyIDSecretRef": {"name": "route53", "key": "id"}}
    made = api.put(PATH, body_of(provider="route53", apiToken=..., solverConfig=config))
    assert (made.status_code, made.json()["secretName"]) == (200, None)
    live = Kubectl(dns.RESOURCES[dns.ISSUER]).get(namespaced)
    assert live is not None
    assert live["spec"]["acme"]["solvers"][0]["dns01"] == {"route53": config}
    assert api.get(PATH).json()["solverConfig"] == config


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"apiToken": ...}, "apiToken"),
        ({"solverConfig": {"a": 1}}, "solverConfig"),
        ({"provider": "route53", "apiToken": ...}, "solverConfig"),
        ({"provider": "route53", "solverConfig": {"a": 1}}, "apiToken"),
    ],
)
def test_what_the_provider_does_not_take_is_a_422(
    api: ApiClient, namespaced: str, change: dict[str, Any], field: str
) -> None:
    refused = api.put(PATH, body_of(**change))
    assert (refused.status_code, refused.json()["code"]) == (422, "DNS_PROVIDER_MISCONFIGURED")
    assert list(refused.json()["fields"]) == [field]
    assert not DnsRequest.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"provider": "cloud/flare"}, "provider"),
        ({"provider": ...}, "provider"),
        ({"zone": "Agents.example.com"}, "zone"),
        ({"zone": "b\u00fccher.example"}, "zone"),
        ({"zone": "example"}, "zone"),
        ({"email": "ops"}, "email"),
        ({"server": "acme.example.com"}, "server"),
        ({"issuerName": "My Issuer"}, "issuerName"),
        ({"apiToken": ""}, "apiToken"),
        ({"solverConfig": "x"}, "solverConfig"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_bodies_name_the_field(api: ApiClient, change: dict[str, Any], field: str) -> None:
    response = api.put(PATH, body_of(**change))
    assert response.status_code == 400, response.content
    assert list(response.json()["fields"]) == [field]
    assert TOKEN not in response.content.decode()


def test_only_administrators(api: ApiClient, operator_api: ApiClient, namespaced: str) -> None:
    assert operator_api.get(PATH).status_code == 403
    assert operator_api.put(PATH, body_of()).status_code == 403
    assert api.get(f"{PATH}?issuerName=No%20Name").status_code == 400


def test_somebody_elses_issuer_is_left_alone(api: ApiClient, namespaced: str) -> None:
    theirs = Kubectl(dns.RESOURCES[dns.ISSUER])
    theirs.create(namespaced, {"selfSigned": {}})
    shown = api.get(PATH).json()
    assert (shown["configured"], shown["provider"], shown["conditions"]) == (True, None, [])
    refused = api.put(PATH, body_of())
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
    assert theirs.spec(namespaced) == {"selfSigned": {}}
    assert DnsRequest.objects.get().api_token == ""
    assert AuditEntry.objects.filter(action="platform_dns.rejected").count() == 1
    sweep_dns()


def test_a_cluster_that_refuses_lacks_cert_manager_or_is_away(
    api: ApiClient, own_cluster: OwnCluster, settings: Any
) -> None:
    client = cluster_client()
    settings.CERT_MANAGER_NAMESPACE = "nowhere"
    lost = api.put(PATH, body_of())
    assert (lost.status_code, lost.json()["code"]) == (502, "UPSTREAM_ERROR")
    assert "nowhere" in lost.json()["error"]
    settings.CERT_MANAGER_NAMESPACE = "cert-manager"
    definition = client.get(CRDS, "clusterissuers.cert-manager.io")
    assert definition is not None
    strict = {
        "apiVersion": definition["apiVersion"],
        "kind": definition["kind"],
        "metadata": {"name": definition["metadata"]["name"]},
        "spec": definition["spec"],
    }
    spec = strict["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"] = {"acme": {"type": "object", "maxProperties": 1, "x-kubernetes-preserve-unknown-fields": True}}
    client.apply(CRDS, strict, force=True)
    refused = api.put(PATH, body_of())
    assert (refused.status_code, refused.json()["code"]) == (422, "CLUSTER_REJECTED")
    client.request("DELETE", CRDS.path("", "clusterissuers.cert-manager.io"))
    assert api.get(PATH).json()["configured"] is False
    lacking = api.put(PATH, body_of())
    assert (lacking.status_code, lacking.json()["code"]) == (502, "UPSTREAM_ERROR")
    assert "cert-manager" in lacking.json()["error"]
    own_cluster.stop()
    assert api.get(PATH).status_code == 502
    settings.TENANT_CR_APPEARANCE_TIMEOUT_MS = 100
    late = api.put(PATH, body_of())
    assert late.status_code == 504
    assert TOKEN not in late.content.decode()
