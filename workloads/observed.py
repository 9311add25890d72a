"""What is known of one tenant: its resource and what of its objects matters, small enough for a fleet in memory."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from cluster.resources import KubeObject, Resource

ChildKey = tuple[Resource, str, str]
EVENTS_KEPT = 8


@dataclass(slots=True)
class Child:
    """One object of a tenant.

    Attributes:
        version: its resourceVersion.
        fits: hash of the manifest that it is known to be like; empty when it is like none.
    """

    uid: str
    version: str
    fits: bytes = b""


@dataclass(slots=True)
class Workload:
    """What the Deployment says of itself; of an older generation it says nothing about the present one."""

    is_current: bool
    replicas: int
    available: int
    failure: str
    is_stalled: bool


@dataclass(slots=True, frozen=True)
class PodView:
    """What matters of a pod. `reason` is empty while nothing is wrong."""

    name: str
    uid: str
    created: str
    is_ready: bool
    is_ending: bool
    phase: str
    reason: str
    message: str
    restarts: int


@dataclass(slots=True, frozen=True)
class EventView:
    """One event of the cluster about one of the tenant's objects."""

    type: str
    reason: str
    kind: str
    name: str
    message: str
    at: str


@dataclass(slots=True)
class Observed:
    """One tenant's custom resource, as compact JSON, and its objects.

    Attributes:
        events: those that its status does not tell yet.
        cut_off: what of its spec cannot be seen, in a sentence.
    """

    raw: bytes = b""
    cut_off: str = ""
    children: dict[ChildKey, Child] = field(default_factory=dict)
    workload: Workload | None = None
    pods: dict[str, PodView] = field(default_factory=dict)
    claim_phase: str = ""
    events: list[EventView] = field(default_factory=list)

    @property
    def tenant(self) -> KubeObject | None:
        """A copy of the custom resource, None when there is none."""
        return orjson.loads(self.raw) if self.raw else None

    @property
    def is_empty(self) -> bool:
        return not (self.raw or self.children or self.pods)


def compact(obj: KubeObject) -> bytes:
    """A custom resource without its books of ownership."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return orjson.dumps({**obj, "metadata": metadata})


def workload_of(deployment: KubeObject) -> Workload:
    status, metadata = deployment.get("status") or {}, deployment["metadata"]
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    failure = conditions.get("ReplicaFailure", {})
    progressing = conditions.get("Progressing", {})
    return Workload(
        is_current=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0),
        replicas=int(status.get("replicas") or 0),
        available=min(int(status.get("availableReplicas") or 0), int(status.get("updatedReplicas") or 0)),
        failure=str(failure.get("message") or "") if failure.get("status") == "True" else "",
        is_stalled=progressing.get("reason") == "ProgressDeadlineExceeded",
    )


def pod_of(pod: KubeObject) -> PodView:
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    reason, message, restarts = _trouble(status, conditions)
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        created=str(metadata.get("creationTimestamp") or ""),
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_ending=bool(metadata.get("deletionTimestamp")),
        phase=str(status.get("phase") or "Pending"),
        reason=reason,
        message=message,
        restarts=restarts,
    )


def _trouble(status: dict[str, Any], conditions: dict[str, Any]) -> tuple[str, str, int]:
    """Why a pod does not run: a reason of Kubernetes', its message, and how often containers were started again."""
    restarts = 0
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        restarts += int(container.get("restartCount") or 0)
        state, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated") or {}
        waiting = state.get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in {"ContainerCreating", "PodInitializing"}:
            if waiting["reason"] == "CrashLoopBackOff" and last:
                why = f"exit code {last.get('exitCode')}" + (f", {last['reason']}" if last.get("reason") else "")
                return waiting["reason"], why, restarts
            return waiting["reason"], str(waiting.get("message") or container.get("image") or ""), restarts
        ended = state.get("terminated") or {}
        if ended and ended.get("exitCode"):
            return str(ended.get("reason") or "Error"), f"exit code {ended.get('exitCode')}", restarts
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Unschedulable"), str(scheduled.get("message") or ""), restarts
    if status.get("phase") == "Failed":
        return str(status.get("reason") or "Failed"), str(status.get("message") or ""), restarts
    return "", "", restarts


def event_of(event: KubeObject) -> EventView:
    about = event.get("involvedObject") or {}
    at = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return EventView(
        type=str(event.get("type") or "Normal"),
        reason=str(event.get("reason") or "")[:128],
        kind=str(about.get("kind") or "")[:63],
        name=str(about.get("name") or "")[:253],
        message=str(event.get("message") or "")[:500],
        at=str(at or "")[:19] + "Z" if at else "",
    )


def told_events(tenant: KubeObject) -> list[EventView]:
    """The events in a tenant's status."""
    found = []
    for event in (tenant.get("status") or {}).get("events") or ():
        kind, _, name = str(event.get("object") or "").partition("/")
        said = (str(event.get(key) or "") for key in ("message", "lastSeen"))
        found.append(EventView(str(event.get("type") or "Normal"), str(event.get("reason") or ""), kind, name, *said))
    return found


def remember(events: list[EventView], event: EventView) -> list[EventView]:
    """The newest events, one for each reason and object; the same list when there is no news in it.

    What merely happened again is not news, nor is what is older than everything that is kept.
    """
    same = next((e for e in events if (e.reason, e.kind, e.name) == (event.reason, event.kind, event.name)), None)
    if same is not None and (same.message == event.message or same.at > event.at):
        return events
    kept = sorted([*(each for each in events if each is not same), event], key=lambda each: each.at)[-EVENTS_KEPT:]
    return kept if any(each is event for each in kept) else events
