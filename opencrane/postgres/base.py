"""The backend; see the package. Django finds it by the name of this module."""

import select
import time
from collections.abc import Callable
from typing import Any, ClassVar

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import Connection
from psycopg_pool import ConnectionPool

# A connection that was seen to work less than this ago is asked again only if something has arrived on its socket.
TRUSTED_SECONDS = 5.0


class DatabaseWrapper(base.DatabaseWrapper):
    """A round trip for each request would cost more than many of the queries that follow it."""

    # Django's own, which its stubs do not know.
    _connection_pools: ClassVar[dict[str, Any]]
    _configure_connection: Callable[[Any], None]

    @property
    def pool(self) -> Any:
        """As Django makes it, save for the check; None where none is wanted."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if not options or self.alias == NO_DB_ALIAS:
            return None
        if self.alias not in self._connection_pools:
            made = ConnectionPool(
                kwargs=self.get_connection_params() | {"autocommit": True},
                open=False,
                configure=self._configure_connection,
                check=check_connection,
                **options,
            )
            self._connection_pools.setdefault(self.alias, made)
        return self._connection_pools[self.alias]


def check_connection(connection: "Connection[Any]") -> None:
    """Return quietly if a connection still works.

    A server that stops, restarts or ends a session says so, or closes the socket: both make the socket readable, and an
    idle one of ours never is otherwise. Only a peer that vanishes without a word needs to be asked.

    Raises:
        OperationalError: it does not.
    """
    now = time.monotonic()
    trusted_until: float = getattr(connection, "trusted_until", 0.0)
    if now < trusted_until and not _has_news(connection.fileno()):
        return
    ConnectionPool.check_connection(connection)
    connection.trusted_until = now + TRUSTED_SECONDS  # type: ignore[attr-defined]


def _has_news(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))
