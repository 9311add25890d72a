"""Everything the operator knows, kept up to date by followers; says which tenants have to be looked at.

Handlers run in the followers' threads and only note what is so; all work is done by `workloads.reconcile`.
"""

import sys
import threading
from collections.abc import Iterable
from dataclasses import replace

from cluster.resources import (
    ACCESS_POLICIES,
    CLUSTER_TENANTS,
    DEPLOYMENTS,
    INGRESSES,
    TENANTS,
    VOLUME_CLAIMS,
    KubeObject,
    Resource,
)
from workloads import naming
from workloads.definitions import Definitions
from workloads.hosts import Hosts, claim_of
from workloads.manifests import Defaults, Placement, UnfitError, Wanted, placement, wanted_objects
from workloads.matching import is_as_wanted
from workloads.network import Egress, SelectionError, effective_policy, egress_of
from workloads.observed import (
    Child,
    ChildKey,
    EventView,
    Observed,
    compact,
    event_of,
    pod_of,
    remember,
    told_events,
    workload_of,
)
from workloads.queue import Priority, WorkQueue

POLICY_WORK = "policy:"
KEPT = b"kept"
# A start brings several Normal events at once; one status tells them all.
EVENT_SECONDS = 2.0


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
        self.definitions = Definitions(self.look_at_everything)
        self.hosts = Hosts()
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
            cluster_tenant = self.cluster_tenants.get(name) if name else None
        if cluster_tenant is not None:
            self._require_whole(CLUSTER_TENANTS, cluster_tenant)
        return placement(tenant, cluster_tenant, self.defaults)

    def _require_whole(self, resource: Resource, obj: KubeObject) -> None:
        cut_off = self.definitions.cut_off(resource, obj)
        if cut_off:
            raise UnfitError("DefinitionOutdated", cut_off)

    def policy_of(self, tenant: KubeObject) -> tuple[Egress | None, str]:
        """What the tenant's policy lets out, and why it is that policy. Raises SelectionError, UnfitError."""
        with self.lock:
            policy, why = effective_policy(tenant, self.policies, self.default_policy)
        if policy is not None:
            self._require_whole(ACCESS_POLICIES, policy)
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
            self._keep(seen, tenant)
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
            self._keep(seen, tenant)

    def _keep(self, seen: Observed, tenant: KubeObject) -> None:
        seen.raw = compact(tenant)
        seen.cut_off = self.definitions.cut_off(TENANTS, tenant)
        if seen.events:
            told = told_events(tenant)
            seen.events = [event for event in seen.events if remember(told, event) is not told]

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

    def ingress_changed(self, live: KubeObject) -> None:
        """Any Ingress of the cluster: a tenant's, or one whose hosts are not to be had."""
        metadata = live["metadata"]
        key = (sys.intern(metadata["namespace"]), metadata["name"])
        is_ours = naming.is_of_tenant(live, self.home)
        with self.lock:
            self._look_at_hosts(self.hosts.put(key, None if is_ours else claim_of(live)))
            if is_ours:
                self.child_changed(INGRESSES, live)
            else:
                # Its labels may have been taken away.
                self.child_gone(INGRESSES, *key, metadata["uid"])

    def ingress_gone(self, namespace: str, name: str, uid: str) -> None:
        with self.lock:
            self._look_at_hosts(self.hosts.put((namespace, name), None))
            self.child_gone(INGRESSES, namespace, name, uid)

    def _look_at_hosts(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            # A tenant's host begins with its name.
            name = host.partition(".")[0]
            if name in self.tenants:
                self._enqueue(name, Priority.CHANGE)

    def claimant(self, host: str, namespace: str, name: str) -> str:
        """The Ingress of somebody else that claims a host; empty when none does."""
        with self.lock:
            return self.hosts.claimant(host, self.defaults.ingress_class, (namespace, name))

    def event_seen(self, event: KubeObject) -> None:
        """An event about anything in the cluster; what concerns no object of a tenant is passed over."""
        about = event.get("involvedObject") or {}
        name, namespace = str(about.get("name") or ""), event["metadata"].get("namespace", "")
        # What is said about a tenant itself is our own word.
        if not name.startswith("openclaw-") or about.get("kind") == TENANTS.kind:
            return
        with self.lock:
            for owner in self._owners(name):
                seen = self.tenants[owner]
                tenant = seen.tenant
                if tenant is not None and any(key[1] == namespace for key in seen.children):
                    self._note_event(owner, seen, tenant, event_of(event))
                    return

    def _note_event(self, name: str, seen: Observed, tenant: KubeObject, event: EventView) -> None:
        known = told_events(tenant)
        for each in seen.events:
            known = remember(known, each)
        if remember(known, event) is known:
            return
        seen.events = remember(seen.events, event)
        if event.type != "Normal":
            self._enqueue(name, Priority.CHANGE)
        elif self.is_complete:
            self.queue.add_after(name, EVENT_SECONDS, Priority.ROUTINE)

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
