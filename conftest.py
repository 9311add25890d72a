"""Fixtures for every app: a database per process, a namespace per process in the development cluster, API clients.

Nothing of ours is mocked. Tasks run in the process that sends them (Celery's eager mode), on commit as in production.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management.commands import flush
from django.db import connection
from django.test import Client
from hypothesis import HealthCheck, settings

from accounts.models import Role
from accounts.services import tokens
from opencrane.actor import SYSTEM
from opencrane.celery import app as celery_app

API_TOKEN = "static-token-of-the-tests-0123456789"  # noqa: S105
# The same examples every time: a run says something about the change, not about luck. `--hypothesis-profile=explore`
# looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

MACHINE_PREFIXES = ("/api/", "/healthz", "/readyz", "/metrics", "/prom", "/admin", "/static")


class ApiClient(Client):
    """Django's test client for our API: JSON bodies, CSRF checked as in production, paths below /api/v1."""

    def __init__(self, token: str = "", **options: Any) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__(enforce_csrf_checks=True, headers=headers, **options)

    def generic(self, method: str, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Like Client.generic; `/tenants` stands for `/api/v1/tenants`."""
        full = path if path.startswith(MACHINE_PREFIXES) or path == "/" else f"/api/v1{path}"
        return super().generic(method, full, *args, **kwargs)

    def post(self, path: str, data: Any = "", content_type: str = "application/json", **kwargs: Any) -> Any:  # type: ignore[override]
        """POST with `data` as JSON; text and bytes go as they are."""
        return super().post(path, data, content_type, **kwargs)

    def put(self, path: str, data: Any = "", content_type: str = "application/json", **kwargs: Any) -> Any:  # type: ignore[override]
        """PUT with `data` as JSON; text and bytes go as they are."""
        return super().put(path, data, content_type, **kwargs)


def pytest_configure(config: pytest.Config) -> None:
    celery_app.conf.task_always_eager = True
    celery_app.conf.task_eager_propagates = True
    django_settings.API_TOKEN = API_TOKEN
    # All tests come from one address; those of limits set their own.
    django_settings.RATE_LIMIT_BAD_CREDENTIALS = django_settings.RATE_LIMIT_DEVICE = 0
    django_settings.ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    prefix = os.environ.get("OPENCRANE_TEST_NAMESPACE") or "oc-test"
    django_settings.NAMESPACE = f"{prefix}-{worker}"
    # The real one takes a third of a second for each of the hundreds of passwords in the tests, by design.
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # TRUNCATE between tests would otherwise be followed by making Django's permissions again, which nothing asks for
    # and which takes longer than the test.
    flush.emit_post_migrate_signal = lambda *args, **kwargs: None  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database; here, and only here, the audit trail may be truncated between tests."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE operations_auditentry DISABLE TRIGGER operations_audit_no_truncate")
        cursor.execute("ALTER TABLE operations_auditseal DISABLE TRIGGER operations_seal_no_truncate")
    connection.ops.sql_flush = _truncate_what_holds_rows  # type: ignore[method-assign]
    yield
    # Lock and listener connections live as long as their threads; the database can only go without them.
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def _truncate_what_holds_rows(
    style: Any, tables: Sequence[str], *, reset_sequences: bool = False, allow_cascade: bool = False
) -> list[str]:
    """Django's flush, without the nine tables in ten that are empty: truncating one costs as much as a short test."""
    del style, reset_sequences, allow_cascade
    if not tables:
        return []
    quoted = [connection.ops.quote_name(table) for table in tables]
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT {number} WHERE EXISTS (SELECT FROM {table})"  # noqa: S608 - our own names
                for number, table in enumerate(quoted)
            )
        )
        full = [quoted[number] for (number,) in cursor.fetchall()]
    return [f"TRUNCATE {', '.join(full)} CASCADE"] if full else []


@pytest.fixture(scope="session")
def cluster_namespace() -> Iterator[str]:
    """A namespace of this process's own in the cluster that KUBECONFIG names, with our definitions installed.

    Tests that need it are skipped where no cluster answers.
    """
    from cluster import crds
    from cluster.client import cluster_client, ping, reset_cluster_client
    from cluster.errors import KubeError
    from cluster.resources import NAMESPACES

    reset_cluster_client()
    try:
        ping(timeout=2.0)
    except KubeError as exc:
        pytest.skip(f"no cluster answers: {exc}")
    name = django_settings.NAMESPACE
    crds.install()
    path = NAMESPACES.path("")
    client = cluster_client()
    if client.get(NAMESPACES, name) is None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        client.request("POST", path, body=body)
    yield name
    reset_cluster_client()


@pytest.fixture
def api() -> ApiClient:
    """A client with the static token: role admin, and no query for it."""
    return ApiClient(API_TOKEN)


@pytest.fixture
def anonymous_api() -> ApiClient:
    """A client without credentials."""
    return ApiClient()


@pytest.fixture
def viewer_api(db: None) -> ApiClient:
    """A client with an issued token of role viewer."""
    return ApiClient(issue(Role.VIEWER))


@pytest.fixture
def operator_api(db: None) -> ApiClient:
    """A client with an issued token of role operator."""
    return ApiClient(issue(Role.OPERATOR))


def issue(role: Role, **options: Any) -> str:
    """The secret of a new token."""
    values = {"name": f"test {role}", "owner": "", "expires_at": None, "creator_role": Role.ADMIN, "actor": SYSTEM}
    return tokens.issue_token(role=role, **values | options).secret
