"""ServiceAccounts and their signed tokens, as pods get them from the cluster."""

from typing import Any

from accounts.reviews import reviews
from cluster.client import cluster_client
from cluster.resources import NAMESPACES, SERVICE_ACCOUNTS
from cluster.tokens import request_token
from conftest import ApiClient
from tenants.models import Tenant

# Namespaces that tests have made beyond their own; the session deletes them at its end.
made_namespaces: set[str] = set()


def make_namespace(name: str) -> None:
    client = cluster_client()
    made_namespaces.add(name)
    if client.get(NAMESPACES, name) is None:
        client.request(
            "POST", NAMESPACES.path(""), body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )


def make_account(name: str, namespace: str = "") -> None:
    """A ServiceAccount, if it is not there yet."""
    client = cluster_client()
    namespace = namespace or client.namespace
    status, _ = client.request("GET", SERVICE_ACCOUNTS.path(namespace, name))
    if status == 404:
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        client.request("POST", SERVICE_ACCOUNTS.path(namespace), body=body)


def delete_account(name: str, namespace: str = "") -> None:
    client = cluster_client()
    client.request("DELETE", SERVICE_ACCOUNTS.path(namespace or client.namespace, name))


def token_of(name: str, audience: str = "control-plane", namespace: str = "", seconds: int = 600) -> str:
    """A token from the cluster's TokenRequest."""
    make_account(name, namespace)
    namespace = namespace or cluster_client().namespace
    return request_token(namespace=namespace, service_account=name, audience=audience, seconds=seconds)[0]


def make_tenant(name: str, **fields: Any) -> Tenant:
    """A row without its resource."""
    return Tenant.objects.create(name=name, display_name=name, email=f"{name}@example.com", **fields)


def pod_of(tenant: Tenant, audience: str = "control-plane") -> ApiClient:
    """What the tenant's pod would call with."""
    return ApiClient(token_of(f"openclaw-{tenant.name}", audience))


def forget_reviews() -> None:
    """Nothing that the API server said before counts any more."""
    reviews.forget()
