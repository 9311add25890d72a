"""One operator at a time: a Lease in the cluster, as client-go's leader election has it.

Times of others are never compared with our clock: a lease counts as left behind once it has not changed for its
duration, measured here. https://kubernetes.io/docs/concepts/architecture/leases/#leader-election
"""

import logging
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

from cluster.client import cluster_client
from cluster.errors import KubeConflictError, KubeError
from cluster.resources import LEASES, OPERATOR, KubeObject

log = logging.getLogger(__name__)

DURATION_SECONDS = 15
RENEW_SECONDS = 4.0
RETRY_SECONDS = 2.0
# Nothing is written any more this long before others may take over.
MARGIN_SECONDS = 3.0


class Leadership:
    """Holds, or waits for, the lease of one namespace."""

    def __init__(self, name: str = OPERATOR, identity: str = "") -> None:
        self.name = name
        self.identity = identity or f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(3)}"
        self.lost = threading.Event()
        self._until = 0.0
        # Renewing and giving back never meet: a lease that was given back is not renewed once more.
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._seen: tuple[str, float] = ("", 0.0)

    def is_held(self) -> bool:
        """Whether nobody else may lead yet."""
        return time.monotonic() < self._until and not self.lost.is_set()

    def acquire(self, stop: threading.Event) -> bool:
        """Wait for the lease; False when told to stop before that."""
        told = False
        while not stop.is_set():
            try:
                if self._take():
                    log.info("leading as %s", self.identity)
                    return True
                if not told:
                    log.info("waiting for the lease %s", self.name)
                    told = True
            except KubeError as exc:
                log.warning("the lease cannot be had: %s", exc.message)
            stop.wait(RETRY_SECONDS)
        return False

    def keep(self) -> None:
        """Renew until it is released; sets `lost` once others may lead."""
        while not self._is_over.wait(RENEW_SECONDS):
            with self._lock:
                if self._is_over.is_set():
                    return
                try:
                    if not self._take():
                        self.lost.set()
                except KubeError as exc:
                    log.warning("the lease could not be renewed: %s", exc.message)
                if not self.is_held():
                    self.lost.set()
                    return

    def release(self) -> None:
        """Let the next one lead at once."""
        self._is_over.set()
        with self._lock:
            if self.is_held():
                self._until = 0.0
                self._give_back()

    def _give_back(self) -> None:
        try:
            live = cluster_client().get(LEASES, self.name)
            if live is not None and live["spec"].get("holderIdentity") == self.identity:
                self._replace(live, live["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1})
        except KubeError as exc:
            log.warning("the lease could not be given back: %s", exc.message)

    def _take(self) -> bool:
        """Take or renew the lease, if it is ours, nobody's, or left behind."""
        began = time.monotonic()
        live = cluster_client().get(LEASES, self.name)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        try:
            if live is None:
                body = {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": {"name": self.name},
                    "spec": spec,
                }
                cluster_client().create(LEASES, body, manager=OPERATOR)
            else:
                before = live.get("spec") or {}
                if before.get("holderIdentity") == self.identity:
                    spec = before | {"renewTime": now}
                elif before.get("holderIdentity") and not self._is_left_behind(live, began):
                    return False
                else:
                    spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + 1
                self._replace(live, spec)
        except KubeConflictError:
            return False
        self._until = began + DURATION_SECONDS - MARGIN_SECONDS
        return True

    def _is_left_behind(self, live: KubeObject, now: float) -> bool:
        version = live["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, now)
        duration = float(live["spec"].get("leaseDurationSeconds") or DURATION_SECONDS)
        return now - self._seen[1] > duration

    def _replace(self, live: KubeObject, spec: dict[str, Any]) -> None:
        client = cluster_client()
        path = LEASES.path(client.namespace, self.name)
        client.request("PUT", path, query={"fieldManager": OPERATOR}, body={**live, "spec": spec})
