"""What a third-party source's fields may hold, and what imports are called. Pure."""

import re
from urllib.parse import urlsplit

from mcpservers.rules import check_endpoint

URL_MAX = 2048
GIT_TYPES = ("git-repository", "anthropic-skills")
REF_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$"
_NOT_IN_BUILD = re.compile(r"[^0-9A-Za-z-]+")


def check_address(url: str, source_type: str) -> None:
    """Judge an address by its form; what its name resolves to is looked at when it is read.

    Raises:
        ValueError: it is no absolute http(s) URL, or carries a password.
    """
    if source_type == "manual-upload":
        # For people: where what is uploaded comes from.
        if "@" in (urlsplit(url).netloc if "://" in url else ""):
            raise ValueError("May not hold a user name or password.")
        return
    try:
        check_endpoint(url, "streamable-http")
    except ValueError as exc:
        sentence = str(exc)
        if "transport" in sentence:
            sentence = "Has to start with http:// or https://."
        elif "password" in sentence:
            sentence = "May not hold a user name or password: sources are read without credentials."
        raise ValueError(sentence) from exc


def versions_for(version: str, digest: str) -> list[str]:
    """What an imported bundle's version may be: the item's, or that with the content's digest as build metadata."""
    mark = f"sha{digest.removeprefix('sha256:')[:12]}"
    joint = "." if "+" in version else "+"
    return [version, f"{version}{joint}{mark}"[:128]]


def server_names(name: str, version: str, digest: str) -> list[str]:
    """What an imported server's name may be: the item's; for a later version, that with what makes it another one."""
    tail = f"@{_NOT_IN_BUILD.sub('-', version)}"
    longer = f"{tail}-{digest.removeprefix('sha256:')[:8]}"
    return [name[:253], f"{name[: 253 - len(tail)]}{tail}", f"{name[: 253 - len(longer)]}{longer}"]
