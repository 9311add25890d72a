"""Requests to addresses that people have typed in: probes, webhooks, sources.

A name is resolved once, every address is judged, and the connection goes to an address that was judged: a name that
resolves to something else a moment later (DNS rebinding) gains nothing, and redirects are judged the same way, since it
happens where the connection is made. TLS and the Host header keep the name.
"""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore
import httpx

from opencrane.addresses import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata services of clouds that are not link-local: Alibaba, Azure's wire server, Oracle, AWS by IPv6.
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class RefusedAddressError(httpx.ConnectError):
    """Nothing that the name stands for may be connected to; the sentence says why, and is fit for callers."""


def refusal(address: Address, allowed: Iterable[Network] = ()) -> str:
    """Why an address may not be connected to, in a word or two; empty when it may.

    Args:
        allowed: networks that may be reached whatever they are.
    """
    if any(address in network for network in allowed):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return refusal(inner, allowed)
    if any(address in network for network in _METADATA):
        return "a metadata service"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local, where metadata services live"
    if address.is_multicast:
        return "multicast"
    if address.is_unspecified or (address.version == 4 and address in ipaddress.ip_network("0.0.0.0/8")):
        return "unspecified"
    if str(address) == "255.255.255.255":
        return "broadcast"
    return ""


def judged(host: str, answers: Sequence[str], allowed: Iterable[Network] = ()) -> list[str]:
    """Those of a name's addresses that may be connected to, in their order.

    Raises:
        RefusedAddressError: there is none.
    """
    allowed = tuple(allowed)
    reasons: dict[str, None] = {}
    good: dict[str, None] = {}
    for text in answers:
        address = ipaddress.ip_address(text.partition("%")[0])
        why = refusal(address, allowed)
        if why:
            reasons[why] = None
        else:
            good[str(address)] = None
    if not good:
        why = " and ".join(reasons) or "nothing"
        raise RefusedAddressError(f"{host} is {why}, which may not be connected to.")
    return list(good)


def addresses_of(found: Iterable[Any]) -> list[str]:
    """The addresses in what getaddrinfo gave."""
    return [str(entry[4][0]) for entry in found]


class GuardedBackend(httpcore.SyncBackend):
    """Connects to judged addresses only."""

    def __init__(self, allowed: Iterable[Network]) -> None:
        super().__init__()
        self._allowed = tuple(allowed)

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from exc
        failure: Exception | None = None
        for address in judged(host, addresses_of(found), self._allowed):
            try:
                return super().connect_tcp(address, port, *args, **kwargs)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        assert failure is not None  # noqa: S101 - judged gives at least one address
        raise failure

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("no sockets of this host")


def guarded_client(allowed: Iterable[Network] = (), *, timeout_seconds: float = 5.0) -> httpx.Client:
    """A client that judges every address before it connects. It follows no redirect and uses no proxy.

    Raises, when used:
        RefusedAddressError: an httpx.ConnectError.
    """
    transport = httpx.HTTPTransport(trust_env=False)
    # httpx has no way to hand over a network backend; httpcore's pool takes one.
    transport._pool = httpcore.ConnectionPool(
        ssl_context=httpx.create_ssl_context(trust_env=False), network_backend=GuardedBackend(allowed)
    )
    return httpx.Client(transport=transport, timeout=timeout_seconds, trust_env=False, follow_redirects=False)
