"""Whether the cluster's definitions of our kinds are those that this version of the operator was made for.

A definition of another version is no reason to stop: what can be done is done, no status is written that the cluster
would refuse, and log and metrics say what is missing. Once it is mended everything is looked at again. A resource of
whose spec something is cut off is left alone, though: what it says is not what was meant, and writing anything to it
would make the loss final.
"""

import logging
import threading
from collections.abc import Callable

from cluster import crds
from cluster.resources import KubeObject, Resource
from workloads import metrics

log = logging.getLogger(__name__)


class Definitions:
    """Our definitions as the cluster has them, by name. Nothing is known of one before it has been listed.

    Args:
        on_change: called when one has become better or worse.

    Attributes:
        changed: set once specs may be other than they were read: nothing is written any more, and all is read anew.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.wanted: dict[str, KubeObject] = {each["metadata"]["name"]: each for each in crds.definitions()}
        self._on_change = on_change
        self.changed = threading.Event()
        self._live: dict[str, KubeObject] = {}
        self._standings: dict[str, crds.Standing] = {}

    def seen(self, live: KubeObject) -> None:
        name = live["metadata"]["name"]
        self._live[name] = live
        self.judge(name)

    def gone(self, namespace: str, name: str, uid: str) -> None:
        del namespace, uid
        self._live.pop(name, None)
        self.judge(name)

    def judge(self, name: str) -> None:
        """Compare one with ours, as it is now."""
        standing = crds.standing(self.wanted[name], self._live.get(name))
        before = self._standings.get(name)
        self._standings[name] = standing
        if standing == before:
            return
        metrics.definition_outdated.labels(name).set(bool(standing.problem))
        if standing.problem:
            log.error("%s", standing.problem)
        elif before is not None:
            log.info("the cluster's definition of %s is as it should be again", name)
        if before is None:
            return
        if before.spec_fields != standing.spec_fields:
            # What is known may lack fields, or have some that a write would now cut off.
            self.changed.set()
            return
        self._on_change()

    def status_fields(self, resource: Resource) -> frozenset[str] | None:
        """The fields of a status that can be written; None for all."""
        return self._standing(resource).status_fields

    def cut_off(self, resource: Resource, obj: KubeObject) -> str:
        """Which fields of its spec an object has and we cannot see, in a sentence; empty when none."""
        fields = crds.cut_fields(obj, self._standing(resource).spec_fields)
        if not fields:
            return ""
        names = ", ".join(f"spec.{field}" for field in fields)
        what = f"{resource.kind} {obj['metadata']['name']}"
        return f"The cluster's definition of {resource.name} cuts off {names} of {what}. {crds.WHAT_TO_DO}"

    def _standing(self, resource: Resource) -> crds.Standing:
        return self._standings.get(resource.name, crds.Standing())
