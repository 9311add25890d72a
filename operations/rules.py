"""What a webhook's fields may hold. Pure."""

import re
from urllib.parse import urlsplit

URL_MAX = 2048
_CHARACTERS = re.compile(r"[!-~]+")


def check_url(url: str) -> None:
    """Judge an address by its form; what its name resolves to is looked at when something is sent.

    Raises:
        ValueError: it is no absolute http(s) URL, or carries a password.
    """
    if len(url) > URL_MAX or not _CHARACTERS.fullmatch(url) or set(url) & set('\\<>"{}|^`'):
        raise ValueError(f"Has to be a URL of at most {URL_MAX} ASCII characters.")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as exc:
        raise ValueError("Has to be an absolute URL.") from exc
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError("Has to start with https:// or http:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("May not hold a user name or password; requests are signed.")
    if parts.fragment:
        raise ValueError("May not have a fragment.")
