"""Copies what the cluster says about objects into the projection columns of their rows.

List, then watch from that version; list again on 410, on anything unexpected, and every few minutes in any case. Never
gives up: the delay between attempts is capped. A watch only ever moves the projection, never intent.
"""

import logging
import random
import threading
import time
from typing import Any

from django.db import DatabaseError, close_old_connections
from django.db.models import F, QuerySet

from cluster.client import cluster_client, reset_cluster_client
from cluster.errors import KubeError, KubeGoneError
from cluster.intent import try_now
from cluster.kinds import Kind, all_kinds
from cluster.resources import KubeObject
from opencrane.celery import touch_heartbeat

log = logging.getLogger(__name__)

PAGE = 500
WATCH_SECONDS = 290
RELIST_SECONDS = 600.0
IDLE_SECONDS = 320.0
MAX_DELAY_SECONDS = 15.0
HEARTBEAT_SECONDS = 10.0


def run(stop: threading.Event) -> None:
    """Follow every kind, a thread each, until `stop` is set."""
    threads = [
        threading.Thread(target=follow, args=(kind, stop), name=f"project-{kind.name}", daemon=True)
        for kind in all_kinds()
    ]
    for thread in threads:
        thread.start()
    while all(thread.is_alive() for thread in threads):
        touch_heartbeat()
        if stop.wait(HEARTBEAT_SECONDS):
            return
    log.error("a thread of the projector has ended; without its heartbeat, the process is to be started anew")
    stop.wait()


def follow(kind: Kind[Any], stop: threading.Event) -> None:
    """List and watch one kind, for ever."""
    delay = 0.0
    while not stop.is_set():
        try:
            close_old_connections()
            version = project_listing(kind)
            log.info("projecting %s from version %s", kind.resource.plural, version)
            delay = 0.0
            _watch(kind, version, stop)
        except KubeGoneError as exc:
            log.info("listing %s anew: %s", kind.resource.plural, exc.message)
        except (KubeError, DatabaseError) as exc:
            delay = min(MAX_DELAY_SECONDS, max(0.5, delay * 2))
            log.warning("projection of %s interrupted, again in %.1f s: %s", kind.resource.plural, delay, exc)
            reset_cluster_client()
            stop.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311


def _watch(kind: Kind[Any], version: str, stop: threading.Event) -> None:
    """Follow the stream from `version` until a relist is due."""
    client = cluster_client()
    relist_at = time.monotonic() + RELIST_SECONDS
    while not stop.is_set() and time.monotonic() < relist_at:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": WATCH_SECONDS,
        }
        for event in client.stream(kind.resource.path(client.namespace), query=query, idle_timeout=IDLE_SECONDS):
            if event["type"] == "ERROR":
                status = event["object"]
                if status.get("code") == 410:
                    raise KubeGoneError(status.get("message", "the version is too old"), status=410)
                raise KubeError(status.get("message", "the watch ended with an error"), status=status.get("code", 0))
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                close_old_connections()
                project_event(kind, event["type"], event["object"])
            if stop.is_set():
                return


def project_listing(kind: Kind[Any]) -> str:
    """Project a whole listing; rows without a resource lose their projection. Returns the list's version."""
    version, last = "", ""
    for page, listed_at in cluster_client().list_pages(kind.resource, limit=PAGE):
        version = listed_at
        if page:
            upto = page[-1]["metadata"]["name"]
            _project_page(kind, kind.model._default_manager.filter(name__gt=last, name__lte=upto), page)
            last = upto
    _project_page(kind, kind.model._default_manager.filter(name__gt=last).exclude(status={}), [])
    return version


def _project_page(kind: Kind[Any], rows: QuerySet[Any], page: list[KubeObject]) -> None:
    """Bring `rows`, all there are between the page's first and last name, in line with the page."""
    live = {resource["metadata"]["name"]: resource for resource in page}
    for row in rows:
        resource = live.get(row.name, ABSENT)
        if resource is ABSENT or _belongs(row, resource):
            _project(kind, row, resource)


def project_event(kind: Kind[Any], event: str, resource: KubeObject) -> None:
    """Project one watch event. A deletion clears the projection, and wakes the worker that waits for it."""
    row = kind.model._default_manager.filter(name=resource["metadata"]["name"]).first()
    if row is None or not _belongs(row, resource):
        return
    _project(kind, row, ABSENT if event == "DELETED" else resource)
    if event == "DELETED" and row.deleting and row.sync_error:
        # A finalizer was what the worker waited for; without one it knows already.
        try_now(kind, [row.pk])


ABSENT: KubeObject = {"metadata": {}}


def projection(kind: Kind[Any], resource: KubeObject) -> dict[str, Any]:
    """Columns that follow the resource: status, labels, generation, and what the kind adds."""
    metadata = resource["metadata"]
    return {
        "status": resource.get("status") or {},
        "resource_labels": metadata.get("labels") or {},
        "resource_generation": metadata.get("generation", 0),
        **kind.projected(resource),
    }


def _project(kind: Kind[Any], row: Any, resource: KubeObject) -> None:
    values = projection(kind, resource)
    if resource is not ABSENT:
        # The worker that applied a generation may be ahead of the stream.
        values["resource_generation"] = max(values["resource_generation"], row.resource_generation)
    if any(getattr(row, key) != value for key, value in values.items()):
        kind.model._default_manager.filter(pk=row.pk).update(**values, status_revision=F("status_revision") + 1)


def _belongs(row: Any, resource: KubeObject) -> bool:
    return not row.cluster_uid or row.cluster_uid == resource["metadata"]["uid"]
