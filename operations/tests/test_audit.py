"""The audit trail: complete, unchangeable, paged without loss."""

import datetime
import re
import threading
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from conftest import ApiClient
from opencrane.actor import SYSTEM, Actor
from operations import audit_pages
from operations.models import AuditEntry
from operations.services import audit

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def write(count: int = 1, **values: Any) -> None:
    """Entries that all share one timestamp, unless told otherwise."""
    entry = {
        "action": "tenant.created",
        "resource": "Tenant/anna",
        "message": "Created",
        "actor_kind": "user",
        "actor_name": "eva",
        "timestamp": NOON,
    } | values
    AuditEntry.objects.bulk_create(AuditEntry(**entry) for _ in range(count))


def walk(api: ApiClient, limit: int, between: Any = None, **filters: Any) -> list[dict[str, Any]]:
    """All entries by following nextCursor; `between` is called after each page."""
    found: list[dict[str, Any]] = []
    query = {"limit": limit, **filters}
    while True:
        response = api.get(f"/audit?{urlencode(query)}")
        assert response.status_code == 200, response.content
        page = response.json()
        assert page["pagination"]["limit"] == limit
        assert len(page["data"]) <= limit
        found += page["data"]
        if not page["pagination"]["hasMore"]:
            assert "nextCursor" not in page["pagination"]
            assert "Link" not in response
            return found
        query["cursor"] = page["pagination"]["nextCursor"]
        assert f"cursor={query['cursor']}" in response["Link"]
        assert 'rel="next"' in response["Link"]
        if between is not None:
            between()


def ids(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["id"] for entry in entries]


@pytest.mark.django_db
def test_an_entry_says_everything(api: ApiClient) -> None:
    tenant_id = uuid4()
    actor = Actor(kind="user", name="eva", user_id=7, request_id="r-1", address="192.0.2.1")
    audit.record(
        action="tenant.updated",
        resource="Tenant/anna",
        tenant="anna",
        tenant_id=tenant_id,
        message="Updated team",
        before={"team": "a", "configOverrides": {"apiKey": "k", "env": [{"name": "DB_PASSWORD", "value": "p"}]}},
        after={"team": None, "configOverrides": {"apiKey": "", "maxTokens": 5}},
        actor=actor,
    )
    (entry,) = api.get("/audit").json()["data"]
    stamp = datetime.datetime.fromisoformat(entry.pop("timestamp"))
    assert abs(datetime.datetime.now(datetime.UTC) - stamp) < datetime.timedelta(minutes=1)
    assert entry.pop("id")
    assert entry == {
        "tenant": "anna",
        "tenantId": str(tenant_id),
        "action": "tenant.updated",
        "resource": "Tenant/anna",
        "message": "Updated team",
        "actor": {"kind": "user", "name": "eva"},
        "requestId": "r-1",
        "address": "192.0.2.1",
        "before": {"team": "a", "configOverrides": {"apiKey": "***", "env": [{"name": "DB_PASSWORD", "value": "***"}]}},
        "after": {"team": None, "configOverrides": {"apiKey": "", "maxTokens": 5}},
    }


@pytest.mark.django_db(transaction=True)
def test_an_entry_needs_the_transaction_of_its_change() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        audit.record(action="a.b", resource="A/b", message="m", actor=SYSTEM)

    def fail() -> None:
        with transaction.atomic():
            audit.record(action="a.b", resource="A/b", message="m", actor=SYSTEM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE operations_auditentry SET message = 'x'",
        "UPDATE operations_auditentry SET message = 'x' WHERE false",
        "DELETE FROM operations_auditentry",
        "INSERT INTO operations_auditentry (id, action, resource, message, actor_kind, actor_name)"
        " SELECT id, action, resource, message, actor_kind, actor_name FROM operations_auditentry"
        " ON CONFLICT (id) DO UPDATE SET message = 'x'",
        "TRUNCATE operations_auditentry",
        "TRUNCATE operations_auditentry CASCADE",
        "SET LOCAL session_replication_role = replica; DELETE FROM operations_auditentry",
    ],
)
def test_nothing_is_ever_changed_or_removed(statement: str) -> None:
    write()
    with connection.cursor() as cursor:
        # The tests' own database lets go of this one trigger; see conftest.py.
        cursor.execute("ALTER TABLE operations_auditentry ENABLE ALWAYS TRIGGER operations_audit_no_truncate")
    # Whoever may not even set the role of a replica is refused before the trigger gets to see it.
    refusal = "append-only|permission denied to set parameter"
    with pytest.raises(DatabaseError, match=refusal), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEntry.objects.get().message == "Created"


