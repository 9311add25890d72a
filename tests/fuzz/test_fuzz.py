"""Requests that nobody would think of, made from the OpenAPI document.

Whatever comes, the answer is one of those that the document names, looks as it says, and is never a crash.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, settings
from schemathesis import openapi
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import API_TOKEN, ApiClient

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("cluster_namespace"),
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
SCHEMA = openapi.from_dict(DOCUMENT)
SCHEMA.app = get_wsgi_application()
SETTINGS = settings(
    max_examples=40, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
# What stands behind these is not there in tests, which is a 503 that names it, and right.
UNCONFIGURED = {"OIDC_NOT_CONFIGURED", "DEPENDENCY_NOT_CONFIGURED", "OCI_STORE_NOT_CONFIGURED"}
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]

# For each collection: what makes one member, and the path parameter that then names it.
MEMBERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tenants": ("/tenants", "name", {"displayName": "Anna", "email": "anna@example.com", "team": "t"}),
    "policies": ("/policies", "name", {"domains": ["example.com"]}),
    "cluster-tenants": ("/cluster-tenants", "name", {"displayName": "Acme", "isolationTier": "shared",
                                                     "compute": {"mode": "shared"}, "resources": {"quota": {}}}),
    "groups": ("/groups", "id", {}),
    "mcp-servers": ("/mcp-servers", "id", {"endpoint": "https://wiki.example.com/mcp",
                                           "transport": "streamable-http"}),
    "skills": ("/skills/catalog", "id", {"version": "1.0.0", "scope": "org", "digest": "sha256:" + "0" * 64}),
    "third-party-sources": ("/third-party-sources", "id", {"type": "git-repository",
                                                           "url": "https://git.example.com/skills.git"}),
    "webhooks": ("/webhooks", "id", {"url": "https://hooks.example.com/", "events": ["job.failed"]}),
    "access-tokens": ("/access-tokens", "id", {"role": "viewer"}),
}  # fmt: skip
# Named by another collection's member.
NAMED_BY = {"ai-budget": ("tenants", "tenantName"), "awareness": ("tenants", "tenant")}


def known(path: str) -> dict[str, str]:
    """Path parameters that lead to something; it is made if it is not there (any more)."""
    segment = path.split("/")[3]
    collection, parameter = NAMED_BY.get(segment, (segment, ""))
    if "{" not in path or collection not in MEMBERS:
        return {}
    url, own, body = MEMBERS[collection]
    api = ApiClient(API_TOKEN)
    there = api.get(f"{url}?limit=1").json()
    if not there:
        # The cluster outlives the test: what another one left there has another name.
        body = body | {"name": f"f{uuid.uuid4().hex[:12]}"}
        made = api.post(url, body)
        assert made.status_code == 201, made.content
        there = [body | made.json()]
    return {parameter or own: there[0][own]}


def answered(case: schemathesis.Case[Any]) -> None:
    """Send a request and hold the answer against the document."""
    case.path_parameters |= known(case.operation.path)
    response = case.call(headers={"Authorization": f"Bearer {API_TOKEN}"})
    if response.status_code == 503 and response.json()["code"] in UNCONFIGURED:
        return
    case.validate_response(response, checks=[not_a_server_error, *CHECKS])


def asking(method: str, path: str) -> Any:
    """A test of one operation."""

    def test(case: schemathesis.Case[Any]) -> None:
        answered(case)

    return SCHEMA.include(method=method.upper(), path=path).parametrize()(SETTINGS(test))


# One test has one name: schemathesis gives all operations the same, which a parallel run takes for a single test.
for path, operations in DOCUMENT["paths"].items():
    for method, operation in operations.items():
        globals()[f"test_{operation['operationId']}"] = asking(method, path)
