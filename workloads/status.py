"""What a tenant's status says, from what is observed. Pure, but for the time that is handed in."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cluster.resources import DEPLOYMENTS, TENANTS, VOLUME_CLAIMS, KubeObject, Resource
from workloads.observed import ChildKey, EventView, Observed, PodView, remember, told_events

RUNNING, PENDING, SUSPENDED, ERROR = "Running", "Pending", "Suspended", "Error"
READY, APPLIED, ENFORCED, EXCLUSIVE = "Ready", "Applied", "PolicyEnforced", "HostExclusive"
NORMAL, WARNING = "Normal", "Warning"
MESSAGE_MAX = 1000

# Reasons of Kubernetes', and what they mean to the person who has to do something.
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError", "ErrImageNeverPull"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"})


@dataclass(frozen=True)
class Verdict:
    """A phase, a CamelCase reason for programs and a sentence for people (empty when all is well)."""

    phase: str
    reason: str
    message: str = ""


@dataclass
class Findings:
    """What a reconcile run found out, for the status.

    Attributes:
        claimant: an Ingress of somebody else that claims the tenant's host too.
    """

    host: str = ""
    namespace: str = ""
    policy: dict[str, Any] = field(default_factory=dict)
    shortfalls: list[str] = field(default_factory=list)
    claimant: str = ""
    problem: Verdict | None = None
    children: list[ChildKey] = field(default_factory=list)


def problem(reason: str, message: str) -> Verdict:
    return Verdict(ERROR, reason, message)


def verdict(tenant: KubeObject, seen: Observed, found: Findings) -> Verdict:
    """The phase of a tenant and why."""
    if found.problem is not None:
        return found.problem
    pods = [pod for pod in seen.pods.values() if not pod.is_ending]
    if tenant["spec"].get("suspended"):
        left = len(seen.pods)
        if left or seen.workload is None or seen.workload.replicas or not seen.workload.is_current:
            return Verdict(PENDING, "Stopping", f"Stopping: {left} pod{'s' * (left != 1)} left.")
        return Verdict(SUSPENDED, "Suspended")
    workload = seen.workload
    if workload is None or not workload.is_current:
        return Verdict(PENDING, "Starting", "The cluster has not taken up the Deployment yet.")
    newest = max(pods, key=lambda pod: (pod.created, pod.name), default=None)
    if newest is not None and newest.reason:
        return _pod_verdict(newest)
    if workload.available >= 1:
        return Verdict(RUNNING, "Running")
    if workload.failure:
        return _failure_verdict(workload.failure)
    if workload.is_stalled:
        return problem("NotReady", "The agent did not become ready within 10 minutes. Look at its log.")
    if seen.claim_phase == "Pending" and newest is not None and newest.phase == "Pending":
        return Verdict(PENDING, "WaitingForVolume", "Waiting for its volume to be provided.")
    return Verdict(PENDING, "Starting", "The agent is starting.")


def _pod_verdict(pod: PodView) -> Verdict:
    reason, detail = pod.reason, pod.message.rstrip(".")
    if reason in _IMAGE:
        return problem("ImagePull", f"The image cannot be pulled: {detail}.")
    if reason == "OOMKilled" or "OOMKilled" in detail:
        return problem("OutOfMemory", f"The agent ran out of memory ({detail}).")
    if reason == "CrashLoopBackOff":
        return problem("CrashLoop", f"The agent keeps crashing ({detail}); it was started {pod.restarts} times again.")
    if reason in _CONFIG:
        return problem("PodConfiguration", f"The container cannot be made: {detail}.")
    if reason in {"Unschedulable", "SchedulerError"}:
        return problem("Unschedulable", f"No node takes the pod: {detail}.")
    if reason == "Evicted":
        return Verdict(PENDING, "Evicted", f"The pod was evicted ({detail}); a new one follows.")
    return problem("PodFailed", f"The agent ended: {reason}, {detail}." if detail else f"The agent ended: {reason}.")


def _failure_verdict(failure: str) -> Verdict:
    if "exceeded quota" in failure:
        return problem("QuotaExceeded", f"The quota is exceeded: {failure}")
    if "violates PodSecurity" in failure:
        return problem("PodSecurity", f"The namespace's pod security does not allow the pod: {failure}")
    return problem("PodRefused", f"The cluster refuses the pod: {failure}")


def status_of(
    tenant: KubeObject, seen: Observed, found: Findings, now: str, *, only: frozenset[str] | None = None
) -> dict[str, Any]:
    """The whole status. `lastReconciled` is `now` only if anything else has changed.

    Args:
        only: the fields that the cluster keeps, if not all.
    """
    before = tenant.get("status") or {}
    said = verdict(tenant, seen, found)
    generation = int(tenant["metadata"].get("generation") or 0)
    running = [pod for pod in seen.pods.values() if not pod.is_ending]
    newest = max(running, key=lambda pod: (pod.created, pod.name), default=None)
    events = told_events(tenant)
    for event in seen.events:
        events = remember(events, event)
    status: dict[str, Any] = {
        "phase": said.phase,
        "observedGeneration": generation,
        "message": said.message[:MESSAGE_MAX],
        "podName": newest.name if newest else "",
        "ingressHost": found.host,
        "namespace": found.namespace,
        "effectivePolicy": found.policy,
        "objects": objects_of(seen, found),
        "events": [_told(event) for event in events],
        "conditions": _conditions(before, generation, now, said, found),
    }
    for key in ("message", "podName", "ingressHost", "namespace"):
        if not status[key]:
            del status[key]
    kept = {key: value for key, value in status.items() if only is None or key in only}
    turn = turn_of(tenant, kept, now)
    if turn is not None and "events" in kept:
        others = [event for event in events if (event.reason, event.kind) != (turn.reason, turn.kind)]
        kept["events"] = [_told(event) for event in remember(others, turn)]
    return settled(kept, before, now, only=only)


def settled(
    status: dict[str, Any], before: dict[str, Any], now: str, *, only: frozenset[str] | None = None
) -> dict[str, Any]:
    """`status` with the time of its last change, where the cluster keeps that."""
    if only is not None and "lastReconciled" not in only:
        return status
    last = before.get("lastReconciled")
    unchanged = {key: value for key, value in before.items() if key != "lastReconciled"} == status
    return {**status, "lastReconciled": last if unchanged and last else now}


def turn_of(tenant: KubeObject, status: dict[str, Any], now: str) -> EventView | None:
    """What people are to be told when a tenant gets this status; None when it is no turn for better or worse."""
    phase, reason = status.get("phase"), _ready_reason(status)
    before = tenant.get("status") or {}
    if (phase, reason) == (before.get("phase"), _ready_reason(before)):
        return None
    if phase == ERROR:
        return about(tenant, WARNING, reason or ERROR, str(status.get("message") or ""), now)
    if phase == RUNNING:
        return about(tenant, NORMAL, RUNNING, "The agent is ready.", now)
    if phase == SUSPENDED:
        return about(tenant, NORMAL, SUSPENDED, "The agent has stopped; its data stays.", now)
    return None


def _ready_reason(status: dict[str, Any]) -> str:
    """The reason of the condition Ready."""
    return next((str(each.get("reason")) for each in status.get("conditions") or () if each["type"] == READY), "")


def about(tenant: KubeObject, kind: str, reason: str, message: str, now: str) -> EventView:
    """Something to be told about a tenant."""
    return EventView(kind, reason, TENANTS.kind, tenant["metadata"]["name"], message, now)


def _told(e: EventView) -> dict[str, str]:
    return {"type": e.type, "reason": e.reason, "object": f"{e.kind}/{e.name}", "message": e.message, "lastSeen": e.at}


def objects_of(seen: Observed, found: Findings) -> list[dict[str, Any]]:
    """Each of the tenant's objects with its state, in the order of applying, pods last."""
    out: list[dict[str, Any]] = []
    for resource, namespace, name in found.children:
        child = seen.children.get((resource, namespace, name))
        out.append({"kind": resource.kind, "name": name, "state": _state(resource, seen) if child else "Missing"})
    for pod in sorted(seen.pods.values(), key=lambda each: (each.created, each.name)):
        state = "Ending" if pod.is_ending else pod.reason or ("Ready" if pod.is_ready else pod.phase)
        out.append({"kind": "Pod", "name": pod.name, "state": state} | ({"message": pod.message} if pod.reason else {}))
    return out


