"""What an MCP server's fields may hold. Pure."""

import ipaddress
import re
from urllib.parse import urlsplit

ENDPOINT_MAX = 2048
SCHEMES = {"streamable-http": ("http", "https"), "sse": ("http", "https"), "websocket": ("ws", "wss")}
_HOST = re.compile(r"([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.?", re.IGNORECASE)


def check_endpoint(endpoint: str, transport: str) -> None:
    """Judge an endpoint by its form; what its name resolves to is looked at when it is probed.

    Raises:
        ValueError: it is no absolute URL of a scheme that fits the transport, or carries a password.
    """
    schemes = SCHEMES[transport]
    if len(endpoint) > ENDPOINT_MAX or not endpoint.isascii() or re.search(r"[\s\x00-\x1f\x7f\\<>\"{}|^`]", endpoint):
        raise ValueError(f"Has to be a URL of at most {ENDPOINT_MAX} characters.")
    try:
        parts = urlsplit(endpoint)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as exc:
        raise ValueError("Has to be an absolute URL.") from exc
    if parts.scheme not in schemes:
        raise ValueError(f"Has to start with {' or '.join(f'{s}://' for s in schemes)} for transport {transport}.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("May not hold a user name or password; add a credential that refers to a Secret.")
    if not _is_host(host) or port == 0 or parts.netloc.endswith(":"):
        raise ValueError("Has to be an absolute URL with a host.")
    if parts.fragment:
        raise ValueError("May not have a fragment.")


def _is_host(host: str) -> bool:
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return "%" not in host
    return bool(host) and len(host) <= 253 and bool(_HOST.fullmatch(host))
