"""How many SQL queries a request takes: the same views, called in this process, on the same database and cluster.

PostgreSQL could count them by itself only with an extension that the embedded server does not have.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from django.test import Client

from accounts.models import Role, User
from accounts.services import tokens
from opencrane.actor import SYSTEM


class _Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        self.count += 1
        return execute(sql, params, many, context)


def count(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int | None:
    """The queries of one request, after one that fills what is cached; None when it is refused."""
    client = Client(SERVER_NAME=settings.ALLOWED_HOSTS[0], headers=headers)
    if method == "GET":
        client.get(path)
    counter = _Counter()
    with connection.execute_wrapper(counter):
        response = client.generic(method, path, body, "application/json" if body else "")
    return counter.count if response.status_code < 300 else None


def issued_token() -> str:
    """A new access token of role viewer."""
    return tokens.issue_token(name="bench", role=Role.VIEWER, creator_role=Role.ADMIN, actor=SYSTEM).secret


def session_cookie() -> str:
    """A console session of an administrator, as a Cookie header."""
    user = User.objects.filter(role=Role.ADMIN, is_active=True).order_by("pk").first()
    if user is None:
        raise RuntimeError("there is no administrator to sign in")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