def _state(resource: Resource, seen: Observed) -> str:
    if resource is VOLUME_CLAIMS:
        return seen.claim_phase or "Pending"
    if resource is DEPLOYMENTS:
        workload = seen.workload
        if workload is None or not workload.is_current:
            return "Progressing"
        if workload.available:
            return "Available"
        return "Progressing" if workload.replicas else "Scaled to zero"
    return "Present"


def _conditions(
    before: dict[str, Any], generation: int, now: str, said: Verdict, found: Findings
) -> list[dict[str, Any]]:
    applied = found.problem is None
    enforced = not found.shortfalls
    fresh = [
        (READY, said.phase == RUNNING, said.reason, said.message),
        (
            APPLIED,
            applied,
            "Applied" if applied or found.problem is None else found.problem.reason,
            "" if found.problem is None else found.problem.message,
        ),
        (ENFORCED, enforced, "Enforced" if enforced else "DomainRules", " ".join(found.shortfalls)),
    ]
    if found.claimant:
        # There only while it is so: nearly every host is exclusive.
        fresh.append(
            (EXCLUSIVE, False, "HostShared", f"Ingress {found.claimant} claims the host {found.host} as well.")
        )
    known = {condition["type"]: condition for condition in before.get("conditions") or ()}
    return [_condition(known.get(each[0]), generation, now, *each) for each in fresh]


def _condition(
    before: dict[str, Any] | None, generation: int, now: str, kind: str, holds: bool, reason: str, message: str
) -> dict[str, Any]:
    state = "True" if holds else "False"
    since = before.get("lastTransitionTime") if before and before.get("status") == state else None
    return {
        "type": kind,
        "status": state,
        "observedGeneration": generation,
        "lastTransitionTime": since or now,
        "reason": reason,
        "message": message[:MESSAGE_MAX],
    }


_DELETING = "Deleting:"


def is_deletion_message(message: object) -> bool:
    return str(message or "").startswith(_DELETING)


def deletion_message(left: Iterable[str]) -> str:
    """How far a deletion is."""
    names = sorted(left)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{_DELETING} {len(names)} object{'s' * (len(names) != 1)} left ({shown})."
