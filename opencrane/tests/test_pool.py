"""Pooled connections: those that died are replaced before a request notices, and living ones are seldom asked."""

from collections.abc import Iterator

import pytest
from django.db import connection

from devstack.tests.dev_process import wait_until
from opencrane.postgres.base import DatabaseWrapper

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pooled() -> Iterator[DatabaseWrapper]:
    options = connection.settings_dict["OPTIONS"] | {"pool": {"min_size": 1, "max_size": 1, "timeout": 5.0}}
    wrapper = DatabaseWrapper(connection.settings_dict | {"OPTIONS": options, "CONN_MAX_AGE": 0}, alias="pooled")
    yield wrapper
    wrapper.close()
    wrapper.close_pool()


def backend_of(wrapper: DatabaseWrapper) -> int:
    """The server process that one request's worth of queries reaches."""
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    wrapper.close()
    assert isinstance(pid, int)
    return pid


def last_query(pid: int) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid])
        found = cursor.fetchone()
    return found[0] if found else None


def test_a_connection_that_the_server_ended_is_replaced(pooled: DatabaseWrapper) -> None:
    before = backend_of(pooled)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [before])
    wait_until("the server process is gone", lambda: last_query(before) is None)
    assert backend_of(pooled) != before


def test_a_connection_is_asked_only_when_it_has_not_been_seen_for_a_while(pooled: DatabaseWrapper) -> None:
    pid = backend_of(pooled)
    pooled.ensure_connection()
    assert last_query(pid) == "SELECT pg_backend_pid()"
    pooled.connection.trusted_until = 0.0
    pooled.close()
    pooled.ensure_connection()
    assert pooled.connection.info.backend_pid == pid
    assert last_query(pid) == ""
