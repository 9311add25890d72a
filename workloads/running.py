"""The operator process: lead, follow everything, work."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.conf import settings

from cluster.client import cluster_client
from cluster.resources import (
    ACCESS_POLICIES,
    CILIUM_POLICIES,
    CLUSTER_TENANTS,
    CRDS,
    EVENTS,
    INGRESSES,
    PODS,
    TENANTS,
    KubeObject,
    Resource,
)
from opencrane.celery import touch_heartbeat
from workloads import metrics, naming
from workloads.fleet import Fleet
from workloads.lease import Leadership
from workloads.manifests import Defaults
from workloads.queue import WorkQueue
from workloads.reconcile import Reconciler
from workloads.watching import Follower

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
LISTED_TOGETHER = 3
HEARTBEAT_SECONDS = 10.0


def defaults() -> Defaults:
    """What the settings say about every tenant."""
    return Defaults(
        image=settings.OPENCLAW_IMAGE,
        version=settings.OPENCLAW_VERSION,
        port=settings.OPENCLAW_PORT,
        storage=settings.TENANT_STORAGE,
        storage_class=settings.TENANT_STORAGE_CLASS,
        ingress_domain=settings.INGRESS_DOMAIN,
        ingress_class=settings.INGRESS_CLASS,
        ingress_tls_secret=settings.INGRESS_TLS_SECRET,
        control_plane_url=settings.CONTROL_PLANE_URL,
        litellm_endpoint=settings.TENANT_LITELLM_ENDPOINT or settings.LITELLM_ENDPOINT,
        platform_namespaces=tuple(settings.PLATFORM_NAMESPACES),
        node_pool_label=settings.NODE_POOL_LABEL,
    )


class Operator:
    """Follows one namespace's tenants and works on them until told to stop."""

    def __init__(self, *, may_write: Callable[[], bool] = lambda: True, workers: int | None = None) -> None:
        self.stop = threading.Event()
        self.queue = WorkQueue()
        self.fleet = Fleet(
            home=cluster_client().namespace,
            defaults=defaults(),
            default_policy=settings.DEFAULT_TENANT_POLICY,
            queue=self.queue,
        )
        limit = timedelta(seconds=settings.DELETION_SECONDS)
        changed = self.fleet.definitions.changed
        self.reconciler = Reconciler(
            self.fleet, may_write=lambda: may_write() and not changed.is_set(), deletion_limit=limit
        )
        self._workers = settings.OPERATOR_WORKERS if workers is None else workers
        self._threads: list[threading.Thread] = []
        self.followers: list[Follower] = []

    def start(self) -> bool:
        """List everything, then begin to work; False when told to stop before that."""
        fleet, home = self.fleet, self.fleet.home
        began = time.monotonic()
        if not self._wait_for(self._follow_definitions(), or_fail=True):
            return False
        first = [
            self._follow(CLUSTER_TENANTS, fleet.cluster_tenant_changed, fleet.cluster_tenant_gone),
            self._follow(ACCESS_POLICIES, fleet.policy_changed, fleet.policy_gone, namespace=home),
            self._follow(TENANTS, fleet.tenant_changed, fleet.tenant_gone, namespace=home),
        ]
        if not self._wait_for(first):
            return False
        resources = [each for each in (*naming.CHILDREN, PODS) if each is not CILIUM_POLICIES or fleet.has_cilium]
        # A few at a time: a page of each kind would be many in memory at once.
        for start in range(0, len(resources), LISTED_TOGETHER):
            together = [self._follow_child(each) for each in resources[start : start + LISTED_TOGETHER]]
            if not self._wait_for(together):
                return False
        self._follow(EVENTS, fleet.event_seen, None)
        with fleet.lock:
            fleet.is_complete = True
            if fleet.has_cilium:
                self._follow_cilium()
            count = len(fleet.tenants)
            fleet.look_at_everything()
        log.info("looking after %d tenants of namespace %s; listed in %.1f s", count, home, time.monotonic() - began)
        for number in range(self._workers):
            self._thread(self.reconciler.work, f"work-{number}")
        self._thread(self._keep_looking, "look")
        return True

    def end(self) -> None:
        """Stop working; threads that wait for the cluster end with the process."""
        self.stop.set()
        self.queue.stop()

    def _follow(
        self,
        resource: Resource,
        on_object: Callable[[KubeObject], None],
        on_gone: Callable[[str, str, str], None] | None,
        *,
        on_listed: Callable[[], None] | None = None,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
    ) -> Follower:
        follower = Follower(
            resource,
            on_object=on_object,
            on_gone=on_gone,
            on_listed=on_listed,
            stop=self.stop,
            namespace=namespace,
            label_selector=labels,
            field_selector=fields,
        )
        self.followers.append(follower)
        self._thread(follower.run, f"follow-{resource.plural}")
        return follower

    def _follow_child(self, resource: Resource) -> Follower:
        fleet = self.fleet
        labels = naming.watched_labels(fleet.home)
        if resource is PODS:
            return self._follow(resource, fleet.pod_changed, fleet.pod_gone, labels=labels)
        if resource is INGRESSES:
            # All of them: a host may belong to somebody else.
            return self._follow(resource, fleet.ingress_changed, fleet.ingress_gone)
        return self._follow(
            resource, partial(fleet.child_changed, resource), partial(fleet.child_gone, resource), labels=labels
        )

    def _thread(self, target: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _wait_for(self, followers: list[Follower], *, or_fail: bool = False) -> bool:
        """Until all have listed, or, if that will do, found out that they cannot; False when told to stop."""
        while not self.stop.is_set():
            if all(each.listed.wait(0.05) or (or_fail and each.last_error) for each in followers):
                return True
        return False

    def _follow_definitions(self) -> list[Follower]:
        """Our definitions, which may be of another version, and that of Cilium's policies, which may come and go."""
        ours = self.fleet.definitions
        followers = [
            self._follow_definition(name, ours.seen, ours.gone, on_listed=partial(ours.judge, name))
            for name in ours.wanted
        ]
        cilium = self._follow_definition(
            CILIUM_POLICIES.name,
            lambda _: self._cilium_found(is_there=True),
            lambda *_: self._cilium_found(is_there=False),
        )
        return [*followers, cilium]

    def _follow_definition(
        self,
        name: str,
        on_object: Callable[[KubeObject], None],
        on_gone: Callable[[str, str, str], None],
        *,
        on_listed: Callable[[], None] | None = None,
    ) -> Follower:
        return self._follow(CRDS, on_object, on_gone, on_listed=on_listed, fields=f"metadata.name={name}")

    def _cilium_found(self, *, is_there: bool) -> None:
        with self.fleet.lock:
            if is_there and self.fleet.is_complete:
                self._follow_cilium()
            self.fleet.cilium_found(is_there=is_there)

    def _follow_cilium(self) -> None:
        """Once; a follower copes with a kind that is not served for a while."""
        if not any(each.resource is CILIUM_POLICIES for each in self.followers):
            self._follow_child(CILIUM_POLICIES)

    def _keep_looking(self) -> None:
        """Figures, and the heartbeat of the liveness probe."""
        heartbeat_at = 0.0
        while not self.stop.wait(LOOK_SECONDS):
            now = time.monotonic()
            metrics.queue_depth.set(len(self.queue))
            metrics.tenants.set(len(self.fleet.tenants))
            if now >= heartbeat_at and all(thread.is_alive() for thread in self._threads):
                touch_heartbeat()
                heartbeat_at = now + HEARTBEAT_SECONDS


def run(stop: threading.Event) -> bool:
    """Lead and work until `stop` is set, or all that is known has to be read anew; False when the lease was lost."""
    if settings.OPERATOR_METRICS_PORT:
        metrics.serve(settings.OPERATOR_METRICS_PORT)
    leadership = Leadership()
    waiting = threading.Thread(target=_beat_while_waiting, args=(stop, leadership), daemon=True)
    waiting.start()
    if not leadership.acquire(stop):
        return True
    metrics.is_leader.set(1)
    threading.Thread(target=leadership.keep, name="lease", daemon=True).start()
    operator = Operator(may_write=leadership.is_held)
    starting = threading.Thread(target=operator.start, name="start", daemon=True)
    starting.start()
    beat_at = 0.0
    outdated = operator.fleet.definitions.changed
    while not stop.wait(LOOK_SECONDS) and not leadership.lost.is_set() and not outdated.is_set():
        # Listing a large fleet takes its time.
        if starting.is_alive() and time.monotonic() >= beat_at:
            touch_heartbeat()
            beat_at = time.monotonic() + HEARTBEAT_SECONDS
    operator.end()
    metrics.is_leader.set(0)
    if leadership.lost.is_set():
        log.error("the lease is lost; another replica may lead")
        return False
    leadership.release()
    if outdated.is_set():
        log.info("the cluster's definitions have changed: starting anew, to read everything as it is now")
    return True


def _beat_while_waiting(stop: threading.Event, leadership: Leadership) -> None:
    """A replica that waits for the lease is alive too."""
    while not leadership.is_held() and not stop.is_set():
        touch_heartbeat()
        stop.wait(HEARTBEAT_SECONDS)
