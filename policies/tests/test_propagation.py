"""Cognee is told what each tenant's grants have become, by and by, and never holds up a write."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from conftest import ApiClient
from policies.models import AccessPolicy, AwarenessPush
from policies.services import propagation
from policies.tests.factories import make_grant, make_group, make_tenant


class Cognee:
    """A local stand-in that notes what it is told, and fails as it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.status = 200
        cognee = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.headers["x-opencrane-sync-source"] == "control-plane"
                tenant = self.path.removeprefix("/v1/permissions/tenants/").removesuffix("/awareness-grants")
                assert self.headers["x-cognee-tenant-id"] == tenant
                if cognee.status == 200:
                    cognee.told.append((tenant, body["grants"]))
                self.send_response(cognee.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def take(self) -> dict[str, Any]:
        told, self.told = dict(self.told), []
        return told


@pytest.fixture
def cognee(transactional_db: None, settings: Any) -> Iterator[Cognee]:
    stub = Cognee()
    settings.COGNEE_ENDPOINT = stub.url
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


HANDBOOK = [{"payloadId": "handbook", "access": "allow", "scope": "org"}]


def test_changes_of_groups_reach_the_tenants_in_them(api: ApiClient, cognee: Cognee) -> None:
    for name in ("anna", "berta", "carla"):
        make_tenant(name)
    body = {"name": "g", "members": ["anna", "Berta@example.com"], "grants": [{"payloadId": "handbook"}]}
    path = "/groups/" + api.post("/groups", body).json()["id"]
    assert cognee.take() == {"anna": HANDBOOK, "berta": HANDBOOK}
    api.put(path, {"members": ["anna", "carla"]})
    assert cognee.take() == {"berta": [], "carla": HANDBOOK}
    api.put(path, {"description": "nothing that matters"})
    assert cognee.take() == {}
    api.delete(path)
    assert cognee.take() == {"anna": [], "carla": []}
    assert not AwarenessPush.objects.filter(pushed__lt=F("wanted")).exists()


def test_a_failing_cognee_is_told_later_and_once(api: ApiClient, cognee: Cognee) -> None:
    make_tenant("anna")
    group = make_group("g", "anna@example.com")
    cognee.status = 503
    for payload in ("one", "handbook"):
        answer = api.put(f"/groups/{group.pk}", {"grants": [{"payloadId": payload}]})
        assert answer.status_code == 200
    push = AwarenessPush.objects.get()
    assert (push.wanted - push.pushed, push.last_error) == (2, "Cognee answered 503.")
    assert push.not_before > timezone.now()
    cognee.status = 200
    assert propagation.push_due() == 0
    AwarenessPush.objects.update(not_before=timezone.now())
    assert propagation.push_due() == 1
    assert cognee.take() == {"anna": HANDBOOK}
    push = AwarenessPush.objects.get()
    assert (push.wanted, push.pushed, push.attempts, push.last_error) == (2, 2, 0, "")


def test_one_that_is_away_is_not_asked_for_everybody(cognee: Cognee, settings: Any) -> None:
    for number in range(8):
        make_tenant(f"t{number}")
    settings.COGNEE_ENDPOINT = "http://127.0.0.1:9"
    propagation.subjects_changed(emails=[f"T{number}@example.com" for number in range(8)])
    assert AwarenessPush.objects.exclude(last_error="").count() == propagation.GIVE_UP_AFTER
    assert AwarenessPush.objects.filter(pushed__lt=F("wanted")).count() == 8


def test_a_policy_tells_whom_it_reached_and_whom_it_reaches(cognee: Cognee) -> None:
    anna = make_tenant("anna", team="red")
    make_tenant("berta", team="blue")
    make_tenant("carla", policy_ref="web")
    make_tenant("dora", team="green")
    make_grant(anna)
    AccessPolicy.objects.create(name="web")
    propagation.policy_changed("web", [{"matchTeam": "red"}, {"matchTeam": "blue"}, None])
    assert cognee.take() == {"anna": HANDBOOK, "berta": [], "carla": []}


def test_without_an_endpoint_nothing_is_noted(api: ApiClient, db: None) -> None:
    make_tenant("anna")
    api.post("/groups", {"name": "g", "members": ["anna"], "grants": [{"payloadId": "handbook"}]})
    assert not AwarenessPush.objects.exists()


@pytest.mark.usefixtures("cluster_namespace")
def test_policies_and_tenants_written_by_the_api_are_told(api: ApiClient, cognee: Cognee) -> None:
    from cluster.client import cluster_client
    from cluster.resources import ACCESS_POLICIES, TENANTS

    client = cluster_client()
    for resource in (ACCESS_POLICIES, TENANTS):
        client.request("DELETE", resource.path(client.namespace))
    make_grant("anna@example.com")
    api.post("/tenants", {"name": "anna", "displayName": "Anna", "email": "other@example.com", "team": "red"})
    assert cognee.take() == {"anna": []}
    api.put("/tenants/anna", {"email": "Anna@example.com"})
    assert cognee.take() == {"anna": HANDBOOK}
    api.put("/tenants/anna", {"displayName": "Anna B."})
    assert cognee.take() == {}
    api.post("/policies", {"name": "web", "tenantSelector": {"matchTeam": "red"}})
    assert cognee.take() == {"anna": HANDBOOK}
    api.delete("/policies/web")
    assert cognee.take() == {"anna": HANDBOOK}
