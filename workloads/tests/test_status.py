"""What a tenant's status says about what is seen."""

from typing import Any

import pytest

from workloads.observed import Observed, PodView, event_of, pod_of, remember, workload_of
from workloads.status import Findings, problem, status_of, verdict
from workloads.tests.builders import tenant

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"


def deployment(*, generation: int = 1, observed: int = 1, conditions: Any = (), **status: Any) -> Any:
    return workload_of(
        {
            "metadata": {"generation": generation},
            "status": {"observedGeneration": observed, "conditions": list(conditions), **status},
        }
    )


UP = deployment(replicas=1, updatedReplicas=1, availableReplicas=1)
STARTING = deployment(replicas=1, updatedReplicas=1)


def pod(*, ending: bool = False, **status: Any) -> PodView:
    metadata: dict[str, Any] = {"name": "openclaw-anna-1", "uid": "u", "creationTimestamp": NOW}
    if ending:
        metadata["deletionTimestamp"] = NOW
    return pod_of({"metadata": metadata, "status": {"phase": "Pending", **status}})


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "openclaw", "image": "claw:1", "restartCount": 4, **state}]}


def seen(workload: Any = None, *pods: PodView) -> Observed:
    return Observed(raw=b"{}", workload=workload, pods={each.name: each for each in pods})


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return container(state={"waiting": {"reason": reason, "message": message}}, **more)


KILLED: Any = {"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}


@pytest.mark.parametrize(
    ("workload", "pods", "phase", "says"),
    [
        (None, [], "Pending", "not taken up"),
        (deployment(generation=2, availableReplicas=1, updatedReplicas=1), [], "Pending", "not taken up"),
        (STARTING, [], "Pending", "starting"),
        (STARTING, [pod()], "Pending", "starting"),
        (UP, [], "Running", ""),
        (
            STARTING,
            [pod(**waiting("ImagePullBackOff", 'Back-off pulling image "claw:1"'))],
            "Error",
            "cannot be pulled",
        ),
        (STARTING, [pod(**waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 3}}))], "Error", "code 3"),
        (STARTING, [pod(**waiting("CrashLoopBackOff", **KILLED))], "Error", "OOMKilled"),
        (STARTING, [pod(**container(state={"terminated": {"exitCode": 1, "reason": "OOMKilled"}}))], "Error", "memory"),
        (STARTING, [pod(**waiting("CreateContainerConfigError", "no secret"))], "Error", "cannot be made: no secret"),
        (STARTING, [pod(**waiting("ContainerCreating"))], "Pending", "starting"),
        (
            STARTING,
            [
                pod(
                    conditions=[
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"}
                    ]
                )
            ],
            "Error",
            "No node takes the pod: full",
        ),
        (
            deployment(conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}]),
            [],
            "Error",
            "quota is exceeded",
        ),
        (
            deployment(replicas=1, conditions=[{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]),
            [],
            "Error",
            "did not become ready",
        ),
    ],
)
def test_phases_and_why(workload: Any, pods: list[PodView], phase: str, says: str) -> None:
    found = verdict(tenant(), seen(workload, *pods), Findings())
    assert found.phase == phase
    assert says in found.message


def test_suspended_is_only_what_has_stopped() -> None:
    stopping = tenant(suspended=True)
    assert verdict(stopping, seen(UP, pod(ending=True)), Findings()).phase == "Pending"
    assert verdict(stopping, seen(deployment()), Findings()).phase == "Suspended"


def test_an_ending_pod_does_not_speak_for_the_new_one() -> None:
    broken = pod(ending=True, **waiting("ImagePullBackOff"))
    assert verdict(tenant(), seen(UP, broken), Findings()).phase == "Running"


def test_a_status_says_when_it_last_changed_and_only_then() -> None:
    obj = tenant()
    first = status_of(obj, seen(UP), Findings(host="h", namespace="agents"), NOW)
    assert (first["phase"], first["lastReconciled"], first["observedGeneration"]) == ("Running", NOW, 1)
    again = status_of({**obj, "status": first}, seen(UP), Findings(host="h", namespace="agents"), LATER)
    assert again == first
    failed = Findings(host="h", namespace="agents", problem=problem("Refused", "no"))
    other = status_of({**obj, "status": first}, seen(UP), failed, LATER)
    assert (other["phase"], other["message"], other["lastReconciled"]) == ("Error", "no", LATER)
    conditions = {each["type"]: each for each in other["conditions"]}
    assert (conditions["Ready"]["reason"], conditions["Ready"]["lastTransitionTime"]) == ("Refused", LATER)
    assert (conditions["Applied"]["status"], conditions["Applied"]["message"]) == ("False", "no")
    assert conditions["PolicyEnforced"]["lastTransitionTime"] == NOW, "what has not changed keeps its time"


def test_what_happens_again_is_no_news() -> None:
    def event(reason: str, message: str, at: str) -> Any:
        return event_of(
            {
                "metadata": {},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": at,
                "involvedObject": {"kind": "Pod", "name": "openclaw-anna-1"},
            }
        )

    events = remember([], event("Failed", "no image", NOW))
    assert remember(events, event("Failed", "no image", LATER)) is events
    assert [each.message for each in remember(events, event("Failed", "other", LATER))] == ["other"]
    for number in range(20):
        events = remember(events, event(f"R{number}", "x", f"2026-01-02T00:00:{number:02}Z"))
    assert len(events) == 8
    assert events[-1].reason == "R19"
