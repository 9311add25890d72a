"""Just enough of the controllers that the cluster lives: namespaces, garbage collection, Deployments, pods, claims.

Level-triggered: the store tells what changed, each piece of work looks at how things are now. At start everything is
looked at once, so that what a killed process left half done is finished.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable
from typing import Any

import orjson

from devstack.cluster.errors import StatusError
from devstack.cluster.kinds import Registry, Resource
from devstack.cluster.store import Entry, Event, Key, Store
from devstack.cluster.writes import FOREGROUND, Deletion, Options, Writer, timestamp

Object = dict[str, Any]
Work = tuple[str, str, Key]

log = logging.getLogger("devstack.cluster.controllers")

POD_START_SECONDS = 1.0
BATCH = 200
NODE = "development-node"
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
DEPLOYMENTS = "deployments.apps"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_CONTROLLER = Options(manager="kube-controller-manager", validation="Ignore")
_KUBELET = Options(manager="kubelet", validation="Ignore")


class Controllers:
    """Listens to the store and does the work between requests."""

    def __init__(self, store: Store, registry: Registry, writer: Writer) -> None:
        self._store = store
        self._registry = registry
        self._writer = writer
        self._pending: dict[Work, None] = {}
        self._wake = asyncio.Event()
        self._terminating: set[str] = set()
        self._timers: set[Work] = set()
        store.listeners.append(self.notice)

    # --- what to look at ------------------------------------------------------------------------------------------

    def look_at_everything(self) -> None:
        for storage in self._store.storages():
            for entry in self._store.shelf(storage).slice(None, None):
                self._sort(storage, entry)
        for uid in self._store.owner_uids():
            self._enqueue("collect", uid, ("", ""))

    def notice(self, storage: str, event: Event) -> None:
        """Called within every write; only notes what to do, except for what must be true at once."""
        entry = event.entry
        if storage == DEFINITIONS:
            self._definition_changed(event)
        if event.type != "DELETED":
            self._sort(storage, entry)
            return
        self._enqueue("collect", entry.uid, ("", ""))
        for owner in entry.owners:
            self._look_at_owner(owner)
        if storage == "namespaces":
            self._terminating.discard(entry.name)
        elif entry.namespace in self._terminating:
            self._enqueue("namespace", "namespaces", ("", entry.namespace))
        elif storage == "serviceaccounts" and entry.name == "default":
            self._enqueue("account", storage, entry.key)

    def _sort(self, storage: str, entry: Entry) -> None:
        deleting = b'"deletionTimestamp"' in entry.raw
        if storage == "namespaces":
            if deleting and entry.load()["metadata"].get("deletionTimestamp"):
                self._terminating.add(entry.name)
                self._enqueue("namespace", storage, entry.key)
            elif self._store.get("serviceaccounts", entry.name, "default") is None:
                self._make_account(entry.name)
            return
        if deleting and FOREGROUND.encode() in entry.raw:
            self._enqueue("foreground", storage, entry.key)
        if storage == DEPLOYMENTS:
            self._enqueue("deployment", storage, entry.key)
        elif storage == "pods":
            self._later(POD_START_SECONDS, ("pod", storage, entry.key))
            for owner in entry.owners:
                self._look_at_owner(owner)
        elif storage == "persistentvolumeclaims":
            self._enqueue("claim", storage, entry.key)
        if entry.owners and not any(self._store.by_uid(owner) for owner in entry.owners):
            for owner in entry.owners:
                # A moment of grace: the owner may be on its way when both come from one file.
                self._later(1.0, ("collect", owner, ("", "")))

    def _look_at_owner(self, uid: str) -> None:
        found = self._store.by_uid(uid)
        if found is None:
            return
        storage, key = found
        if storage == DEPLOYMENTS:
            self._enqueue("deployment", storage, key)
        self._enqueue("foreground", storage, key)

    def _definition_changed(self, event: Event) -> None:
        crd = event.entry.load()
        if event.type != "DELETED":
            self._registry.define(crd)
            return
        self._registry.undefine(crd)
        storage = f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
        for entry in list(self._store.shelf(storage).slice(None, None)):
            self._store.remove(storage, entry.namespace, entry.name)

    def _enqueue(self, kind: str, storage: str, key: Key) -> None:
        self._pending[kind, storage, key] = None
        self._wake.set()

    def _later(self, seconds: float, work: Work) -> None:
        if work in self._timers:
            return

        def due() -> None:
            self._timers.discard(work)
            self._enqueue(*work)

        self._timers.add(work)
        asyncio.get_running_loop().call_later(seconds, due)

    async def run(self) -> None:
        """Work off what is noted, for ever; between pieces requests get their turn."""
        doers: dict[str, Callable[[str, Key], None]] = {
            "account": lambda _, key: self._make_account(key[0]),
            "claim": self._bind_claim,
            "collect": lambda uid, _: self._collect(uid),
            "deployment": self._reconcile_deployment,
            "foreground": self._finish_foreground,
            "namespace": lambda _, key: self._empty_namespace(key[1]),
            "pod": self._start_pod,
        }
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                work = next(iter(self._pending))
                del self._pending[work]
                try:
                    doers[work[0]](work[1], work[2])
                except StatusError as exc:
                    # Somebody else's change came between; whatever it was has queued the work again.
                    log.debug("%s: %s", work, exc)
                except Exception:
                    log.exception("controller %s failed on %s %s", *work)
                await asyncio.sleep(0)

    # --- namespaces and garbage -----------------------------------------------------------------------------------

    def _resource(self, storage: str) -> Resource:
        resource = self._registry.by_storage(storage)
        if resource is None:
            raise StatusError(404, "NotFound", f"{storage} is no longer served")
        return resource

    def _make_account(self, namespace: str) -> None:
        entry = self._store.get("namespaces", "", namespace)
        if entry is None or namespace in self._terminating:
            return
        if self._store.get("serviceaccounts", namespace, "default") is None:
            body = {"metadata": {"name": "default"}}
            self._writer.create(self._resource("serviceaccounts"), namespace, body, _CONTROLLER)

    def _empty_namespace(self, name: str) -> None:
        if self._store.get("namespaces", "", name) is None:
            return
        seen = held = 0
        for storage in self._store.storages():
            resource = self._registry.by_storage(storage)
            if resource is None or not resource.namespaced:
                continue
            for entry in list(self._store.shelf(storage).slice(name, None)):
                if seen >= BATCH:
                    self._enqueue("namespace", "namespaces", ("", name))
                    return
                if b'"deletionTimestamp"' in entry.raw and entry.load()["metadata"].get("deletionTimestamp"):
                    held += 1
                    continue
                seen += 1
                self._writer.delete(resource, name, entry.name, Deletion())
                held += self._store.get(storage, name, entry.name) is not None
        if not held:
            self._writer.finalize_namespace(name, {"spec": {"finalizers": []}})

    def _collect(self, uid: str) -> None:
        """Delete what only objects that are gone own."""
        if self._store.by_uid(uid) is not None:
            return
        for count, (storage, (namespace, name)) in enumerate(self._store.dependents(uid)):
            if count >= BATCH:
                self._enqueue("collect", uid, ("", ""))
                return
            entry = self._store.get(storage, namespace, name)
            resource = self._registry.by_storage(storage)
            if entry is None or resource is None or any(self._store.by_uid(owner) for owner in entry.owners):
                continue
            self._writer.delete(resource, namespace, name, Deletion(uid=entry.uid))

    def _finish_foreground(self, storage: str, key: Key) -> None:
        entry = self._store.get(storage, *key)
        if entry is None or FOREGROUND.encode() not in entry.raw:
            return
        obj = entry.load()
        finalizers = obj["metadata"].get("finalizers") or []
        if not obj["metadata"].get("deletionTimestamp") or FOREGROUND not in finalizers:
            return
        waiting = 0
        for dependent_storage, (namespace, name) in self._store.dependents(entry.uid):
            resource = self._registry.by_storage(dependent_storage)
            if resource is not None:
                self._writer.delete(resource, namespace, name, Deletion())
                waiting += self._store.get(dependent_storage, namespace, name) is not None
        if waiting:
            return
        patch = {"metadata": {"finalizers": [name for name in finalizers if name != FOREGROUND]}}
        self._writer.patch(self._resource(storage), key[0], key[1], patch, "merge", "", _CONTROLLER)

    # --- workloads ------------------------------------------------------------------------------------------------

    def _set_status(self, storage: str, key: Key, status: Object, options: Options) -> None:
        self._writer.patch(self._resource(storage), key[0], key[1], {"status": status}, "merge", "status", options)

    def _bind_claim(self, storage: str, key: Key) -> None:
        entry = self._store.get(storage, *key)
        if entry is None:
            return
        claim = entry.load()
        if claim.get("status", {}).get("phase") == "Bound":
            return
        if not claim["spec"].get("volumeName"):
            patch = {"spec": {"volumeName": f"pvc-{entry.uid}"}}
            self._writer.patch(self._resource(storage), key[0], key[1], patch, "merge", "", _CONTROLLER)
        capacity = {"storage": claim["spec"]["resources"]["requests"]["storage"]}
        status = {"phase": "Bound", "accessModes": claim["spec"]["accessModes"], "capacity": capacity}
        self._set_status(storage, key, status, _CONTROLLER)

    def _reconcile_deployment(self, storage: str, key: Key) -> None:
        entry = self._store.get(storage, *key)
        if entry is None:
            return
        deployment = entry.load()
        if deployment["metadata"].get("deletionTimestamp"):
            return
        spec = deployment["spec"]
        wanted: int = spec["replicas"]
        template = orjson.dumps(spec["template"], option=orjson.OPT_SORT_KEYS)
        mark = hashlib.sha256(template).hexdigest()[:10]
        current: list[Entry] = []
        outdated: list[Entry] = []
        for pod_storage, pod_key in self._store.dependents(entry.uid):
            pod = self._store.get(pod_storage, *pod_key) if pod_storage == "pods" else None
            if pod is not None:
                (current if pod.labels.get("pod-template-hash") == mark else outdated).append(pod)
        current.sort(key=lambda pod: pod.name)
        pods = self._resource("pods")
        for pod in outdated + current[wanted:]:
            self._writer.delete(pods, pod.namespace, pod.name, Deletion())
        current = current[:wanted]
        for _ in range(wanted - len(current)):
            created = self._writer.create(pods, key[0], _pod_of(deployment, mark), _CONTROLLER)
            made = self._store.get("pods", key[0], created["metadata"]["name"])
            if made is not None:
                current.append(made)
        ready = sum(_is_ready(pod.load()) for pod in current)
        self._set_status(storage, key, _deployment_status(deployment, len(current), ready), _CONTROLLER)

    def _start_pod(self, storage: str, key: Key) -> None:
        entry = self._store.get(storage, *key)
        if entry is None:
            return
        pod = entry.load()
        if pod["status"].get("phase") != "Pending" or pod["status"].get("containerStatuses"):
            return
        if not pod["spec"].get("nodeName"):
            scheduler = Options(manager="kube-scheduler", validation="Ignore")
            patch = {"spec": {"nodeName": NODE}}
            self._writer.patch(self._resource(storage), key[0], key[1], patch, "merge", "", scheduler)
        status, failing = _pod_status(pod)
        self._set_status(storage, key, status, _KUBELET)
        if failing:
            self._record_event(pod, "Warning", "Failed", f'Failed to pull image "{failing}": not found')
        else:
            name = pod["spec"]["containers"][0]["name"]
            self._record_event(pod, "Normal", "Started", f"Started container {name}")

    def _record_event(self, pod: Object, kind: str, reason: str, message: str) -> None:
        metadata, now = pod["metadata"], timestamp()
        event = {
            "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "kubelet", "host": NODE},
            "reportingComponent": "kubelet",
            "reportingInstance": NODE,
        }
        self._writer.create(self._resource("events"), metadata["namespace"], event, _KUBELET)


def _pod_of(deployment: Object, mark: str) -> Object:
    """A pod as a Deployment's template wants it (there is no ReplicaSet in between here)."""
    template, metadata = deployment["spec"]["template"], deployment["metadata"]
    labels = {**(template.get("metadata", {}).get("labels") or {}), "pod-template-hash": mark}
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(5))
    # Room for hash and suffix within the 63 characters that a pod's host name may have.
    out: Object = {"name": f"{metadata['name'][:46].rstrip('-.')}-{mark}-{suffix}", "labels": labels}
    if template.get("metadata", {}).get("annotations"):
        out["annotations"] = template["metadata"]["annotations"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
    out["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": out, "spec": template["spec"]}


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _condition(kind: str, holds: bool, reason: str = "", message: str = "") -> Object:
    now = timestamp()
    out = {"type": kind, "status": "True" if holds else "False", "lastTransitionTime": now, "lastUpdateTime": now}
    return {**out, "reason": reason, "message": message}


def _deployment_status(deployment: Object, pods: int, ready: int) -> Object:
    wanted = deployment["spec"]["replicas"]
    done = ready >= wanted
    fresh = [
        _condition(
            "Available",
            done,
            "MinimumReplicasAvailable" if done else "MinimumReplicasUnavailable",
            f"Deployment {'has' if done else 'does not have'} minimum availability.",
        ),
        _condition(
            "Progressing",
            True,
            "NewReplicaSetAvailable" if done else "ReplicaSetUpdated",
            "The pods follow the template.",
        ),
    ]
    before = {c["type"]: c for c in (deployment.get("status") or {}).get("conditions") or []}
    for condition in fresh:
        old = before.get(condition["type"])
        if old is not None and old["status"] == condition["status"]:
            condition["lastTransitionTime"] = old["lastTransitionTime"]
            if old.get("reason") == condition["reason"]:
                condition["lastUpdateTime"] = old["lastUpdateTime"]
    # A real server leaves zeros out; null takes them out of the merge.
    return {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "replicas": pods or None,
        "updatedReplicas": pods or None,
        "readyReplicas": ready or None,
        "availableReplicas": ready or None,
        "unavailableReplicas": max(0, wanted - ready) or None,
        "conditions": fresh,
    }


def _pod_status(pod: Object) -> tuple[Object, str]:
    """The status of a pod that was started, and the image that cannot be pulled, if any."""
    now = timestamp()
    containers = []
    failing = ""
    for container in pod["spec"]["containers"]:
        image = container["image"]
        bad = image.startswith("fail:")
        failing = failing or (image if bad else "")
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}}
        containers.append(
            {
                "name": container["name"],
                "image": image,
                "imageID": "" if bad else f"development/{image}",
                "ready": not bad,
                "started": not bad,
                "restartCount": 0,
                "state": waiting if bad else {"running": {"startedAt": now}},
                "lastState": {},
            }
        )
    seed = hashlib.sha256(pod["metadata"]["uid"].encode()).digest()
    address = f"10.244.{seed[0]}.{seed[1] % 254 + 1}"
    conditions = [
        {"type": kind, "status": "True" if holds else "False", "lastTransitionTime": now}
        for kind, holds in (
            ("PodScheduled", True),
            ("Initialized", True),
            ("ContainersReady", not failing),
            ("Ready", not failing),
        )
    ]
    status: Object = {
        "phase": "Pending" if failing else "Running",
        "conditions": conditions,
        "hostIP": "127.0.0.1",
        "startTime": now,
        "containerStatuses": containers,
    }
    if not failing:
        status["podIP"] = address
        status["podIPs"] = [{"ip": address}]
    return status, failing
