"""A small HTTP/1.1 client that keeps its connection and costs little beside what it measures.

It knows what this server sends: complete answers with a Content-Length. One thread serves any number of connections,
because a thread for each would mostly measure how they take turns.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; `head` is the status line and the headers as they came."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """A header's value, or empty."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.lower().encode():
                return value.strip().decode("latin-1")
        return ""


@dataclass
class Samples:
    """What one run of requests took. `seconds` is the time of each, `wall` of all together."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    size: int = 0

    def add(self, seconds: float, status: int, size: int) -> None:
        self.seconds.append(seconds)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.size = size

    @property
    def count(self) -> int:
        return len(self.seconds)

    @property
    def median(self) -> float:
        return percentile(self.seconds, 50)

    @property
    def p95(self) -> float:
        return percentile(self.seconds, 95)

    @property
    def rate(self) -> float:
        return self.count / self.wall if self.wall else 0.0


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile."""
    if not values:
        return float("nan")
    ranked = sorted(values)
    return ranked[max(0, min(len(ranked) - 1, round(percent / 100 * len(ranked) + 0.5) - 1))]


class Target:
    """Where requests go and what they carry."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "127.0.0.1", parts.port or 80)
        host = f"[{self.address[0]}]" if ":" in self.address[0] else self.address[0]
        fixed = {"Host": f"{host}:{self.address[1]}", "Accept": "*/*"} | (headers or {})
        self._head = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())

    def message(self, method: str, path: str, body: object = None) -> bytes:
        """The bytes of a request."""
        payload = b"" if body is None else orjson.dumps(body)
        length = f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n" if payload else ""
        return f"{method} {path} HTTP/1.1\r\n{self._head}{length}\r\n".encode() + payload

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address, timeout=TIMEOUT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


class _Incoming:
    """Collects one response from the pieces in which it comes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._complete_at = 0

    def feed(self, piece: bytes) -> Answer | None:
        if not piece:
            raise ConnectionError("the server closed the connection")
        self._data += piece
        if not self._complete_at:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = bytes(self._data[:end]).lower()
            start = head.find(b"\r\ncontent-length:")
            if start < 0 and b"\r\ntransfer-encoding:" in head:
                raise ValueError("this client reads no chunked responses")
            length = int(head[start + 17 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            self._complete_at = end + 4 + length
        if len(self._data) < self._complete_at:
            return None
        end = self._data.find(b"\r\n\r\n")
        return Answer(int(self._data[9:12]), bytes(self._data[:end]), bytes(self._data[end + 4 : self._complete_at]))


def exchange(connection: socket.socket, message: bytes) -> Answer:
    """Send one request and wait for its response."""
    connection.sendall(message)
    incoming = _Incoming()
    while (answer := incoming.feed(connection.recv(262_144))) is None:
        pass
    return answer


def ask(target: Target, method: str, path: str, body: object = None) -> Answer:
    """One request on a connection of its own."""
    with target.connect() as connection:
        return exchange(connection, target.message(method, path, body))


def one_by_one(target: Target, messages: Iterator[bytes], *, seconds: float, most: int, least: int = 5) -> Samples:
    """Send requests one after another on one connection until the time or the number is reached."""
    samples = Samples()
    with target.connect() as connection:
        began = time.perf_counter()
        for message in messages:
            start = time.perf_counter()
            answer = exchange(connection, message)
            end = time.perf_counter()
            samples.add(end - start, answer.status, len(answer.body))
            if samples.count >= most or (end - began > seconds and samples.count >= least):
                break
        samples.wall = time.perf_counter() - began
    return samples


def at_once(target: Target, messages: Iterator[bytes], *, clients: int, seconds: float, most: int) -> Samples:
    """Keep `clients` connections busy, each with one request at a time."""
    samples = Samples()
    selector = selectors.DefaultSelector()
    connections = [target.connect() for _ in range(clients)]
    started: dict[int, tuple[float, _Incoming]] = {}
    sent = 0

    def send(connection: socket.socket) -> None:
        nonlocal sent
        message = next(messages, None)
        if message is None:
            return
        started[connection.fileno()] = (time.perf_counter(), _Incoming())
        connection.sendall(message)
        sent += 1

    try:
        began = time.perf_counter()
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
            send(connection)
        while started:
            for key, _ in selector.select(TIMEOUT_SECONDS):
                connection = key.fileobj  # type: ignore[assignment]
                start, incoming = started[connection.fileno()]
                answer = incoming.feed(connection.recv(262_144))
                if answer is None:
                    continue
                now = time.perf_counter()
                samples.add(now - start, answer.status, len(answer.body))
                del started[connection.fileno()]
                if now - began < seconds and sent < most:
                    send(connection)
        samples.wall = time.perf_counter() - began
    finally:
        selector.close()
        for connection in connections:
            connection.close()
    return samples


def timed(action: Callable[[], object], *, seconds: float, most: int, least: int = 5) -> Samples:
    """Call `action` again and again, as `one_by_one` does with requests."""
    samples = Samples()
    began = time.perf_counter()
    while samples.count < most and (time.perf_counter() - began < seconds or samples.count < least):
        start = time.perf_counter()
        action()
        samples.add(time.perf_counter() - start, 200, 0)
    samples.wall = time.perf_counter() - began
    return samples
