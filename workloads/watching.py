"""Following one type of object: list in pages, then watch from there, for ever.

The listing is the truth at that moment: what was known and is not in it is gone. Streams that break are taken up where
they ended; a version that is too old, or any surprise, leads to a new listing. Nothing is polled in between.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import logging
import random
import sys
import threading
import time
from collections.abc import Callable

from cluster.client import cluster_client
from cluster.errors import KubeError, KubeGoneError, KubeTransientError
from cluster.resources import KubeObject, Resource

log = logging.getLogger(__name__)

# Parsed, a page takes thirty times what it takes on the wire.
PAGE = 200
WATCH_SECONDS = 290
IDLE_SECONDS = 330.0
FIRST_DELAY = 0.2
MAX_DELAY = 15.0

Key = tuple[str, str]


class Follower:
    """One list and watch.

    Args:
        on_object: called with each object as it is now, from this follower's thread.
        on_gone: called with (namespace, name, uid) of what is no more; without it, no account of what there is is kept.
        on_listed: called after each listing.
        namespace: empty for all.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        on_object: Callable[[KubeObject], None],
        on_gone: Callable[[str, str, str], None] | None,
        stop: threading.Event,
        on_listed: Callable[[], None] | None = None,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self.resource = resource
        self._on_object = on_object
        self._on_gone = on_gone
        self._on_listed = on_listed
        self._stop = stop
        self._namespace = namespace
        self._selectors = {
            key: value for key, value in (("labelSelector", label_selector), ("fieldSelector", field_selector)) if value
        }
        self._known: dict[Key, str] = {}
        self.listed = threading.Event()
        self.last_error = ""

    def run(self) -> None:
        """Follow until told to stop."""
        version = ""
        delay = 0.0
        while not self._stop.is_set():
            try:
                if not version:
                    version = self._list()
                    self.listed.set()
                    self.last_error = ""
                version = self._watch(version)
                delay = 0.0
            except KubeGoneError as exc:
                log.info("listing %s anew: %s", self.resource.plural, exc.message)
                version = ""
            except KubeError as exc:
                delay = min(MAX_DELAY, max(FIRST_DELAY, delay * 2))
                if exc.message != self.last_error:
                    log.warning("%s cannot be followed, again in %.1f s: %s", self.resource.plural, delay, exc.message)
                self.last_error = exc.message
                if not isinstance(exc, KubeTransientError) or exc.status == 404:
                    version = ""
                self._stop.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311

    def _list(self) -> str:
        version = ""
        seen: dict[Key, str] = {}
        pages = cluster_client().list_pages(
            self.resource,
            limit=PAGE,
            namespace=self._namespace,
            label_selector=self._selectors.get("labelSelector", ""),
            field_selector=self._selectors.get("fieldSelector", ""),
        )
        for page, listed_at in pages:
            version = listed_at
            for obj in page:
                metadata = obj["metadata"]
                if self._on_gone is not None:
                    seen[_key(obj)] = metadata["uid"]
                self._hand(obj)
        if self._on_gone is not None:
            gone = [(key, uid) for key, uid in self._known.items() if key not in seen]
            self._known = seen
            for (namespace, name), uid in gone:
                self._on_gone(namespace, name, uid)
        if self._on_listed is not None:
            self._on_listed()
        return version

    def _hand(self, obj: KubeObject) -> None:
        try:
            self._on_object(obj)
        except Exception:  # one strange object must not keep the others from being followed
            log.exception("%s %s is not understood", self.resource.kind, obj["metadata"]["name"])

    def _watch(self, version: str) -> str:
        """One stream; returns the version to go on from."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": WATCH_SECONDS,
            **self._selectors,
        }
        began = time.monotonic()
        path = self.resource.path(self._namespace)
        for event in cluster_client().stream(path, query=query, idle_timeout=IDLE_SECONDS):
            kind, obj = event["type"], event["object"]
            if kind == "ERROR":
                message = obj.get("message", "the watch ended with an error")
                if obj.get("code") == 410:
                    raise KubeGoneError(message, status=410)
                raise KubeTransientError(message, status=obj.get("code", 0))
            metadata = obj["metadata"]
            version = metadata["resourceVersion"]
            if kind == "DELETED":
                if self._on_gone is not None:
                    key = _key(obj)
                    self._known.pop(key, None)
                    self._on_gone(*key, metadata["uid"])
            elif kind != "BOOKMARK":
                if self._on_gone is not None:
                    self._known[_key(obj)] = metadata["uid"]
                self._hand(obj)
            if self._stop.is_set():
                break
        if time.monotonic() - began < 1.0:
            # A server that ends every stream at once must not be asked in a loop.
            self._stop.wait(FIRST_DELAY)
        return version


def _key(obj: KubeObject) -> Key:
    metadata = obj["metadata"]
    # The namespaces are few and the objects many.
    return sys.intern(metadata.get("namespace", "")), metadata["name"]
