"""The console's pages of cluster tenants and platform DNS, against a cluster."""

from typing import Any

import pytest
from django.test import Client

from accounts.models import Role
from accounts.tests.people import signed_in
from cluster.secrets import secret_data
from conftest import ApiClient
from operations import dns
from tenants.models import ClusterTenant
from tests.cluster.conftest import ANNA
from tests.cluster.test_cluster_tenants import acme, make  # noqa: F401  (a fixture)
from tests.cluster.test_platform_dns import namespaced  # noqa: F401  (a fixture)

FORM = {
    "displayName": "Acme",
    "baseDomain": "acme.example.com",
    "isolationTier": "shared",
    "compute.mode": "shared",
    "resources.quota.cpu": "2",
    "resources.quota.pods": "4",
}


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, response.content
    return response.content.decode()


def test_a_cluster_tenant_is_made_changed_and_deleted(api: ApiClient, acme: str) -> None:  # noqa: F811
    client = signed_in(Role.OPERATOR)
    assert "No cluster tenants yet" in page(client, "/admin/cluster-tenants/")
    bad = client.post("/admin/new-cluster-tenant/", FORM | {"name": acme, "resources.quota.cpu": "two"})
    assert bad.status_code == 400
    assert "Kubernetes quantity" in bad.content.decode()
    assert client.post("/admin/new-cluster-tenant/", FORM | {"name": acme}).status_code == 302
    row = ClusterTenant.objects.get()
    assert row.resources == {"quota": {"cpu": "2", "pods": 4}}
    body = ANNA | {"clusterTenantRef": acme, "resources": {"cpu": "3", "memory": "1Gi"}}
    assert api.post("/tenants", body).status_code == 201
    url = f"/admin/cluster-tenants/{acme}/"
    for path in ("/admin/cluster-tenants/", url):
        shown = page(client, path)
        assert "CPU: 150 percent" in shown
        assert "Ready" in shown
    assert "3 asked for, quota 2" in page(client, url)
    change = FORM | {"generation": str(row.generation), "resources.quota.cpu": "8", "baseDomain": ""}
    review = client.post(f"{url}edit/", change).content.decode()
    assert "baseDomain" in review
    assert client.post(f"{url}edit/", change | {"step": "save"}).status_code == 302
    row.refresh_from_db()
    assert (row.resources["quota"]["cpu"], row.base_domain) == ("8", "")
    same = change | {"generation": str(row.generation)}
    assert client.post(f"{url}edit/", same).status_code == 302
    deletion = {"confirm": acme, "generation": str(row.generation)}
    refused = client.post(f"{url}do/delete/", deletion, follow=True).content.decode()
    assert "Tenants refer to the cluster tenant" in refused
    assert api.delete("/tenants/anna").status_code == 200
    assert "is deleted" in client.post(f"{url}do/delete/", deletion, follow=True).content.decode()
    assert not ClusterTenant.objects.exists()
    assert "cluster_tenant.deprovisioned" in api.get("/audit").content.decode()


def test_viewers_and_the_spec_and_audit_of_a_cluster_tenant(api: ApiClient, acme: str) -> None:  # noqa: F811
    make(api, acme)
    client = signed_in(Role.VIEWER)
    url = f"/admin/cluster-tenants/{acme}/"
    assert "isolationTier: shared" in page(client, f"{url}?tab=spec")
    assert "Created cluster tenant" in page(client, f"{url}?tab=audit")
    assert client.post(f"{url}do/sync/").status_code == 403
    assert client.get(f"{url}edit/").status_code in {200, 403}
    assert client.post(f"{url}edit/", FORM).status_code == 403


@pytest.mark.usefixtures("namespaced")
def test_platform_dns_is_set_up_by_administrators(kubectl: Any) -> None:
    assert signed_in(Role.OPERATOR).get("/admin/platform-dns/").status_code == 403
    client = signed_in(Role.ADMIN)
    assert "Not configured" in page(client, "/admin/platform-dns/")
    form = {"provider": "cloudflare", "zone": "agents.example.com", "email": "ops@example.com", "apiToken": ""}
    missing = client.post("/admin/platform-dns/", form)
    assert missing.status_code == 422
    assert "needs an apiToken" in missing.content.decode()
    done = client.post("/admin/platform-dns/", form | {"apiToken": "cf-token-of-nobody-012345"}, follow=True)
    assert "is created" in done.content.decode()
    assert "cf-token-of-nobody-012345" not in done.content.decode()
    assert "No conditions yet" in done.content.decode()
    assert secret_data(name=dns.secret_name("cloudflare")) == {"api-token": "cf-token-of-nobody-012345"}
