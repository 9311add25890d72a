"""Lists in pages, watches that resume, and what happens when history is too short."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest

from devstack.cluster import watch
from devstack.cluster.kinds import Registry
from devstack.cluster.store import Entry, Event, Shelf
from devstack.tests.clusterclient import MERGE, Cluster, Object, config_map, tenant


def labelled(name: str, **labels: str) -> Object:
    body = config_map(name)
    body["metadata"]["labels"] = labels
    return body


def names(listing: Object) -> list[str]:
    return [item["metadata"]["name"] for item in listing["items"]]


def test_pages_show_one_moment(cluster: Cluster, maps: str) -> None:
    for number in range(10):
        cluster.ok("POST", maps, config_map(f"m{number}", v="old"))
    page = cluster.get(f"{maps}?limit=4")
    version = page["metadata"]["resourceVersion"]
    assert (names(page), page["metadata"]["remainingItemCount"]) == (["m0", "m1", "m2", "m3"], 6)
    cluster.ok("DELETE", f"{maps}/m5")
    cluster.ok("POST", maps, config_map("m55"))
    cluster.ok("PATCH", f"{maps}/m7", {"data": {"v": "new"}}, kind=MERGE)
    items = page["items"]
    while token := page["metadata"].get("continue"):
        page = cluster.get(f"{maps}?limit=4&continue={token}")
        assert page["metadata"]["resourceVersion"] == version
        items += page["items"]
    assert [item["metadata"]["name"] for item in items] == [f"m{number}" for number in range(10)]
    assert {item["data"]["v"] for item in items} == {"old"}
    assert names(cluster.get(maps)) == ["m0", "m1", "m2", "m3", "m4", "m55", "m6", "m7", "m8", "m9"]


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("labelSelector=color%3Dred", ["a", "c"]),
        ("labelSelector=color%21%3Dred", ["b", "d"]),
        ("labelSelector=color%20in%20(red,blue),size", ["b", "c"]),
        ("labelSelector=color%20notin%20(red)", ["b", "d"]),
        ("labelSelector=%21color", ["d"]),
        ("labelSelector=size%3E5", ["c"]),
        ("fieldSelector=metadata.name%3Db", ["b"]),
        ("fieldSelector=metadata.name%21%3Db", ["a", "c", "d"]),
        ("labelSelector=color%3Dred&limit=1", ["a"]),
    ],
)
def test_selectors(cluster: Cluster, maps: str, selector: str, wanted: list[str]) -> None:
    for body in (
        labelled("a", color="red"),
        labelled("b", color="blue", size="3"),
        labelled("c", color="red", size="9"),
    ):
        cluster.ok("POST", maps, body)
    cluster.ok("POST", maps, config_map("d"))
    assert names(cluster.get(f"{maps}?{selector}")) == wanted


def test_bad_queries(cluster: Cluster, tenants: str) -> None:
    for query in ("labelSelector=a%3D%3D%3Db", "labelSelector=%2F%2F", "fieldSelector=spec.team%3Dx", "limit=many"):
        assert cluster.call("GET", f"{tenants}?{query}")[0] == 400


def test_version_of_the_future_is_refused(cluster: Cluster, maps: str) -> None:
    status, answer = cluster.call("GET", f"{maps}?resourceVersion=99999999999")
    assert (status, answer["reason"]) == (504, "Timeout")


def test_watch_resumes_where_a_list_ended(cluster: Cluster, tenants: str) -> None:
    cluster.ok("POST", tenants, tenant("a"))
    version = cluster.get(tenants)["metadata"]["resourceVersion"]
    cluster.ok("PATCH", f"{tenants}/a", {"spec": {"team": "x"}}, kind=MERGE)
    with cluster.watch(f"{tenants}?resourceVersion={version}") as events:
        first = next(events)
        cluster.ok("POST", tenants, tenant("b"))
        cluster.ok("DELETE", f"{tenants}/a")
        rest = list(itertools.islice(events, 2))
    seen = [(event["type"], event["object"]["metadata"]["name"]) for event in (first, *rest)]
    assert seen == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    assert first["object"]["spec"]["team"] == "x"
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in (first, *rest)]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("version", ["", "&resourceVersion=0"])
def test_watch_from_now_tells_what_there_is(cluster: Cluster, maps: str, version: str) -> None:
    for name in ("a", "b"):
        cluster.ok("POST", maps, config_map(name))
    with cluster.watch(f"{maps}?timeoutSeconds=20{version}") as events:
        first = list(itertools.islice(events, 2))
        cluster.ok("POST", maps, config_map("c"))
        assert next(events)["object"]["metadata"]["name"] == "c"
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in first] == [("ADDED", "a"), ("ADDED", "b")]


def test_initial_events_end_with_a_bookmark(cluster: Cluster, maps: str) -> None:
    cluster.ok("POST", maps, config_map("a"))
    query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    with cluster.watch(f"{maps}?{query}") as events:
        added, mark = itertools.islice(events, 2)
    assert added["type"] == "ADDED"
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_watch_ends_on_time_with_a_bookmark(cluster: Cluster, maps: str, tenants: str) -> None:
    version = cluster.get(maps)["metadata"]["resourceVersion"]
    latest = cluster.ok("POST", tenants, tenant("elsewhere"))["metadata"]["resourceVersion"]
    start = time.monotonic()
    with cluster.watch(f"{maps}?resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks=true") as events:
        seen = list(events)
    assert 0.9 < time.monotonic() - start < 5
    assert [event["type"] for event in seen] == ["BOOKMARK"]
    assert int(seen[0]["object"]["metadata"]["resourceVersion"]) >= int(latest)


def test_objects_enter_and_leave_a_selection(cluster: Cluster, maps: str) -> None:
    version = cluster.get(maps)["metadata"]["resourceVersion"]
    with cluster.watch(f"{maps}?resourceVersion={version}&labelSelector=on%3D1") as events:
        cluster.ok("POST", maps, labelled("a", on="0"))
        cluster.ok("PATCH", f"{maps}/a", {"metadata": {"labels": {"on": "1"}}}, kind=MERGE)
        cluster.ok("PATCH", f"{maps}/a", {"data": {"k": "v"}}, kind=MERGE)
        left = cluster.ok("PATCH", f"{maps}/a", {"metadata": {"labels": {"on": "2"}}}, kind=MERGE)
        seen = list(itertools.islice(events, 3))
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    last = seen[2]["object"]
    assert last["metadata"]["labels"] == {"on": "1"}
    assert last["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]


def test_watch_of_one_name(cluster: Cluster, maps: str) -> None:
    version = cluster.get(maps)["metadata"]["resourceVersion"]
    with cluster.watch(f"{maps}?resourceVersion={version}&fieldSelector=metadata.name%3Db") as events:
        cluster.ok("POST", maps, config_map("a"))
        cluster.ok("POST", maps, config_map("b"))
        assert next(events)["object"]["metadata"]["name"] == "b"


def test_watch_as_a_table(cluster: Cluster, tenants: str) -> None:
    cluster.ok("POST", tenants, tenant("a", team="x"))
    headers = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    response = cluster.raw("GET", f"{tenants}?watch=true&timeoutSeconds=1", headers=headers)
    assert b'"kind":"Table"' in response.data
    assert b'"cells":["a","x",null,false' in response.data


def test_many_watchers_see_every_event_in_order(cluster: Cluster, maps: str) -> None:
    version = cluster.get(maps)["metadata"]["resourceVersion"]
    seen: list[list[str]] = [[] for _ in range(8)]
    started = threading.Barrier(9)

    def follow(into: list[str]) -> None:
        with cluster.watch(f"{maps}?resourceVersion={version}") as events:
            started.wait(10)
            into += [event["object"]["metadata"]["name"] for event in itertools.islice(events, 200)]

    threads = [threading.Thread(target=follow, args=(into,)) for into in seen]
    for thread in threads:
        thread.start()
    started.wait(10)
    for number in range(200):
        cluster.ok("POST", maps, config_map(f"m{number:03}"))
    for thread in threads:
        thread.join(10)
    assert seen == [[f"m{number:03}" for number in range(200)]] * 8


def test_a_reader_that_sleeps_holds_nobody_up(cluster: Cluster, maps: str) -> None:
    big = "x" * 100_000
    with cluster.watch(maps) as events:
        start = time.monotonic()
        for number in range(60):
            cluster.ok("POST", maps, config_map(f"m{number}", big=big))
        assert time.monotonic() - start < 10
        assert sum(1 for _ in itertools.islice(events, 60)) == 60


def test_full_queue_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was queued is still sent; then the connection closes and the client starts over from what it has seen."""
    monkeypatch.setattr(watch, "QUEUE_EVENTS", 3)

    async def story() -> list[bytes]:
        shelf = Shelf(floor=0, limit=100)
        resource = next(iter(Registry()))
        follow = watch.Watch(
            resource, shelf, None, watch.Selection(None, None), encoder=lambda entry: entry.raw, now_rv=lambda: 5
        )
        follow.start(0, send_initial=False, bookmark_initial=False)
        for rv in range(1, 6):
            event = Event("ADDED", rv, Entry({"metadata": {"name": f"n{rv}"}}, b"%d" % rv, rv), None)
            for subscriber in shelf.subscribers:
                subscriber.offer(event)
        async with asyncio.timeout(5):
            return [chunk async for chunk in follow.chunks(60, bookmarks=True)]

    assert b"".join(asyncio.run(story())).splitlines() == [b'{"type":"ADDED","object":%d}' % rv for rv in (1, 2, 3)]