@pytest.mark.django_db
def test_pages_show_each_entry_once_however_many_share_a_timestamp(api: ApiClient) -> None:
    write(57)
    write(5, timestamp=NOON - datetime.timedelta(microseconds=1))
    write(5, timestamp=NOON + datetime.timedelta(microseconds=1))
    expected = [str(pk) for pk in AuditEntry.objects.order_by("-timestamp", "-id").values_list("pk", flat=True)]
    for limit in (1, 7, 1000):
        assert ids(walk(api, limit)) == expected


@pytest.mark.django_db
def test_entries_that_arrive_meanwhile_neither_repeat_nor_hide_others(api: ApiClient) -> None:
    write(30)
    before = {str(pk) for pk in AuditEntry.objects.values_list("pk", flat=True)}

    def arrive() -> None:
        write(2)
        write(1, timestamp=NOON + datetime.timedelta(seconds=1))

    seen = ids(walk(api, 4, between=arrive))
    assert len(seen) == len(set(seen))
    assert before <= set(seen)


@pytest.mark.django_db(transaction=True)
def test_writers_in_parallel_hide_nothing_that_was_committed_before(api: ApiClient) -> None:
    stop = threading.Event()

    def keep_writing() -> None:
        try:
            while not stop.is_set():
                with transaction.atomic():
                    audit.record(action="a.b", resource="A/b", message="m", actor=SYSTEM)
        finally:
            connection.close()

    writers = [threading.Thread(target=keep_writing) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            with transaction.atomic():
                write(20, timestamp=datetime.datetime.now(datetime.UTC))
            before = {str(pk) for pk in AuditEntry.objects.values_list("pk", flat=True)}
            seen = ids(walk(api, 50))
            assert len(seen) == len(set(seen))
            assert before <= set(seen)
    finally:
        stop.set()
        for writer in writers:
            writer.join()


class Held:
    """A transaction that has written an entry and is not committed yet."""

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._written, self._commit = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        assert self._written.wait(10)

    def _work(self) -> None:
        try:
            with transaction.atomic():
                for number in range(self._count):
                    audit.record(action="late.entry", resource="A/b", message=f"late {number}", actor=SYSTEM)
                self._written.set()
                assert self._commit.wait(20)
        finally:
            connection.close()

    def commit(self) -> None:
        self._commit.set()
        self._thread.join()


def now_write(count: int) -> None:
    for _ in range(count):
        with transaction.atomic():
            audit.record(action="a.b", resource="A/b", message="in time", actor=SYSTEM)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize("query", [{}, {"q": "t"}, {"resource": "A/b"}])
def test_what_is_committed_during_the_walk_is_not_lost(api: ApiClient, limit: int, query: dict[str, str]) -> None:
    now_write(6)
    early = Held(count=4)
    now_write(3)
    later = Held()
    now_write(1)
    steps = iter([early.commit, later.commit])

    def commit_next() -> None:
        next(steps, lambda: None)()

    seen = ids(walk(api, limit, between=commit_next, **query))
    early.commit()
    later.commit()
    assert len(seen) == len(set(seen))
    assert set(seen) == {str(pk) for pk in AuditEntry.objects.values_list("pk", flat=True)}


@pytest.mark.django_db
def test_filters(api: ApiClient) -> None:
    anna = uuid4()
    write(tenant="anna", tenant_id=anna, request_id="r-1")
    write(tenant="anna", tenant_id=uuid4(), action="tenant.deleted", message="100% gone_now")
    write(action="tenant_group.created", resource="Group/x", actor_name="otto", timestamp=NOON + datetime.timedelta(1))

    def count(**filters: Any) -> int:
        return len(walk(api, 100, **filters))

    assert count() == 3
    assert count(tenant="anna") == 2
    assert count(tenant="ann") == 0
    assert count(tenantId=anna) == 1
    assert count(action="tenant.deleted") == 1
    assert count(action="tenant.*") == 2
    assert count(resource="Group/*") == 1
    assert count(resource="Tenant/anna") == 2
    assert count(actor="otto") == 1
    assert count(requestId="r-1") == 1
    assert count(since="2026-01-01T12:00:01Z") == 1
    assert count(since="2026-01-01T13:00:00+01:00", until="2026-01-02") == 2
    assert count(until="2026-01-01T12:00:00Z") == 0
    assert count(q="gone_now") == 1
    assert count(q="100%") == 1
    assert count(q="%") == 1
    assert count(q="GROUP") == 1
    assert count(tenant="anna", q="created") == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("limit=0", "VALIDATION_ERROR", "limit"),
        ("limit=1001", "VALIDATION_ERROR", "limit"),
        ("limit=ten", "VALIDATION_ERROR", "limit"),
        ("limit=", "VALIDATION_ERROR", "limit"),
        ("limit=%EF%BC%91", "VALIDATION_ERROR", "limit"),
        ("limit=1e2", "VALIDATION_ERROR", "limit"),
        ("since=yesterday", "VALIDATION_ERROR", "since"),
        ("until=2026-13-01", "VALIDATION_ERROR", "until"),
        ("since=0001-01-01T00:00:00%2B14:00", "VALIDATION_ERROR", "since"),
        ("tenantId=anna", "VALIDATION_ERROR", "tenantId"),
        ("q=" + "x" * 501, "VALIDATION_ERROR", "q"),
        ("cursor=abc", "INVALID_CURSOR", ""),
        ("cursor=%20", "INVALID_CURSOR", ""),
        ("cursor=" + "A" * 5000, "INVALID_CURSOR", ""),
    ],
)
def test_a_bad_parameter_is_a_400_that_names_it(api: ApiClient, query: str, code: str, field: str) -> None:
    response = api.get(f"/audit?{query}")
    assert response.status_code == 400, response.content
    assert response.json()["code"] == code
    assert list(response.json().get("fields", {})) == ([field] if field else [])


