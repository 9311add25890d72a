"""Tampering with the audit trail shows, whoever does it, and honest lateness does not."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Role, User
from devstack.tests.dev_process import wait_until
from opencrane.actor import SYSTEM
from operations import sealing
from operations.models import AuditEntry, AuditSeal, AuditVerification
from operations.services import audit


def wait_for_others() -> None:
    """Until every entry may be sealed: transactions of tests beside this one, in other databases, hold them up too."""

    def is_settled() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM operations_auditentry"
                " WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
                " AND xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
            )
            return cursor.fetchone()[0] == 0

    wait_until("older transactions have ended", is_settled, 120)


def write(count: int = 1, *, waits: bool = True) -> list[int]:
    """Entries in a transaction of their own, ready to be sealed if `waits`. Returns the ids of all there are."""
    with transaction.atomic():
        for number in range(count):
            audit.record(
                action="tenant.updated",
                resource=f"Tenant/t{number}",
                message="Updated",
                before={"budget": 1.5},
                after={"budget": None},
                actor=SYSTEM,
            )
    if waits:
        wait_for_others()
    return list(AuditEntry.objects.order_by("id").values_list("pk", flat=True))


@contextmanager
def owner() -> Iterator[Any]:
    """A cursor of somebody who owns the database and takes the triggers off, as the tests' own user may."""
    tables = {"operations_auditentry": "audit", "operations_auditseal": "seal"}
    with transaction.atomic(), connection.cursor() as cursor:
        for table, name in tables.items():
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER operations_{name}_no_change")
        yield cursor
        for table, name in tables.items():
            cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER operations_{name}_no_change")


def verify(*arguments: str) -> str:
    out = StringIO()
    call_command("audit_verify", *arguments, stdout=out)
    return out.getvalue()


pytestmark = pytest.mark.django_db(transaction=True)


def test_what_is_sealed_is_found_whole() -> None:
    write(7)
    assert sealing.seal_entries(batch_rows=3) == 7
    assert list(AuditSeal.objects.order_by("id").values_list("rows", flat=True)) == [3, 3, 1]
    assert sealing.seal_entries() == 0
    write(2)
    assert sealing.seal_entries() == 2
    told = verify()
    assert "9 entries in 4 seals are as they were sealed." in told
    last = AuditSeal.objects.order_by("id").last()
    assert last is not None
    assert f"The last seal is {last.pk}:{last.hash}" in told
    assert verify("--expect", f"{last.pk}:{last.hash}")
    for wrong in (f"{last.pk}:{'0' * 64}", f"{last.pk + 1}:{last.hash}", "nonsense"):
        with pytest.raises(CommandError, match="made anew"):
            verify("--expect", wrong)


def test_a_batch_costs_what_it_seals_however_much_one_transaction_wrote() -> None:
    write(3)
    with CaptureQueriesContext(connection) as captured:
        assert sealing.seal_entries(batch_rows=3) == 3
    query = next(each["sql"] for each in captured if "sha256" in each["sql"])
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute("EXPLAIN " + query)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Index Scan using audit_by_transaction" in plan, plan
    assert "Sort" not in plan, plan


COPY = (
    "INSERT INTO operations_auditentry (id, xid, timestamp, action, resource, message, actor_kind, actor_name)"
    " SELECT id + 1000000, xid, timestamp, action, resource, 'forged', actor_kind, actor_name"
    " FROM operations_auditentry WHERE id = %s"
)


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("UPDATE operations_auditentry SET message = 'x' WHERE id = %s", "was changed"),
        ("UPDATE operations_auditentry SET after = '{\"budget\": 2}' WHERE id = %s", "was changed"),
        ("UPDATE operations_auditentry SET actor_token = 'x' WHERE id = %s", "was changed"),
        ("UPDATE operations_auditentry SET timestamp = timestamp + interval '1 us' WHERE id = %s", "was changed"),
        ("UPDATE operations_auditentry SET xid = xid - 1 WHERE id = %s", "was"),
        ("DELETE FROM operations_auditentry WHERE id = %s", "was removed"),
        (COPY, "was added after its time"),
    ],
)
def test_a_deed_at_an_entry_is_named(deed: str, why: str) -> None:
    write(6)
    ids = write(3)
    sealing.seal_entries(batch_rows=4)
    with owner() as cursor:
        cursor.execute(deed, [ids[5]])
    with pytest.raises(CommandError, match=rf"first at entry \d+: Entry \d+ {why}") as caught:
        verify()
    if "INSERT" not in deed and "xid" not in deed:
        assert f"entry {ids[5]}:" in str(caught.value)


