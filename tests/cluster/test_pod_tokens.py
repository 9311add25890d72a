"""A person gets a token for the pod of their own tenant: what finds it, what it is good for, what is left of it."""

import datetime
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.models import Role, User
from accounts.reviews import reviews
from cluster import wait
from cluster.client import cluster_client
from conftest import ApiClient
from operations.models import AuditEntry
from tenants.models import Tenant
from tests.cluster.conftest import OwnCluster
from tests.cluster.pods import forget_reviews, make_account, make_namespace

pytestmark = pytest.mark.cluster

PATH = "/auth/pod-token"


class Person(ApiClient):
    """Somebody with a session, as a page of the same site would call the API for them."""

    def __init__(self, email: str, role: Role = Role.MEMBER) -> None:
        super().__init__()
        self.force_login(User.objects.create_user(email or "nobody", email, role=role))
        self.cookies["csrftoken"] = "a" * 32

    def ask(self) -> Any:
        return self.post(PATH, headers={"X-CSRFToken": "a" * 32})


def make_tenant(name: str, email: str, **fields: Any) -> Tenant:
    return Tenant.objects.create(
        name=name, display_name=name, email=email, **{"ingress_host": f"{name}.crane.example.com"} | fields
    )


@pytest.fixture
def anna(transactional_db: None, cluster_namespace: str) -> Iterator[Tenant]:
    make_account("openclaw-anna")
    yield make_tenant("anna", "Anna@Example.com")
    forget_reviews()


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_person_gets_a_token_for_their_own_pod(anna: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    make_tenant("bert", "bert@example.com")
    answer = Person("anna@EXAMPLE.com").ask()
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert (said["tenant"], said["ingressHost"], said["audience"]) == (
        "anna",
        "anna.crane.example.com",
        "openclaw-session",
    )
    ends = parse_datetime(said["expiresAt"])
    assert ends is not None
    assert said["expiresAt"].endswith("Z")
    assert datetime.timedelta(0) < ends - timezone.now() <= datetime.timedelta(seconds=601)
    holder = reviews.holder_of(said["token"], frozenset({"openclaw-session"}))
    assert holder is not None
    assert holder.username == f"system:serviceaccount:{cluster_client().namespace}:openclaw-anna"
    # It opens the gateway and nothing of ours.
    assert reviews.holder_of(said["token"], frozenset({"control-plane"})) is None
    assert ApiClient(said["token"]).get("/auth/me").status_code == 401
    entry = AuditEntry.objects.get(action="pod_token.issued")
    assert (entry.resource, entry.tenant, entry.tenant_id, entry.actor_name) == (
        "Tenant/anna",
        "anna",
        anna.pk,
        "anna@EXAMPLE.com",
    )
    assert answer["Cache-Control"] == "no-store"
    assert said["token"] not in caplog.text
    assert said["token"] not in str(list(AuditEntry.objects.values()))


def test_the_account_is_in_the_namespace_of_the_cluster_tenant(anna: Tenant) -> None:
    namespace = f"opencrane-{cluster_client().namespace}"
    make_namespace(namespace)
    make_account("openclaw-bert", namespace)
    make_tenant("bert", "bert@example.com", cluster_tenant_ref=cluster_client().namespace)
    token = Person("bert@example.com").ask().json()["token"]
    holder = reviews.holder_of(token, frozenset({"openclaw-session"}))
    assert holder is not None
    assert holder.username == f"system:serviceaccount:{namespace}:openclaw-bert"


def test_the_audience_is_a_setting(anna: Tenant, settings: Any) -> None:
    settings.POD_AUDIENCE = "gateways"
    said = Person("anna@example.com").ask().json()
    assert said["audience"] == "gateways"
    assert reviews.holder_of(said["token"], frozenset({"gateways"})) is not None


def test_no_tenant_and_several(anna: Tenant) -> None:
    assert refusal(Person("nobody@example.com").ask()) == (403, "NO_TENANT")
    assert refusal(Person("").ask()) == (403, "NO_TENANT")
    make_tenant("anna-two", "anna@example.com")
    anna_person = Person("anna@example.com")
    assert refusal(anna_person.ask()) == (409, "AMBIGUOUS_TENANT")
    Tenant.objects.filter(name="anna-two").update(deleting=True)
    assert anna_person.ask().status_code == 200
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("change", [{"suspended": True}, {"ingress_host": ""}, {"name": "no-account-yet"}], ids=str)
def test_a_pod_that_is_not_ready(anna: Tenant, change: dict[str, Any]) -> None:
    Tenant.objects.filter(pk=anna.pk).update(**change)
    assert refusal(Person("anna@example.com").ask()) == (409, "POD_NOT_READY")
    assert not AuditEntry.objects.exists()


def test_tokens_and_strangers_get_none(anna: Tenant, api: ApiClient, anonymous_api: ApiClient) -> None:
    assert refusal(api.post(PATH)) == (403, "FORBIDDEN")
    assert refusal(anonymous_api.post(PATH)) == (401, "UNAUTHORIZED")
    person = Person("anna@example.com")
    assert refusal(person.post(PATH)) == (403, "FORBIDDEN")
    assert person.get(PATH).status_code == 405


def test_a_cluster_that_is_away(own_cluster: OwnCluster) -> None:
    make_account("openclaw-anna")
    make_tenant("anna", "anna@example.com")
    person = Person("anna@example.com")
    assert person.ask().status_code == 200
    slots = max(1, django_settings.WEB_THREADS // 2)
    taken = [wait._slots.acquire(blocking=False) for _ in range(slots)]
    try:
        assert all(taken)
        assert refusal(person.ask()) == (503, "DEPENDENCY_UNAVAILABLE")
    finally:
        for _ in filter(None, taken):
            wait._slots.release()
    own_cluster.kill()
    answer = person.ask()
    assert refusal(answer) == (503, "DEPENDENCY_UNAVAILABLE")
    assert "Kubernetes" in answer.json()["error"]
    assert AuditEntry.objects.filter(action="pod_token.issued").count() == 1
