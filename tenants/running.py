"""A tenant's objects as the operator reports them, and in a sentence why it does not run. Pure.

The web process looks at no pods: all of this comes from the status of the custom resource, as the projector copied it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tenants.models import Phase, Tenant
from workloads.naming import FINALIZER

SILENT_AFTER = timedelta(minutes=1)

# Reason of the condition Ready -> what to do about it. docs/operator.md has the same.
NEXT_STEPS: Mapping[str, str] = {
    "ImagePull": "Check image and version on the Spec tab, and that the cluster may pull from that registry.",
    "CrashLoop": "Look at the end of its log: {log} --previous",
    "PodFailed": "Look at the end of its log: {log} --previous",
    "NotReady": "Look at its log: {log}",
    "OutOfMemory": "Give it more memory: Edit, Limits.",
    "PodConfiguration": "Describe the pod: {describe}",
    "Unschedulable": "Look at the nodes, at its CPU and memory, and at its cluster tenant's node pool.",
    "QuotaExceeded": "Raise the quota of its cluster tenant, or suspend somebody else.",
    "PodSecurity": "Look at the pod security labels of its namespace.",
    "PodRefused": "What the cluster says tells what is missing.",
    "SeveralPolicies": "Name one of them as its access policy: Edit, Access.",
    "PolicyMissing": "Make that policy, or name another one.",
    "ClusterTenantNotReady": "Look at its cluster tenant; this goes on by itself once that is ready.",
    "ClusterTenantMissing": "Make the cluster tenant, or name another one.",
    "OtherCluster": "Run an operator in that cluster.",
    "HostTooLong": "Use a shorter base domain.",
    "HostInvalid": "Mend the base domain of its cluster tenant, or INGRESS_DOMAIN.",
    "DefinitionOutdated": "Run manage.py install_crds of this version; this goes on by itself then.",
    "HostTaken": "Remove the other Ingress or give it another host; this goes on by itself then.",
    "ImageInvalid": "Mend image or version on the Spec tab.",
    "NameTaken": "Rename or remove that object; it belongs to somebody else.",
    "KeyMissing": "Restore the Secret from a backup; it is never replaced by another.",
    "DataMissing": "Take the annotation opencrane.io/data-uid away, or restore the volume claim.",
    "ImmutableField": "Delete the object that is named; it is made again.",
    "NamespaceTerminating": "Wait until the namespace is gone, and make it again.",
    "NamespaceMissing": "Make the namespace.",
    "Refused": "What the cluster says tells what is missing; it is tried again every half minute.",
    "Starting": "Wait; this usually takes some seconds.",
    "Stopping": "Wait until its pod has ended.",
    "WaitingForVolume": "If this lasts, look at the volume claim: nobody may provide volumes of its storage class.",
    "Evicted": "Look at the node's disk and memory if it happens again.",
}


@dataclass(frozen=True, slots=True)
class Why:
    """Why a tenant does not run, and what to do next. `tone` is bad, warn or info."""

    sentence: str
    next_step: str
    tone: str


@dataclass(slots=True)
class Node:
    """One object in the tree from the tenant to its pods."""

    kind: str
    name: str
    state: str
    tone: str
    message: str = ""
    children: list["Node"] = field(default_factory=list)


def why_not_running(tenant: Tenant, now: datetime) -> Why | None:
    """The sentence for people; None for a tenant that runs, or is suspended as it should be."""
    if tenant.deleting:
        if FINALIZER in tenant.sync_error:
            said = str(tenant.status.get("message") or "The operator has not let go of it yet.")
            return Why(said, "If no operator runs, let it go; what runs may stay behind.", "warn")
        return None
    condition = condition_of(tenant, "Ready")
    phase = tenant.status_phase
    if tenant.suspended and phase in (Phase.SUSPENDED, "") and tenant.status_observed_generation:
        return None
    if tenant.phase == Phase.RUNNING:
        return None
    if not phase:
        if tenant.in_flight or now - tenant.updated_at < SILENT_AFTER:
            return Why("The operator has not looked at it yet.", "Wait some seconds.", "info")
        return Why(
            "No operator has looked at it.",
            "Check that the process “manage.py operator” runs and follows this namespace.",
            "warn",
        )
    reason = str(condition.get("reason") or "")
    step = NEXT_STEPS.get(reason, "").format(**_commands(tenant))
    said = tenant.status_message or str(condition.get("message") or "")
    if phase == Phase.ERROR:
        return Why(said or "The cluster reports an error.", step or "Look at its objects and events.", "bad")
    if tenant.status_observed_generation < tenant.resource_generation:
        return Why("The cluster has not taken up the last change yet.", "Wait some seconds.", "info")
    return Why(said or "It is starting.", step or "Wait some seconds.", "info")


def condition_of(tenant: Tenant, kind: str) -> dict[str, Any]:
    """A condition of the status; empty when there is none."""
    for condition in tenant.status.get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return {}


def _commands(tenant: Tenant) -> dict[str, str]:
    namespace = tenant.status.get("namespace")
    scope = f" --namespace {namespace}" if namespace else ""
    return {
        "log": f"kubectl{scope} logs deploy/openclaw-{tenant.name}",
        "describe": f"kubectl{scope} describe pod {tenant.pod_name or f'--selector opencrane.io/tenant={tenant.name}'}",
    }


_GOOD = frozenset({"Present", "Bound", "Available", "Ready"})
_WAITING = frozenset({"Pending", "Progressing", "Ending", "Running", "Scaled to zero"})


def tree_of(tenant: Tenant) -> Node | None:
    """The tenant, what it owns, and below the Deployment its pods; None while nothing has been reported."""
    reported = tenant.status.get("objects") or []
    if not reported:
        return None
    root = Node("Tenant", tenant.name, tenant.phase, _phase_tone(tenant.phase), tenant.status_message)
    pods = [_node(entry) for entry in reported if entry.get("kind") == "Pod"]
    for entry in reported:
        if entry.get("kind") == "Pod":
            continue
        node = _node(entry)
        if node.kind == "Deployment":
            node.children, pods = pods, []
        root.children.append(node)
    root.children += pods
    # What is worth looking at first.
    root.children.sort(key=lambda node: node.kind != "Deployment")
    return root


def _node(entry: Mapping[str, Any]) -> Node:
    state = str(entry.get("state") or "")
    tone = "ok" if state in _GOOD else "info" if state in _WAITING else "bad"
    return Node(str(entry.get("kind")), str(entry.get("name")), state, tone, str(entry.get("message") or ""))


def _phase_tone(phase: str) -> str:
    return {"Running": "ok", "Error": "bad", "Suspended": "muted"}.get(phase, "info")
