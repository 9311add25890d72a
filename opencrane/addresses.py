"""The caller's network address, also behind proxies that are trusted."""

import ipaddress
from collections.abc import Iterable
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks such as `10.0.0.0/8`; a bare address is a network of one.

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def client_address(meta: dict[str, Any], trusted: tuple[Network, ...]) -> str:
    """The peer's address; when that is a trusted proxy, the nearest address in X-Forwarded-For that is not.

    Whatever stands further left was written by the caller and is not believed.
    """
    peer: str = meta.get("REMOTE_ADDR") or ""
    if not trusted or not _is_trusted(peer, trusted):
        return peer
    for candidate in reversed(meta.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        candidate = candidate.strip()  # noqa: PLW2901
        if not candidate:
            continue
        if not _is_address(candidate):
            return peer
        peer = candidate
        if not _is_trusted(candidate, trusted):
            break
    return peer


def is_from_trusted_proxy(meta: dict[str, Any], trusted: tuple[Network, ...]) -> bool:
    """Whether the peer may speak for others in X-Forwarded-… headers."""
    return bool(trusted) and _is_trusted(meta.get("REMOTE_ADDR") or "", trusted)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_trusted(text: str, trusted: tuple[Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in trusted)
