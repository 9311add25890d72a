"""DATABASE_URL to Django's DATABASES entry.

PostgreSQL only: the control plane relies on advisory locks, LISTEN/NOTIFY, partial indexes and SKIP LOCKED.
"""

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from opencrane.env import ConfigurationError

_HINT = "has to look like postgresql://user:password@host:5432/database (or ?host=/socket/folder)"


def parse_database_url(url: str) -> dict[str, Any]:
    """A Django database entry for a libpq URI (https://www.postgresql.org/docs/17/libpq-connect.html, 33.1.1.2).

    Query parameters become connection options; `host` and `port` given there win, so that Unix sockets work.

    Raises:
        ConfigurationError: no PostgreSQL URL, or without a database name. The URL is never repeated.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigurationError("DATABASE_URL", _HINT) from exc
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise ConfigurationError("DATABASE_URL", _HINT)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    host = options.pop("host", None) or unquote(parts.hostname or "")
    return {
        "ENGINE": "opencrane.postgres",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(options.pop("port", None) or port or ""),
        "OPTIONS": options,
    }
