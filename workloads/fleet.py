"""Everything the operator knows, kept up to date by followers; says which tenants have to be looked at.

Handlers run in the followers' threads and only note what is so; all work is done by `workloads.reconcile`.
"""

import sys
import threading
from collections.abc import Iterable
from dataclasses import replace

from cluster.resources import DEPLOYMENTS, VOLUME_CLAIMS, KubeObject, Resource
from workloads import naming
from workloads.manifests import Defaults, Placement, UnfitError, Wanted, placement, wanted_objects
from workloads.matching import is_as_wanted
from workloads.network import Egress, SelectionError, effective_policy, egress_of
from workloads.observed import Child, ChildKey, Observed, compact, event_of, pod_of, remember, workload_of
from workloads.queue import Priority, WorkQueue

POLICY_WORK = "policy:"
KEPT = b"kept"


def is_newer(version: str, known: str) -> bool:
    """Whether a resourceVersion is later than a known one; what are no numbers can only be told apart.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    if version.isdigit() and known.isdigit():
        return int(version) > int(known)
    return version != known


class Fleet:
    """Tenants, their objects, policies and cluster tenants of one control plane. Safe to use from any thread."""

    def __init__(self, *, home: str, defaults: Defaults, default_policy: str, queue: WorkQueue) -> None:
        self.home = home
        self.defaults = defaults
        self.default_policy = default_policy
        self.queue = queue
        self.lock = threading.RLock()
        self.has_cilium = False
        # Nothing is worked on, and nothing is queued, before everything has been listed once.
        self.is_complete = False
        self.tenants: dict[str, Observed] = {}
        self.policies: dict[str, KubeObject] = {}
        self.cluster_tenants: dict[str, KubeObject] = {}

    # -- what should be -----------------------------------------------------------------------------------------------

    def placement_of(self, tenant: KubeObject) -> Placement:
        """Raises UnfitError."""
        name = tenant["spec"].get("clusterTenantRef")
        with self.lock:
            return placement(tenant, self.cluster_tenants.get(name) if name else None, self.defaults)

    def policy_of(self, tenant: KubeObject) -> tuple[Egress | None, str]:
        """What the tenant's policy lets out, and why it is that policy. Raises SelectionError."""
        with self.lock:
            policy, why = effective_policy(tenant, self.policies, self.default_policy)
        return (egress_of(policy, has_cilium=self.has_cilium) if policy is not None else None), why

    def _fit(self, tenant: KubeObject, resource: Resource, live: KubeObject) -> bytes:
        """The hash of the manifest that a live object is like, empty when it is not as it should be."""
        try:
            egress, _ = self.policy_of(tenant)
            wanted: Wanted = wanted_objects(
                tenant, self.placement_of(tenant), egress, self.defaults, only=frozenset({resource})
            )
        except (UnfitError, SelectionError):
            return b""
        manifest = wanted.manifests.get(resource)
        if manifest is None or manifest["metadata"]["name"] != live["metadata"]["name"]:
            return b""
        return wanted.hashes[resource] if is_as_wanted(resource, manifest, live) else b""

    # -- what is ------------------------------------------------------------------------------------------------------

    def _enqueue(self, name: str, priority: Priority) -> None:
        if self.is_complete:
            self.queue.add(name, priority)

    def tenant_changed(self, tenant: KubeObject) -> None:
        metadata = tenant["metadata"]
        name = metadata["name"]
        with self.lock:
            seen = self.tenants.setdefault(name, Observed())
            before = seen.tenant
            if before is not None and not is_newer(metadata["resourceVersion"], before["metadata"]["resourceVersion"]):
                return
            seen.raw = compact(tenant)
            urgent = metadata.get("deletionTimestamp") or bool(tenant["spec"].get("suspended")) != bool(
                before is not None and before["spec"].get("suspended")
            )
            self._enqueue(name, Priority.URGENT if urgent else Priority.CHANGE)

    def tenant_gone(self, namespace: str, name: str, uid: str) -> None:
        del namespace
        with self.lock:
            seen = self.tenants.get(name)
            if seen is None:
                return
            before = seen.tenant
            if before is not None and before["metadata"]["uid"] == uid:
                seen.raw = b""
                seen.events = []
                self._enqueue(name, Priority.URGENT)

    def tenant_written(self, tenant: KubeObject) -> None:
        """Note the answer to a write of ours, so that its event is no news."""
        metadata = tenant["metadata"]
        with self.lock:
            seen = self.tenants.get(metadata["name"])
            before = seen.tenant if seen is not None else None
            if seen is None or before is None or before["metadata"]["uid"] != metadata["uid"]:
                return
            if not is_newer(metadata["resourceVersion"], before["metadata"]["resourceVersion"]):
                return
            if metadata.get("generation") != before["metadata"].get("generation"):
                # Somebody else's change came between; its event brings it here.
                return
            seen.raw = compact(tenant)

    def child_changed(self, resource: Resource, live: KubeObject) -> None:
        metadata = live["metadata"]
        name = (metadata.get("labels") or {}).get(naming.TENANT_LABEL)
        if not name:
            return
        key = (resource, sys.intern(metadata["namespace"]), metadata["name"])
        with self.lock:
            seen = self.tenants.setdefault(name, Observed())
            known = seen.children.get(key)
            same = known if known is not None and known.uid == metadata["uid"] else None
            if same is not None and not is_newer(metadata["resourceVersion"], same.version):
                return
            fits = self._fit_of(seen, resource, live)
            seen.children[key] = Child(metadata["uid"], metadata["resourceVersion"], fits)
            is_news = self._note_state(seen, resource, live)
            if not fits or is_news:
                self._enqueue(name, Priority.CHANGE)

    def _fit_of(self, seen: Observed, resource: Resource, live: KubeObject) -> bytes:
        if resource in naming.DATA:
            # Never changed once it is made, whatever it looks like.
            return KEPT
        tenant = seen.tenant
        return self._fit(tenant, resource, live) if tenant is not None else b""

    @staticmethod
    def _note_state(seen: Observed, resource: Resource, live: KubeObject) -> bool:
        """Keep what the status needs of an object; returns whether it is news."""
        if resource is DEPLOYMENTS:
            before, seen.workload = seen.workload, workload_of(live)
            return before != seen.workload
        if resource is VOLUME_CLAIMS:
            phase, seen.claim_phase = seen.claim_phase, str((live.get("status") or {}).get("phase") or "")
            return phase != seen.claim_phase
        return False

    def child_written(self, tenant: str, resource: Resource, live: KubeObject, fits: bytes) -> None:
        """Note the answer to a write of ours."""
        metadata = live["metadata"]
        key = (resource, sys.intern(metadata["namespace"]), metadata["name"])
        with self.lock:
            seen = self.tenants.setdefault(tenant, Observed())
            known = seen.children.get(key)
            is_late = (
                known is not None
                and known.uid == metadata["uid"]
                and is_newer(known.version, metadata["resourceVersion"])
            )
            if is_late:
                return
            seen.children[key] = Child(metadata["uid"], metadata["resourceVersion"], fits)
            self._note_state(seen, resource, live)

    def child_gone(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        key = (resource, namespace, name)
        with self.lock:
            for tenant in self._owners(name):
                seen = self.tenants[tenant]
                child = seen.children.get(key)
                if child is not None and child.uid == uid:
                    self._forget(tenant, key)
                    self._enqueue(tenant, Priority.CHANGE)
                    return

    def forget_child(self, tenant: str, key: ChildKey) -> None:
        """An object turned out to be gone."""
        with self.lock:
            if tenant in self.tenants:
                self._forget(tenant, key)

    def _forget(self, tenant: str, key: ChildKey) -> None:
        seen = self.tenants[tenant]
        seen.children.pop(key, None)
        if key[0] is DEPLOYMENTS:
            seen.workload = None
        elif key[0] is VOLUME_CLAIMS:
            seen.claim_phase = ""
        if seen.is_empty:
            del self.tenants[tenant]

    def pod_changed(self, pod: KubeObject) -> None:
        name = (pod["metadata"].get("labels") or {}).get(naming.TENANT_LABEL)
        if not name:
            return
        view = pod_of(pod)
        with self.lock:
            seen = self.tenants.setdefault(name, Observed())
            if seen.pods.get(view.name) != view:
                seen.pods[view.name] = view
                self._enqueue(name, Priority.CHANGE)

    def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        del namespace
        with self.lock:
            for tenant in self._owners(name):
                seen = self.tenants[tenant]
                view = seen.pods.get(name)
                if view is not None and view.uid == uid:
                    del seen.pods[name]
                    if seen.is_empty:
                        del self.tenants[tenant]
                    self._enqueue(tenant, Priority.CHANGE)
                    return

    def event_seen(self, event: KubeObject) -> None:
        about = event.get("involvedObject") or {}
        name, namespace = str(about.get("name") or ""), event["metadata"].get("namespace", "")
        if not name.startswith("openclaw-"):
            return
        with self.lock:
            for tenant in self._owners(name):
                seen = self.tenants[tenant]
                if seen.raw and any(key[1] == namespace for key in seen.children):
                    events = remember(seen.events, event_of(event))
                    if events is not seen.events:
                        seen.events = events
                        self._enqueue(tenant, Priority.CHANGE)
                    return

    def _owners(self, object_name: str) -> Iterable[str]:
        """Known tenants that an object of this name may belong to, the longest name first."""
        rest = object_name.removeprefix("openclaw-")
        while rest:
            if rest in self.tenants:
                yield rest
            rest = rest.rpartition("-")[0]

    # -- what concerns many -------------------------------------------------------------------------------------------

    def policy_changed(self, policy: KubeObject) -> None:
        metadata = policy["metadata"]
        name = metadata["name"]
        with self.lock:
            before = self.policies.get(name)
            if before is not None and not is_newer(metadata["resourceVersion"], before["metadata"]["resourceVersion"]):
                return
            self.policies[name] = policy
            if before is None or before["metadata"].get("generation") != metadata.get("generation"):
                self._look_at_all(name)
            self._enqueue(POLICY_WORK + name, Priority.CHANGE)

    def policy_gone(self, namespace: str, name: str, uid: str) -> None:
        del namespace
        with self.lock:
            before = self.policies.get(name)
            if before is not None and before["metadata"]["uid"] == uid:
                del self.policies[name]
                self._look_at_all(name)

    def _look_at_all(self, policy: str) -> None:
        """Everybody but those that name another policy."""
        for name, seen in self.tenants.items():
            tenant = seen.tenant if self.is_complete else None
            if tenant is not None and tenant["spec"].get("policyRef") in (None, "", policy):
                self._enqueue(name, Priority.CHANGE)

    def cluster_tenant_changed(self, cluster_tenant: KubeObject) -> None:
        name = cluster_tenant["metadata"]["name"]
        with self.lock:
            before = self.cluster_tenants.get(name)
            self.cluster_tenants[name] = cluster_tenant
            if before is None or _matters(before) != _matters(cluster_tenant):
                self._look_at_those_in(name)

    def cluster_tenant_gone(self, namespace: str, name: str, uid: str) -> None:
        del namespace
        with self.lock:
            before = self.cluster_tenants.get(name)
            if before is not None and before["metadata"]["uid"] == uid:
                del self.cluster_tenants[name]
                self._look_at_those_in(name)

    def _look_at_those_in(self, cluster_tenant: str) -> None:
        for name, seen in self.tenants.items():
            tenant = seen.tenant if self.is_complete else None
            if tenant is not None and tenant["spec"].get("clusterTenantRef") == cluster_tenant:
                self._enqueue(name, Priority.CHANGE)

    def cilium_found(self, *, is_there: bool) -> None:
        """Whether domains can be told apart from now on."""
        with self.lock:
            if self.has_cilium == is_there:
                return
            self.has_cilium = is_there
            self.look_at_everything()

    def look_at_everything(self) -> None:
        """Have every tenant and every policy reconciled."""
        with self.lock:
            for name in self.tenants:
                self._enqueue(name, Priority.ROUTINE)
            for name in self.policies:
                self._enqueue(POLICY_WORK + name, Priority.ROUTINE)

    def snapshot(self, name: str) -> Observed | None:
        """What is known of one tenant at this moment; the collections are copies."""
        with self.lock:
            seen = self.tenants.get(name)
            if seen is None:
                return None
            return replace(seen, children=dict(seen.children), pods=dict(seen.pods), events=list(seen.events))


def _matters(cluster_tenant: KubeObject) -> tuple[object, object, object]:
    status = cluster_tenant.get("status") or {}
    phase = (status.get("phase"), status.get("boundNamespace"), status.get("message"))
    return cluster_tenant.get("spec"), phase, cluster_tenant["metadata"].get("deletionTimestamp")
