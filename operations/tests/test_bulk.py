"""Doing one thing to many objects of a list: asked first, then a job with a result for each."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from accounts.models import Role
from accounts.tests.people import signed_in
from cluster.client import cluster_client
from cluster.resources import ACCESS_POLICIES, CLUSTER_TENANTS
from mcpservers.models import McpServer
from opencrane.actor import SYSTEM
from operations.models import AuditEntry, Job
from policies.models import AccessPolicy, Grant, Group
from policies.services import access_policies
from policies.tests.factories import make_grant, make_group, make_tenant
from policies.tests.test_console import make_server
from skills.models import SkillBundle
from skills.tests.factories import make_bundle
from tenants.models import ClusterTenant, Tenant
from tenants.services import cluster_tenants

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def operator() -> Client:
    return signed_in(Role.OPERATOR)


def results(job: Job) -> dict[str, str]:
    return dict(job.items.values_list("key", "outcome"))


def start(client: Client, path: str, **values: Any) -> Job:
    """Confirm what the preview asked, and return the job it led to."""
    answer = client.post(path, {"step": "start"} | values)
    assert answer.status_code == 302, answer.content.decode()
    return Job.objects.get(pk=answer["Location"].rstrip("/").rpartition("/")[2])


def test_servers_that_match_a_filter_are_activated_and_the_rest_is_left_alone(operator: Client) -> None:
    for name in ("find-a", "find-b", "other"):
        make_server(name, status="draft")
    listed = operator.get("/admin/mcp-servers/?q=find").content.decode()
    assert 'value="q=find"' in listed
    asked = operator.post("/admin/mcp-servers-bulk/", {"action": "activate", "all": "1", "query": "q=find"})
    assert "2 MCP servers will be active" in asked.content.decode()
    assert McpServer.objects.filter(status="active").count() == 0
    job = start(operator, "/admin/mcp-servers-bulk/", action="activate", names=["find-a", "find-b"])
    assert results(job) == {"find-a": "activated", "find-b": "activated"}
    assert dict(McpServer.objects.values_list("name", "status")) == {
        "find-a": "active", "find-b": "active", "other": "draft",
    }  # fmt: skip
    assert AuditEntry.objects.filter(action="mcp_server.updated").count() == 2


def test_deleted_servers_take_their_grants_along(operator: Client) -> None:
    server = make_server("search")
    make_grant(make_tenant("anna"), str(server.pk), payload_type="mcp-server")
    values = {"action": "delete", "names": ["search", "gone"]}
    assert operator.post("/admin/mcp-servers-bulk/", values | {"step": "start"}).status_code == 400
    job = start(operator, "/admin/mcp-servers-bulk/", **values, phrase="delete 2")
    assert results(job) == {"search": "deleted", "gone": "skipped"}
    assert not Grant.objects.exists()


def test_a_websocket_server_fails_to_be_probed_and_the_others_are(operator: Client) -> None:
    make_server("socket", transport="websocket", endpoint="wss://mcp.example.com/")
    job = start(operator, "/admin/mcp-servers-bulk/", action="probe", names=["socket"])
    assert results(job) == {"socket": "failed"}
    assert "WebSocket" in job.items.get().message


def test_groups_are_deleted_with_every_grant_that_names_them(operator: Client) -> None:
    red, blue = make_group("red"), make_group("blue")
    make_grant(red, "wiki")
    make_grant(blue, "wiki")
    job = start(operator, "/admin/groups-bulk/", action="delete", names=["red"], phrase="delete 1")
    assert results(job) == {"red": "deleted"}
    assert list(Group.objects.values_list("name", flat=True)) == ["blue"]
    assert Grant.objects.count() == 1


def test_policies_that_a_tenant_names_stay_and_say_so(operator: Client, cluster_namespace: str) -> None:
    cluster_client().request("DELETE", ACCESS_POLICIES.path(cluster_namespace))
    for name in ("free", "used"):
        access_policies.create_policy(name=name, values={}, actor=SYSTEM)
    tenant = make_tenant("anna")
    Tenant.objects.filter(pk=tenant.pk).update(policy_ref="used")
    job = start(
        operator, "/admin/policies-bulk/", action="delete", names=["free", "used"], phrase="delete 2", reason="cleanup"
    )
    assert results(job) == {"free": "deleted", "used": "failed"}
    assert "anna" in job.items.get(key="used").message
    assert list(AccessPolicy.objects.values_list("name", flat=True)) == ["used"]
    assert AuditEntry.objects.get(action="policy.delete_requested").message.endswith("Reason: cleanup")
    assert cluster_client().get(ACCESS_POLICIES, "free") is None


def test_bundles_that_have_passed_are_published_and_the_others_say_why_not(operator: Client) -> None:
    make_bundle("fit", tags=["new"])
    make_bundle("fit", "1.1.0")
    make_bundle("unfit", tags=["new"], scan_status="failed", is_cleared=False, severities={"high": 2})
    make_bundle("bare", tags=["new"], content=b"", scan_status="unavailable", scan_error="It has no content.")
    assert 'value="fit@1.1.0"' in operator.get("/admin/skills/").content.decode()
    bulk = "/admin/skills-bulk/"
    asked = operator.post(bulk, {"action": "publish", "all": "1", "query": "tag=new"}).content.decode()
    assert "3 skill bundles will be published" in asked
    assert "bare@1.0.0, fit@1.0.0, unfit@1.0.0" in asked
    chosen = ["fit@1.0.0", "unfit@1.0.0", "bare@1.0.0", "gone@1.0.0"]
    for action, done in (("review", "sent to review"), ("publish", "published"), ("deprecate", "deprecated")):
        job = start(operator, bulk, action=action, names=chosen)
        failed = {"unfit@1.0.0": "failed", "bare@1.0.0": "failed", "gone@1.0.0": "skipped"}
        assert results(job) == {"fit@1.0.0": done} | failed
        why = "is draft" if action == "deprecate" else "findings: 2 high"
        assert why in job.items.get(key="unfit@1.0.0").message
    assert "To skill bundles" in operator.get(f"/admin/jobs/{job.pk}/").content.decode()
    assert set(SkillBundle.objects.values_list("name", "version", "status")) == {
        ("fit", "1.0.0", "deprecated"), ("fit", "1.1.0", "draft"), ("unfit", "1.0.0", "draft"),
        ("bare", "1.0.0", "draft"),
    }  # fmt: skip


def test_bundles_are_scanned_again_or_deleted_with_their_grants_for_a_reason(operator: Client) -> None:
    fit, _ = make_bundle("fit"), make_bundle("fit", "1.1.0")
    SkillBundle.objects.filter(pk=make_bundle("bare").pk).update(content=None, content_size=None)
    make_grant(make_tenant("anna"), str(fit.pk), payload_type="skill-bundle")
    job = start(operator, "/admin/skills-bulk/", action="scan", names=["fit@1.0.0", "bare@1.0.0"])
    assert results(job) == {"fit@1.0.0": "asked for", "bare@1.0.0": "failed"}
    assert "no content" in job.items.get(key="bare@1.0.0").message
    values = {"action": "delete", "names": ["fit@1.0.0", "bare@1.0.0"]}
    assert operator.post("/admin/skills-bulk/", values | {"step": "start"}).status_code == 400
    job = start(operator, "/admin/skills-bulk/", **values, phrase="delete 2", reason="old")
    assert results(job) == {"fit@1.0.0": "deleted", "bare@1.0.0": "deleted"}
    assert list(SkillBundle.objects.values_list("name", "version")) == [("fit", "1.1.0")]
    assert not Grant.objects.exists()
    assert all(
        entry.message.endswith("Reason: old") for entry in AuditEntry.objects.filter(action="skill_bundle.deleted")
    )


@pytest.fixture
def customers(cluster_namespace: str) -> Iterator[tuple[str, str, str]]:
    """Three cluster tenants; their resources are in no namespace, so their names are those of this test process."""
    free, used, other = (f"{word}-{cluster_namespace}"[:53].strip("-") for word in ("free", "used", "other"))
    for name in (free, used, other):
        spec = {"displayName": name, "isolationTier": "shared", "compute": {"mode": "shared"}, "resources": {}}
        cluster_tenants.create_cluster_tenant(name=name, values=spec, actor=SYSTEM)
    yield free, used, other
    for name in (free, used, other):
        cluster_client().request("DELETE", CLUSTER_TENANTS.path("", name))


def test_cluster_tenants_in_use_stay_and_name_their_tenants(operator: Client, customers: tuple[str, str, str]) -> None:
    free, used, other = customers
    tenant = make_tenant("anna")
    Tenant.objects.filter(pk=tenant.pk).update(cluster_tenant_ref=used)
    bulk = "/admin/cluster-tenants-bulk/"
    asked = operator.post(bulk, {"action": "sync", "all": "1", "query": "q=used"}).content.decode()
    assert "1 cluster tenant will be applied" in asked
    ClusterTenant.objects.update(provision_attempts=99)
    job = start(operator, bulk, action="sync", names=[free, used])
    assert results(job) == {free: "applied", used: "applied"}
    assert ClusterTenant.objects.get(provision_attempts=99).name == other
    values = {"action": "delete", "names": [free, used], "reason": "left"}
    assert operator.post(bulk, values | {"step": "start"}).status_code == 400
    job = start(operator, bulk, **values, phrase="delete 2")
    assert results(job) == {free: "deleted", used: "failed"}
    assert "anna" in job.items.get(key=used).message
    assert set(ClusterTenant.objects.values_list("name", flat=True)) == {used, other}
    entry = AuditEntry.objects.get(action="cluster_tenant.delete_requested")
    assert entry.message.endswith("Reason: left")


@pytest.mark.parametrize("path", ["policies", "groups", "mcp-servers", "skills", "cluster-tenants"])
def test_nothing_is_done_to_nobody_or_by_viewers(operator: Client, path: str) -> None:
    assert operator.post(f"/admin/{path}-bulk/", {"action": "delete"}).status_code == 400
    assert operator.post(f"/admin/{path}-bulk/", {"action": "explode", "name": "x"}).status_code == 400
    viewer = signed_in(Role.VIEWER)
    assert viewer.post(f"/admin/{path}-bulk/", {"action": "delete", "name": "x"}).status_code == 403
    assert "data-select" not in viewer.get(f"/admin/{path}/").content.decode()
    assert not Job.objects.exists()
