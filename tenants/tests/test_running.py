"""The console on what runs: objects of a tenant, why it does not run, the fleet by phase."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Role
from accounts.tests.people import signed_in
from policies.models import AccessPolicy
from tenants.models import Tenant
from tenants.running import NEXT_STEPS, why_not_running
from workloads.naming import FINALIZER

pytestmark = pytest.mark.django_db

OBJECTS = [
    {"kind": "ServiceAccount", "name": "openclaw-anna", "state": "Present"},
    {"kind": "PersistentVolumeClaim", "name": "openclaw-anna-data-u", "state": "Bound"},
    {"kind": "Deployment", "name": "openclaw-anna", "state": "Progressing"},
    {"kind": "Pod", "name": "openclaw-anna-1", "state": "ImagePullBackOff", "message": 'Back-off pulling "fail:1"'},
]


def make(name: str = "anna", *, phase: str = "", reason: str = "", message: str = "", **fields: Any) -> Tenant:
    """A tenant about which the operator has reported, unless `phase` is empty."""
    status: dict[str, Any] = {}
    if phase:
        condition = {"type": "Ready", "status": "True" if phase == "Running" else "False", "reason": reason}
        status = {"phase": phase, "namespace": "agents", "objects": OBJECTS, "conditions": [condition]}
        fields |= {"status_observed_generation": 1, "resource_generation": 1}
    values = {"display_name": name.title(), "email": f"{name}@example.com", "generation": 1, "observed_generation": 1}
    return Tenant.objects.create(
        name=name, **values | {"status": status, "status_phase": phase, "status_message": message} | fields
    )


@pytest.fixture
def admin() -> Client:
    return signed_in(Role.ADMIN)


def page(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


def test_the_workloads_tab_shows_the_tree_down_to_the_pod_and_the_warnings(admin: Client) -> None:
    tenant = make(phase="Error", reason="ImagePull", message="The image cannot be pulled: no such image.")
    tenant.status |= {
        "events": [
            {"type": "Warning", "reason": "Failed", "object": "Pod/openclaw-anna-1", "message": "<b>pull</b>",
             "lastSeen": "2026-01-01T00:00:00Z"}
        ],
        "effectivePolicy": {"name": "strict", "source": "selector"},
    }  # fmt: skip
    tenant.status["conditions"].append(
        {"type": "PolicyEnforced", "status": "False", "message": "a.example.com cannot be let through by name."}
    )
    tenant.save()
    text = page(admin, "/admin/tenants/anna/?tab=workloads")
    positions = [
        text.index(part) for part in ("openclaw-anna</span>", "openclaw-anna-1</span>", "openclaw-anna-data-u")
    ]
    assert positions == sorted(positions), "the Deployment with its pods comes first"
    assert "Back-off pulling &quot;fail:1&quot;" in text
    assert "&lt;b&gt;pull&lt;/b&gt;" in text
    assert "<b>pull" not in text
    assert "whose selector picks it" in text
    assert "a.example.com cannot be let through by name." in text
    assert "--namespace agents get all --selector opencrane.io/tenant=anna" in text


def test_why_it_does_not_run_and_what_next_stand_in_the_header_of_every_tab(admin: Client) -> None:
    make(phase="Error", reason="ImagePull", message="The image cannot be pulled: no such image.")
    for tab in ("overview", "workloads", "sync"):
        text = page(admin, f"/admin/tenants/anna/?tab={tab}")
        assert "The image cannot be pulled: no such image." in text
        assert "Check image and version" in text


def test_a_tenant_that_runs_or_is_suspended_needs_no_reason(admin: Client) -> None:
    make("runs", phase="Running", reason="Running")
    make("rests", phase="Suspended", reason="Suspended", suspended=True)
    for name in ("runs", "rests"):
        assert "Why it does not run" not in page(admin, f"/admin/tenants/{name}/")


def test_a_tenant_that_nobody_looks_at_says_so() -> None:
    now = timezone.now()
    tenant = make()
    fresh = why_not_running(tenant, now)
    assert fresh is not None
    assert fresh.tone == "info"
    old = why_not_running(tenant, now + timedelta(minutes=5))
    assert old is not None
    assert "manage.py operator" in old.next_step


def test_every_reason_has_a_next_step() -> None:
    source = "".join(
        (Path(__file__).parents[2] / "workloads" / name).read_text()
        for name in ("status.py", "fleet.py", "reconcile.py", "manifests.py", "network.py")
    )
    reasons = set(re.findall(r'(?:problem|UnfitError|SelectionError|Verdict)\(\s*(?:PENDING, )?"([A-Z]\w+)"', source))
    reasons |= set(re.findall(r'return "([A-Z]\w+)"\n', source[source.index("def _reason") :]))
    assert len(reasons) > 15
    assert reasons <= set(NEXT_STEPS)
    documented = (Path(__file__).parents[2] / "docs" / "operator.md").read_text()
    waiting = {"Starting", "Stopping", "WaitingForVolume", "Evicted"}
    assert {reason for reason in reasons - waiting if f"`{reason}`" not in documented} == set()


def test_the_commands_of_a_next_step_can_be_run_as_they_are() -> None:
    tenant = make(phase="Error", reason="CrashLoop", message="It crashes.")
    why = why_not_running(tenant, timezone.now())
    assert why is not None
    assert "kubectl --namespace agents logs deploy/openclaw-anna --previous" in why.next_step


def test_the_fleet_by_phase_shows_trouble_first_and_leads_to_what_it_counts(
    admin: Client, django_assert_max_num_queries: Any
) -> None:
    make("good", phase="Running")
    make("rests", phase="Suspended", suspended=True)
    for number in range(14):
        make(f"bad{number:02}", phase="Error", reason="CrashLoop", message=f"It crashes {number}.")
    with django_assert_max_num_queries(12):
        text = page(admin, "/admin/fleet/")
    assert text.index("It crashes 13.") < text.index(">good<") < text.index(">rests<")
    assert "It crashes 1." not in text, "the newest twelve are shown, the rest is a link"
    assert 'href="/admin/tenants/?phase=Error"' in text
    assert "14 tenants" in text


def test_an_empty_fleet_teaches(admin: Client) -> None:
    assert "curl" in page(admin, "/admin/fleet/")


def test_a_tenant_that_is_held_can_be_let_go_by_who_may_write(admin: Client) -> None:
    make(phase="Running", deleting=True, generation=2, sync_error=f"Waiting in the cluster for: {FINALIZER}")
    assert "Let go" in page(admin, "/admin/tenants/anna/")
    assert "release-dialog" not in page(signed_in(Role.VIEWER), "/admin/tenants/anna/")


def test_a_policy_says_what_this_cluster_does_not_enforce(admin: Client) -> None:
    says = "a.example.com cannot be let through by name: this cluster has no CiliumNetworkPolicy."
    AccessPolicy.objects.create(name="strict", generation=1, observed_generation=1, status={"message": says})
    assert says in page(admin, "/admin/policies/strict/")
