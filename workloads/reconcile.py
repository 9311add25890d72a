"""Bringing one tenant's objects to what its custom resource says.

Level-triggered: a run looks at what is known now, never at what woke it, so it may run twice, late or after a crash at
any point. Whatever already fits is left alone, so that a run over an unchanged tenant writes nothing. Each object is
applied server-side: what others have added to it stays, and what they have changed of ours comes back.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster.client import cluster_client
from cluster.errors import KubeConflictError, KubeError, KubeRefusedError, KubeTransientError
from cluster.resources import (
    ACCESS_POLICIES,
    DEPLOYMENTS,
    OPERATOR,
    SECRETS,
    TENANTS,
    VOLUME_CLAIMS,
    KubeObject,
    Resource,
)
from workloads import metrics, naming
from workloads.fleet import KEPT, POLICY_WORK, Fleet
from workloads.manifests import UnfitError, Wanted, key_data, wanted_objects
from workloads.network import Egress, SelectionError, egress_of, shortfalls
from workloads.observed import ChildKey, Observed
from workloads.queue import Priority
from workloads.status import Findings, deletion_message, problem, settled, status_of

log = logging.getLogger(__name__)

# What the cluster refuses is tried again now and then: quotas are raised, and namespaces come back.
REFUSED_SECONDS = 30.0


class LeadershipLostError(Exception):
    """Another replica may be at work; nothing may be written any more."""


class StillThereError(Exception):
    """Objects of a tenant that is being deleted are not gone yet."""


class Reconciler:
    """Works on tenants and policies by name.

    Args:
        may_write: asked before every write; False once another replica may lead.
        deletion_limit: how long a deletion waits for objects to go before it lets go of the tenant all the same.
    """

    def __init__(self, fleet: Fleet, *, may_write: Callable[[], bool], deletion_limit: timedelta) -> None:
        self.fleet = fleet
        self._may_write = may_write
        self._deletion_limit = deletion_limit

    def work(self) -> None:
        """Take names from the queue until it is stopped."""
        queue = self.fleet.queue
        while (name := queue.get()) is not None:
            began = time.monotonic()
            outcome = "ok"
            try:
                self.look_at(name)
            except LeadershipLostError:
                return
            except StillThereError:
                outcome = "waiting"
                queue.retry(name, Priority.URGENT)
            except KubeError as exc:
                outcome = type(exc).__name__.removeprefix("Kube").removesuffix("Error").lower()
                delay = queue.retry(name, least=REFUSED_SECONDS if isinstance(exc, KubeRefusedError) else 0.0)
                log.warning("%s could not be reconciled, again in %.1f s: %s", name, delay, exc.message)
            except Exception:  # one tenant's surprise must not stop the others
                outcome = "crashed"
                log.exception("reconciling %s failed", name)
                queue.retry(name, least=REFUSED_SECONDS)
            else:
                queue.succeeded(name)
            finally:
                queue.done(name)
                metrics.observe(outcome, time.monotonic() - began)

    def look_at(self, name: str) -> None:
        """Reconcile a tenant or (`policy:NAME`) a policy.

        Raises:
            KubeError: the cluster did not take a write; to be tried again.
            StillThereError, LeadershipLostError.
        """
        if name.startswith(POLICY_WORK):
            self._policy(name.removeprefix(POLICY_WORK))
            return
        seen = self.fleet.snapshot(name)
        if seen is None:
            return
        tenant = seen.tenant
        if tenant is None:
            self._remove_orphans(name, seen)
        elif tenant["metadata"].get("deletionTimestamp"):
            self._finish_deletion(tenant, seen)
        else:
            self._bring_up(tenant, seen)

    # -- a tenant that should be --------------------------------------------------------------------------------------

    def _bring_up(self, tenant: KubeObject, seen: Observed) -> None:
        name = tenant["metadata"]["name"]
        if naming.FINALIZER not in (tenant["metadata"].get("finalizers") or ()):
            tenant = self._put_finalizer(tenant)
        found = Findings(policy={"source": "none"})
        refused: KubeError | None = None
        try:
            wanted = self._wanted(tenant, found)
            self._apply(tenant, seen, wanted, found)
        except (UnfitError, SelectionError) as exc:
            found.problem = problem(exc.reason, exc.message)
            if tenant["spec"].get("suspended"):
                self._stop(name, seen)
        except KubeRefusedError as exc:
            found.problem = problem(_reason(exc.message), exc.message)
            refused = exc
        now_seen = self.fleet.snapshot(name)
        if now_seen is not None and now_seen.tenant is not None:
            self._write_status(tenant, now_seen, found)
        if refused is not None:
            raise refused

    def _wanted(self, tenant: KubeObject, found: Findings) -> Wanted:
        """Raises UnfitError, SelectionError."""
        where = self.fleet.placement_of(tenant)
        found.namespace = where.namespace
        egress, why = self.fleet.policy_of(tenant)
        if egress is not None:
            found.shortfalls = shortfalls(egress)
            found.policy = {"name": egress.policy, "source": why}
        wanted = wanted_objects(tenant, where, egress, self.fleet.defaults)
        found.host = wanted.host
        found.children = [_key(resource, manifest) for resource, manifest in wanted.manifests.items()]
        return wanted

    def _apply(self, tenant: KubeObject, seen: Observed, wanted: Wanted, found: Findings) -> None:
        name = tenant["metadata"]["name"]
        self._require_data(tenant, seen, wanted)
        for resource, manifest in wanted.manifests.items():
            child = seen.children.get(_key(resource, manifest))
            if child is not None and child.fits == wanted.hashes[resource]:
                continue
            if resource in naming.DATA:
                if child is None:
                    self._make_data(name, resource, manifest)
                continue
            self._apply_child(name, resource, manifest, wanted.hashes[resource], is_known=child is not None)
        keys = set(found.children)
        for key in [key for key in seen.children if key[0] not in naming.DATA and key not in keys]:
            self._delete_child(name, key, seen)

    def _require_data(self, tenant: KubeObject, seen: Observed, wanted: Wanted) -> None:
        """Refuse to go on where that would part a volume from its key, or lose track of adopted data.

        Raises:
            UnfitError: says what is missing.
        """
        key, claim = (_key(resource, wanted.manifests[resource]) for resource in (SECRETS, VOLUME_CLAIMS))
        has_key, has_claim = key in seen.children, claim in seen.children
        if has_claim and not has_key:
            raise UnfitError(
                "KeyMissing",
                f"The encryption key, Secret {key[2]}, is gone while its volume is still there. Restore the Secret from"
                " a backup, or delete the volume claim to start afresh.",
            )
        is_adopted = naming.DATA_UID in (tenant["metadata"].get("annotations") or {})
        if is_adopted and not has_claim:
            raise UnfitError("DataMissing", f"There is no retained volume claim {claim[2]} to take over.")

    def _make_data(self, name: str, resource: Resource, manifest: KubeObject) -> None:
        body = manifest | ({"data": key_data()} if resource is SECRETS else {})
        namespace = manifest["metadata"]["namespace"]
        try:
            live = self._write(cluster_client().create, resource, body, namespace=namespace, manager=OPERATOR)
        except KubeConflictError:
            found = cluster_client().get(resource, manifest["metadata"]["name"], namespace=namespace)
            if found is None or (found["metadata"].get("labels") or {}).get(naming.TENANT_LABEL) != name:
                raise
            live = found
        except KubeRefusedError as exc:
            raise _about(exc, resource, manifest) from exc
        self.fleet.child_written(name, resource, live, KEPT)

    def _apply_child(self, name: str, resource: Resource, manifest: KubeObject, fits: bytes, *, is_known: bool) -> None:
        """Apply one object. One that is new must not turn out to be somebody else's."""
        metadata = manifest["metadata"]
        try:
            _, live = self._write(
                cluster_client().apply,
                resource,
                manifest,
                force=is_known,
                namespace=metadata["namespace"],
                manager=OPERATOR,
            )
        except KubeConflictError as exc:
            if is_known or "conflict" not in exc.message.lower():
                raise
            message = f"{resource.kind} {metadata['name']} is there already and is not this tenant's: {exc.message}"
            raise KubeRefusedError(message, status=exc.status, reason=exc.reason) from exc
        except KubeRefusedError as exc:
            raise _about(exc, resource, manifest) from exc
        except KubeTransientError as exc:
            if exc.status != 404:
                raise
            raise KubeRefusedError(
                f"The namespace {metadata['namespace']} is not there, or {resource.kind} is not served.", status=404
            ) from exc
        self.fleet.child_written(name, resource, live, fits)

    def _delete_child(self, name: str, key: ChildKey, seen: Observed) -> bool:
        """Delete an object; True when it is gone already."""
        resource, namespace, object_name = key
        uid = seen.children[key].uid
        is_gone = bool(self._write(cluster_client().delete, resource, object_name, uid=uid, namespace=namespace))
        if is_gone:
            self.fleet.forget_child(name, key)
        return is_gone

    def _stop(self, name: str, seen: Observed) -> None:
        """Scale to zero without a whole manifest, for a tenant whose spec gives none."""
        if seen.workload is None or not seen.workload.replicas:
            return
        for resource, namespace, object_name in seen.children:
            if resource is DEPLOYMENTS:
                scale = [{"op": "replace", "path": "/spec/replicas", "value": 0}]
                live = self._write(
                    cluster_client().json_patch, resource, object_name, scale, namespace=namespace, manager=OPERATOR
                )
                self.fleet.child_written(name, DEPLOYMENTS, live, b"")

    def _put_finalizer(self, tenant: KubeObject) -> KubeObject:
        metadata = tenant["metadata"]
        manifest = _bare(tenant) | {
            "metadata": {"name": metadata["name"], "uid": metadata["uid"], "finalizers": [naming.FINALIZER]}
        }
        _, live = self._write(cluster_client().apply, TENANTS, manifest, force=True, manager=OPERATOR)
        self.fleet.tenant_written(live)
        return live

    def _write_status(self, tenant: KubeObject, seen: Observed, found: Findings) -> None:
        self._put_status(tenant, status_of(tenant, seen, found, _now()))

    def _put_status(self, tenant: KubeObject, status: dict[str, Any], resource: Resource = TENANTS) -> None:
        """Write a status unless it is there already. One whose object has gone is no failure."""
        if status == (tenant.get("status") or {}):
            return
        metadata = {"name": tenant["metadata"]["name"], "uid": tenant["metadata"]["uid"]}
        body = _bare(tenant) | {"metadata": metadata, "status": status}
        try:
            _, live = self._write(
                cluster_client().apply, resource, body, force=True, subresource="status", manager=OPERATOR
            )
        except (KubeConflictError, KubeTransientError) as exc:
            if isinstance(exc, KubeTransientError) and exc.status != 404:
                raise
            log.info("the status of %s is not wanted any more: %s", metadata["name"], exc.message)
            return
        if resource is TENANTS:
            self.fleet.tenant_written(live)

    # -- a tenant that goes -------------------------------------------------------------------------------------------

    def _finish_deletion(self, tenant: KubeObject, seen: Observed) -> None:
        """Remove the objects, keep the data unless it is to be purged, then let go of the tenant.

        Raises:
            StillThereError: some are still there, and the time limit has not passed.
        """
        metadata = tenant["metadata"]
        name = metadata["name"]
        if naming.FINALIZER not in (metadata.get("finalizers") or ()):
            return
        is_purged = (metadata.get("annotations") or {}).get(naming.PURGE) == "true"
        data = {naming.key_name(name, naming.data_uid(tenant)), naming.claim_name(name, naming.data_uid(tenant))}
        left: list[str] = []
        # The Deployment first: the agent stops before what it needs is taken away.
        for key in sorted(seen.children, key=lambda each: (each[0] is not DEPLOYMENTS, each[0] in naming.DATA)):
            resource, _, object_name = key
            if resource in naming.DATA:
                # A volume in use stays until its pod has ended; it is enough to have asked.
                if is_purged and object_name in data:
                    self._delete_child(name, key, seen)
                continue
            try:
                is_gone = self._delete_child(name, key, seen)
            except KubeRefusedError as exc:
                log.warning("%s %s of tenant %s cannot be deleted: %s", resource.kind, object_name, name, exc.message)
                is_gone = False
            if not is_gone:
                left.append(f"{resource.kind} {object_name}")
        if left and not self._is_overdue(tenant):
            status = {
                **(tenant.get("status") or {}),
                "message": deletion_message(left),
                "observedGeneration": int(metadata.get("generation") or 0),
            }
            self._put_status(tenant, settled(status, tenant.get("status") or {}, _now()))
            raise StillThereError
        if left:
            log.error("tenant %s is let go while %s are still there", name, ", ".join(left))
        self._take_finalizer(tenant)

    def _is_overdue(self, tenant: KubeObject) -> bool:
        asked = datetime.fromisoformat(tenant["metadata"]["deletionTimestamp"])
        return datetime.now(UTC) - asked > self._deletion_limit

    def _take_finalizer(self, tenant: KubeObject) -> None:
        finalizers: list[str] = tenant["metadata"]["finalizers"]
        index = finalizers.index(naming.FINALIZER)
        operations = [
            {"op": "test", "path": "/metadata/uid", "value": tenant["metadata"]["uid"]},
            {"op": "test", "path": f"/metadata/finalizers/{index}", "value": naming.FINALIZER},
            {"op": "remove", "path": f"/metadata/finalizers/{index}"},
        ]
        name = tenant["metadata"]["name"]
        try:
            self._write(cluster_client().json_patch, TENANTS, name, operations, manager=OPERATOR)
        except KubeConflictError as exc:
            # Gone, or its finalizers have changed; then the event of that change brings it back here.
            log.info("tenant %s has changed while it was let go: %s", name, exc.message)

    def _remove_orphans(self, name: str, seen: Observed) -> None:
        """Delete what is left of a tenant that is gone, asking the cluster first whether it really is. Data stays."""
        keys = [key for key in seen.children if key[0] not in naming.DATA]
        if not keys or cluster_client().get(TENANTS, name) is not None:
            return
        for key in keys:
            self._delete_child(name, key, seen)

    # -- policies -----------------------------------------------------------------------------------------------------

    def _policy(self, name: str) -> None:
        """Say in a policy's status what of it this cluster enforces."""
        with self.fleet.lock:
            policy = self.fleet.policies.get(name)
            has_cilium = self.fleet.has_cilium
        if policy is None or policy["metadata"].get("deletionTimestamp"):
            return
        egress: Egress = egress_of(policy, has_cilium=has_cilium)
        missing = shortfalls(egress)
        generation = int(policy["metadata"].get("generation") or 0)
        before = {c["type"]: c for c in (policy.get("status") or {}).get("conditions") or ()}.get("Enforced")
        state = "False" if missing else "True"
        since = before.get("lastTransitionTime") if before and before.get("status") == state else None
        condition = {
            "type": "Enforced",
            "status": state,
            "observedGeneration": generation,
            "lastTransitionTime": since or _now(),
            "reason": "DomainRules" if missing else "Enforced",
            "message": " ".join(missing),
        }
        status: dict[str, Any] = {"observedGeneration": generation, "conditions": [condition]}
        if missing:
            status["message"] = " ".join(missing)
        self._put_status(policy, status, ACCESS_POLICIES)

    # -- writes -------------------------------------------------------------------------------------------------------

    def _write(self, call: Callable[..., Any], resource: Resource, *args: Any, **options: Any) -> Any:
        if not self._may_write():
            raise LeadershipLostError
        answer = call(resource, *args, **options)
        metrics.count_write(resource.kind)
        return answer


def _key(resource: Resource, manifest: KubeObject) -> ChildKey:
    metadata = manifest["metadata"]
    return resource, metadata["namespace"], metadata["name"]


def _bare(obj: KubeObject) -> dict[str, Any]:
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}


def _about(exc: KubeRefusedError, resource: Resource, manifest: KubeObject) -> KubeRefusedError:
    message = f"The cluster refuses {resource.kind} {manifest['metadata']['name']}: {exc.message}"
    return KubeRefusedError(message, status=exc.status, reason=exc.reason)


def _reason(message: str) -> str:
    """A CamelCase word for what the cluster refuses."""
    if "exceeded quota" in message:
        return "QuotaExceeded"
    if "is being terminated" in message:
        return "NamespaceTerminating"
    if "immutable" in message:
        return "ImmutableField"
    if "is not this tenant's" in message:
        return "NameTaken"
    if message.startswith("The namespace "):
        return "NamespaceMissing"
    return "Refused"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