def test_what_was_added_at_the_end_of_a_batch_is_found() -> None:
    ids = write(3)
    sealing.seal_entries()
    with owner() as cursor:
        cursor.execute(
            COPY.replace("xid, timestamp, action, resource, 'forged'", "xid - 1, timestamp, action, resource, 'f'"),
            [ids[0]],
        )
    with pytest.raises(CommandError, match=f"Entry {ids[0] + 1000000} was added"):
        verify()


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("UPDATE operations_auditseal SET rows = 1 WHERE id = %s", "was changed"),
        ("UPDATE operations_auditseal SET entries = '\\x' WHERE id = %s", "was changed"),
        ("DELETE FROM operations_auditseal WHERE id = %s", "was removed or changed"),
    ],
)
def test_a_deed_at_a_seal_is_named(deed: str, why: str) -> None:
    write(6)
    sealing.seal_entries(batch_rows=2)
    _, second, _ = AuditSeal.objects.order_by("id").values_list("pk", flat=True)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(deed, [second])
    with owner() as cursor:
        cursor.execute(deed, [second])
    with pytest.raises(CommandError, match=rf"first at seal \d+: .* {why}"):
        verify()


def test_an_entry_that_commits_late_is_sealed_late_and_not_missed() -> None:
    written, go_on = threading.Event(), threading.Event()

    def late() -> None:
        try:
            with transaction.atomic():
                audit.record(action="a.late", resource="A/b", message="late", actor=SYSTEM)
                written.set()
                go_on.wait(60)
        finally:
            connections["default"].close()

    write(2)
    thread = threading.Thread(target=late)
    thread.start()
    try:
        assert written.wait(30)
        write(2, waits=False)
        assert sealing.seal_entries() == 2, "what came after the open transaction waits for it"
        assert "2 entries" in verify()
    finally:
        go_on.set()
        thread.join(30)
    wait_for_others()
    assert sealing.seal_entries() == 3
    assert "5 entries in 2 seals" in verify()


def test_only_one_seals_at_a_time() -> None:
    write(2)
    outcomes = []

    def other() -> None:
        outcomes.append(sealing.seal_entries())
        connections["default"].close()

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [sealing._LOCK])
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
    assert outcomes == [0]
    assert sealing.seal_entries() == 2


def test_a_database_restored_elsewhere_goes_on_with_a_chain_of_its_own() -> None:
    """There transaction numbers begin anew; here the old entries get numbers that nobody will reach."""
    write(3)
    with owner() as cursor:
        cursor.execute("UPDATE operations_auditentry SET xid = xid + 1000000000000")
    assert sealing.seal_entries() == 3
    write(2)
    assert sealing.seal_entries() == 2
    write(1)
    assert sealing.seal_entries() == 1
    assert list(AuditSeal.objects.order_by("id").values_list("chain", flat=True)) == [1, 2, 2]
    assert "6 entries in 3 seals" in verify()
    with owner() as cursor:
        cursor.execute("DELETE FROM operations_auditentry WHERE id = (SELECT max(id) FROM operations_auditentry)")
    with pytest.raises(CommandError, match="was removed"):
        verify()


def signed_in() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("vera", role=Role.VIEWER))
    return client


def test_the_console_says_what_the_scheduled_check_found(api: Any) -> None:
    client = signed_in()
    assert "Not sealed yet" in client.get("/admin/audit/").content.decode()
    ids = write(6)
    sealing.seal_entries(batch_rows=2)
    sealing.check_some()
    assert "Intact" in client.get("/admin/audit/").content.decode()
    assert "opencrane_audit_intact 1.0" in api.get("/metrics").content.decode()
    with owner() as cursor:
        cursor.execute("UPDATE operations_auditentry SET message = 'x' WHERE id = %s", [ids[3]])
    # A part of the trail at a time: the first two parts are whole, or were before.
    for _ in range(3):
        sealing.check_some(most_rows=2)
    page = client.get("/admin/audit/").content.decode()
    assert f"Entry {ids[3]} was changed." in page
    assert f'href="/admin/audit/{ids[3]}/"' in page
    assert "opencrane_audit_intact 0.0" in api.get("/metrics").content.decode()
    with owner() as cursor:
        cursor.execute("UPDATE operations_auditentry SET message = 'Updated' WHERE id = %s", [ids[3]])
    # To the end of this round, and all of the next.
    sealing.check_some()
    sealing.check_some()
    assert AuditVerification.objects.get().broken_why == ""
    assert "Intact" in client.get("/admin/audit/").content.decode()


def test_sealing_and_checking_run_as_tasks() -> None:
    from operations.tasks import check_audit, seal_audit

    write(1)
    seal_audit.delay()
    check_audit.delay()
    assert AuditSeal.objects.get().rows == 1
    assert AuditVerification.objects.get().round_finished_at is not None
