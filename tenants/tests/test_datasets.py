"""Datasets: Cognee is told first, and what it refuses changes nothing."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from conftest import ApiClient
from operations.models import AuditEntry
from tenants.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)
LISTS: dict[str, list[str]] = {"org": [], "team": ["b", "a", "a", " "], "project": ["p"], "personal": []}


@pytest.fixture
def anna() -> Tenant:
    return Tenant.objects.create(name="anna", display_name="Anna", email="anna@example.com")


class Cognee(HTTPServer):
    """A local server in Cognee's place that notes what it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.told: list[tuple[str, dict[str, str], Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Cognee

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def cognee(settings: Any) -> Iterator[Cognee]:
    server = Cognee()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    settings.COGNEE_ENDPOINT = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_lists_are_kept_sorted_and_org_is_always_default(api: ApiClient, anna: Tenant) -> None:
    wanted = {"org": ["default"], "team": ["a", "b"], "project": ["p"], "personal": []}
    assert api.get("/tenants/anna/datasets").json() == {"org": ["default"], "team": [], "project": [], "personal": []}
    assert api.put("/tenants/anna/datasets", LISTS).json() == wanted
    assert api.get("/tenants/anna/datasets").json() == wanted
    assert api.get("/tenants/anna/effective-contract").json()["awareness"]["memberships"] == wanted
    audited = AuditEntry.objects.count()
    assert api.put("/tenants/anna/datasets", LISTS).status_code == 200
    assert AuditEntry.objects.count() == audited == 1


@pytest.mark.parametrize("missing", ["org", "team", "project", "personal"])
def test_all_four_are_required(api: ApiClient, anna: Tenant, missing: str) -> None:
    answer = api.put("/tenants/anna/datasets", {key: value for key, value in LISTS.items() if key != missing})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, [missing])


def test_another_org_dataset_is_refused(api: ApiClient, anna: Tenant) -> None:
    answer = api.put("/tenants/anna/datasets", LISTS | {"org": ["secret"]})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["org"])


def test_cognee_is_told_all_four(api: ApiClient, anna: Tenant, cognee: Cognee) -> None:
    assert api.put("/tenants/anna/datasets", LISTS).status_code == 200
    [(path, headers, body)] = cognee.told
    assert path == "/v1/permissions/tenants/anna/subjects"
    assert (headers["x-cognee-tenant-id"], headers["x-opencrane-sync-source"]) == ("anna", "control-plane")
    assert body == {
        "subjects": [
            {"scope": "org", "subject": "default"},
            {"scope": "team", "subject": "a"},
            {"scope": "team", "subject": "b"},
            {"scope": "project", "subject": "p"},
        ]
    }


@pytest.mark.parametrize("failure", ["refuses", "away"])
def test_a_failing_cognee_is_a_502_and_changes_nothing(
    api: ApiClient, anna: Tenant, cognee: Cognee, settings: Any, failure: str
) -> None:
    if failure == "refuses":
        cognee.status = 500
    else:
        settings.COGNEE_ENDPOINT = "http://127.0.0.1:9"
    answer = api.put("/tenants/anna/datasets", LISTS)
    assert (answer.status_code, answer.json()["code"]) == (502, "UPSTREAM_ERROR")
    assert "Cognee" in answer.json()["error"]
    assert api.get("/tenants/anna/datasets").json()["team"] == []
    assert not AuditEntry.objects.exists()


def test_the_effective_contract_has_an_id_of_its_content(api: ApiClient, anna: Tenant) -> None:
    answer = api.get("/tenants/anna/effective-contract")
    contract = answer.json()
    assert answer.headers["ETag"] == f'"{contract["contractId"]}"'
    assert contract["contractVersion"] == contract["awareness"]["version"]
    assert contract["tenant"] == {"name": "anna", "team": None, "policyRef": None}
    same = api.get("/tenants/anna/effective-contract", headers={"If-None-Match": answer.headers["ETag"]})
    assert same.status_code == 304
    api.put("/tenants/anna/datasets", LISTS)
    assert api.get("/tenants/anna/effective-contract").json()["contractId"] != contract["contractId"]
