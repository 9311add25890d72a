"""What a registry asks for with a 401. Pure.

Source: RFC 9110, 11.6.1; https://distribution.github.io/distribution/spec/auth/token/.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SCHEME = re.compile(r"\s*(basic|bearer)\b", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that the registry accepts.

    Attributes:
        scheme: `basic` or `bearer`.
        realm: of a bearer challenge, where tokens are given out.
    """

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenge(header: str) -> Challenge | None:
    """The challenge in a WWW-Authenticate header; None when it is of no scheme that we speak."""
    match = _SCHEME.match(header[:4096])
    if match is None:
        return None
    found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(header[match.end() : 4096])}
    return Challenge(match[1].lower(), found.get("realm", ""), found.get("service", ""), found.get("scope", ""))


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454).

    Raises:
        ValueError: it is no absolute http(s) URL, or carries a user name.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise ValueError("not an absolute http(s) URL")
    return parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme]