@pytest.mark.django_db
def test_the_next_link_keeps_the_other_parameters(api: ApiClient) -> None:
    write(3, tenant="a&b")
    response = api.get("/audit?limit=1&tenant=a%26b")
    link = response["Link"].removeprefix("<").partition(">")[0]
    assert "tenant=a%26b" in link
    assert len(api.get(link).json()["data"]) == 1


@pytest.mark.django_db
def test_a_search_looks_at_so_many_entries_and_goes_on_from_there(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_pages, "SEARCH_WINDOW", 10)
    write(1, message="needle one")
    write(25)
    write(1, message="needle two")
    write(25)
    assert [entry["message"] for entry in walk(api, 5, q="needle")] == ["needle two", "needle one"]
    first = api.get("/audit?q=needle").json()
    assert first["data"] == []
    assert first["pagination"]["hasMore"] is True
    assert len(walk(api, 3, q="created")) == 52


@pytest.mark.django_db
def test_a_page_is_one_query(api: ApiClient, django_assert_num_queries: Any) -> None:
    write(20)
    cursor = api.get("/audit?limit=5").json()["pagination"]["nextCursor"]
    with django_assert_num_queries(1):
        api.get(f"/audit?limit=5&cursor={cursor}&tenant=&action=tenant.created")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "audit_newest"),
        ({"tenant": "anna"}, "audit_by_tenant"),
        ({"tenantId": "1b4e28ba-2fa1-11d2-883f-0016d3cca427"}, "audit_by_tenant_id"),
        ({"action": "tenant.created"}, "audit_by_action"),
        ({"resource": "Tenant/anna"}, "audit_by_resource"),
        ({"actor": "eva"}, "audit_by_actor"),
        ({"requestId": "r-1"}, "audit_by_request"),
    ],
)
def test_every_page_walks_an_index(api: ApiClient, filters: dict[str, str], index: str) -> None:
    """At ten million rows a sort or a sequential scan would be felt; at this size only the plan shows it."""
    write(3, tenant="anna", tenant_id="1b4e28ba-2fa1-11d2-883f-0016d3cca427", request_id="r-1")
    cursor = api.get(f"/audit?{urlencode({'limit': 1, **filters})}").json()["pagination"]["nextCursor"]
    with CaptureQueriesContext(connection) as captured:
        api.get(f"/audit?{urlencode({'limit': 1, 'cursor': cursor, **filters})}")
    (query,) = [entry["sql"] for entry in captured if "operations_auditentry" in entry["sql"]]
    with connection.cursor() as explain:
        # What is left when the planner may not fall back on what suits a tiny table.
        explain.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off;"
            " SET LOCAL enable_incremental_sort = off"
        )
        explain.execute("EXPLAIN " + query)
        plan = "\n".join(row[0] for row in explain.fetchall())
    # A page may have a second part for what others have under way, which goes by audit_by_transaction.
    assert re.search(rf"Limit [^\n]*\n *->  Index Scan using {index} ", plan), plan
    assert "Seq Scan" not in plan, plan
