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
    EVENTS,
    INGRESSES,
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
from workloads.observed import ChildKey, EventView, Observed
from workloads.queue import Priority
from workloads.status import (
    NORMAL,
    WARNING,
    Findings,
    about,
    deletion_message,
    is_deletion_message,
    problem,
    settled,
    status_of,
    turn_of,
)
from workloads.telling import again_patch, event_manifest

log = logging.getLogger(__name__)

# What the cluster refuses is tried again now and then: quotas are raised, and namespaces come back.
REFUSED_SECONDS = 30.0


class MayNotWriteError(Exception):
    """Another replica may be at work, or what is known is out of date; nothing may be written any more."""


class StillThereError(Exception):
    """Objects of a tenant that is being deleted are not gone yet."""


class Reconciler:
    """Works on tenants and policies by name.

    Args:
        may_write: asked before every write; once False, it stays so.
        deletion_limit: how long a deletion waits for objects to go before it lets go of the tenant all the same.
    """

    def __init__(self, fleet: Fleet, *, may_write: Callable[[], bool], deletion_limit: timedelta) -> None:
        self.fleet = fleet
        self._may_write = may_write
        self._deletion_limit = deletion_limit
        self._left_alone: dict[str, str] = {}

    def work(self) -> None:
        """Take names from the queue until it is stopped."""
        queue = self.fleet.queue
        while (name := queue.get()) is not None:
            began = time.monotonic()
            outcome = "ok"
            try:
                self.look_at(name)
            except MayNotWriteError:
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
            StillThereError, MayNotWriteError.
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
        if seen.cut_off:
            self._leave_alone(tenant, seen.cut_off)
            return
        if naming.FINALIZER not in (tenant["metadata"].get("finalizers") or ()):
            tenant = self._put_finalizer(tenant)
        found = Findings(policy={"source": "none"})
        refused: KubeError | None = None
        try:
            wanted = self._wanted(tenant, seen, found)
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

    def _leave_alone(self, tenant: KubeObject, why: str) -> None:
        """Write nothing to a tenant that is cut off, nor to its objects, and say so where it can be said."""
        name = tenant["metadata"]["name"]
        if self._left_alone.get(name) != why:
            self._left_alone[name] = why
            log.error("tenant %s is left alone: %s", name, why)
            self._tell(tenant, about(tenant, WARNING, "DefinitionOutdated", f"Left alone: {why}", _now()))

    def _wanted(self, tenant: KubeObject, seen: Observed, found: Findings) -> Wanted:
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
        self._look_at_host(seen, wanted, found)
        return wanted

    def _look_at_host(self, seen: Observed, wanted: Wanted, found: Findings) -> None:
        """Refuse a host that an Ingress of somebody else has. Who has it already keeps it, and says that it is shared.

        Raises:
            UnfitError: names the other Ingress.
        """
        ingress = wanted.manifests.get(INGRESSES)
        if ingress is None:
            return
        key = _key(INGRESSES, ingress)
        claimant = self.fleet.claimant(wanted.host, key[1], key[2])
        if claimant and key not in seen.children:
            # Nobody is to be sent there.
            found.host = ""
            raise UnfitError("HostTaken", f"The host {wanted.host} belongs to Ingress {claimant}, which is not ours.")
        found.claimant = claimant

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
        now = _now()
        known = self.fleet.definitions.status_fields(TENANTS)
        status = status_of(tenant, seen, found, now, only=known)
        turn = turn_of(tenant, status, now)
        if self._put_status(tenant, status) and turn is not None:
            self._tell(tenant, turn)

    def _put_status(self, tenant: KubeObject, status: dict[str, Any], resource: Resource = TENANTS) -> bool:
        """Write a status unless it is there already; whether it was written. One whose object has gone is no failure.

        Where the cluster's definition has no status, there is none to write; `workloads.definitions` says so.
        """
        if status == (tenant.get("status") or {}) or self.fleet.definitions.status_fields(resource) == frozenset():
            return False
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
            return False
        if resource is TENANTS:
            self.fleet.tenant_written(live)
        return True

    def _tell(self, tenant: KubeObject, event: EventView) -> None:
        """Write an Event about a tenant. What cannot be told is logged and otherwise passed over."""
        manifest = event_manifest(tenant, event)
        metadata = manifest["metadata"]
        client = cluster_client()
        try:
            try:
                self._write(client.create, EVENTS, manifest, namespace=metadata["namespace"], manager=OPERATOR)
            except KubeConflictError:
                live = client.get(EVENTS, metadata["name"], namespace=metadata["namespace"])
                if live is not None:
                    again = again_patch(live, event.at)
                    where = {"namespace": metadata["namespace"], "manager": OPERATOR}
                    self._write(client.json_patch, EVENTS, metadata["name"], again, **where)
        except KubeError as exc:
            log.warning("the event %s of tenant %s is lost: %s", event.reason, tenant["metadata"]["name"], exc.message)

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
            self._say_deleting(tenant, left)
            raise StillThereError
        data_said = "volume claim and key are deleted as well" if is_purged else "volume claim and key stay"
        said = about(tenant, NORMAL, "Deleted", f"Its objects are gone; {data_said}.", _now())
        if left:
            log.error("tenant %s is let go while %s are still there", name, ", ".join(left))
            said = about(tenant, WARNING, "LetGo", f"Let go after waiting too long. {deletion_message(left)}", _now())
        if self._take_finalizer(tenant):
            self._tell(tenant, said)

    def _say_deleting(self, tenant: KubeObject, left: list[str]) -> None:
        before, message, now = tenant.get("status") or {}, deletion_message(left), _now()
        known = self.fleet.definitions.status_fields(TENANTS)
        status = {
            **before,
            "message": message,
            "observedGeneration": int(tenant["metadata"].get("generation") or 0),
        }
        status = {key: value for key, value in status.items() if known is None or key in known}
        is_first = not is_deletion_message(before.get("message"))
        if self._put_status(tenant, settled(status, before, now, only=known)) and is_first:
            self._tell(tenant, about(tenant, NORMAL, "Deleting", message, now))

    def _is_overdue(self, tenant: KubeObject) -> bool:
        asked = datetime.fromisoformat(tenant["metadata"]["deletionTimestamp"])
        return datetime.now(UTC) - asked > self._deletion_limit

    def _take_finalizer(self, tenant: KubeObject) -> bool:
        """Let go of a tenant; False when it has changed meanwhile, or is gone."""
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
            return False
        return True

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
        if self.fleet.definitions.cut_off(ACCESS_POLICIES, policy):
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
            raise MayNotWriteError
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
