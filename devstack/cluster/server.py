"""The process: a data folder, a port that stays the same, and an HTTPS server on it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from devstack.cluster.api import Api
from devstack.cluster.audit import AuditLog
from devstack.cluster.controllers import DEFINITIONS, NODE, Controllers
from devstack.cluster.folder import DataFolder, write_private
from devstack.cluster.kinds import Registry, issuer_definitions
from devstack.cluster.store import Store
from devstack.cluster.tokens import Tokens
from devstack.cluster.writes import Options, Writer

KEEP_ALIVE_SECONDS = 180
STOP_SECONDS = 3
LINGER_SECONDS = 0.5
NOTICE = (
    "It is a stand-in for trying things out, never for production: no containers run, and one token may do everything."
)

# All of these are required, and the official client refuses a node that lacks one.
_NODE_INFO = ("machineID", "systemUUID", "bootID", "kernelVersion", "containerRuntimeVersion", "kubeProxyVersion")
_NODE_FACTS = {
    "kubeletVersion": "v1.32.0",
    "osImage": "development cluster",
    "operatingSystem": "linux",
    "architecture": "amd64",
}

log = logging.getLogger("devstack.cluster")


class StartError(Exception):
    """Why the cluster does not start, as one sentence."""


class _Server(uvicorn.Server):
    """uvicorn, with a word when it serves and watches that end when it stops."""

    def __init__(self, config: uvicorn.Config, api: Api, url: str) -> None:
        super().__init__(config)
        self._api = api
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"development cluster ready: {self._url}", flush=True)
            print(NOTICE, file=sys.stderr, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.stop_watches()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._abort_connections)
        await super().shutdown(sockets)

    def _abort_connections(self) -> None:
        """End connections whose other end does not answer the closing of TLS."""
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn has it, but a stop that was asked for is no death by signal."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def serve(
    folder: DataFolder, host: str, port: int, namespace: str, history: int, audit_log: Path | None = None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        host: the address to listen on.
        port: 0 for the one used before, or at first a free one.
        namespace: made at first start, and the default of the kubeconfig.
        history: how many changes of each kind a watch can go back.
        audit_log: where every request is noted, if anywhere.

    Raises:
        StartError: the port cannot be had.
    """
    sock = _listen(folder, host, port)
    port = sock.getsockname()[1]
    # Nobody can connect to "any address"; from here this one always works.
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    url = f"https://{f'[{reached}]' if ':' in reached else reached}:{port}"
    if not folder.has_certificates(host):
        from devstack.cluster.certs import make_certificates

        make_certificates(folder, host)
    # Loading makes objects that stay: collecting garbage meanwhile, or ever looking at them again, is time lost.
    gc.disable()
    store = Store(folder.objects, history)
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    gc.enable()
    try:
        registry = Registry()
        for entry in store.shelf(DEFINITIONS).slice(None, None):
            try:
                registry.define(entry.load())
            except Exception:
                log.exception("the definition %s is stored but cannot be served", entry.name)
        tokens = Tokens(folder, store)
        api = Api(store, registry, tokens, AuditLog(audit_log))
        api.address = url.removeprefix("https://")
        folder.write_kubeconfig(url, tokens.admin_token, namespace)
        config = uvicorn.Config(
            api,
            log_level="error",
            access_log=False,
            lifespan="off",
            loop="uvloop",
            http="httptools",
            ws="none",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            backlog=1024,
            ssl_certfile=str(folder.server),
            ssl_keyfile=str(folder.server_key),
        )
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(_Server(config, api, url), sock, store, registry, api.writer, namespace))
    finally:
        store.close()


async def _run(
    server: _Server, sock: socket.socket, store: Store, registry: Registry, writer: Writer, namespace: str
) -> None:
    controllers = Controllers(store, registry, writer)
    _furnish(store, registry, writer, namespace)
    controllers.look_at_everything()
    task = asyncio.create_task(controllers.run())
    try:
        await server.serve(sockets=[sock])
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _listen(folder: DataFolder, host: str, port: int) -> socket.socket:
    memory = folder.port
    remembered = port == 0 and memory.exists()
    if remembered:
        port = int(memory.read_text())
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as exc:
        raise StartError(f"The address {host} cannot be resolved: {exc.strerror}.") from exc
    sock = socket.socket(info[0], socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(info[4])
        sock.listen(1024)
    except OSError as exc:
        sock.close()
        again = (
            f" It was used before and kubeconfigs name it; end what holds it, or remove {memory}." if remembered else ""
        )
        raise StartError(f"Port {port} on {host} cannot be had: {exc.strerror}.{again}") from exc
    sock.setblocking(False)
    write_private(memory, str(sock.getsockname()[1]).encode())
    return sock


def _furnish(store: Store, registry: Registry, writer: Writer, namespace: str) -> None:
    """What a cluster has from the start; each piece is made when it is missing."""
    options = Options(manager="devstack", validation="Ignore")

    def ensure(storage: str, body: dict[str, Any]) -> None:
        resource = registry.by_storage(storage)
        if resource is not None and store.get(storage, "", body["metadata"]["name"]) is None:
            writer.create(resource, "", body, options)

    # cert-manager is not here, but what it would read has to have a place.
    for name in ("default", "kube-system", "cert-manager", namespace):
        ensure("namespaces", {"metadata": {"name": name}})
    for definition in issuer_definitions():
        ensure(DEFINITIONS, orjson.loads(orjson.dumps(definition)))
    if store.get("nodes", "", NODE) is None:
        labels = {
            "kubernetes.io/hostname": NODE,
            "kubernetes.io/os": "linux",
            "node-role.kubernetes.io/control-plane": "",
        }
        ensure("nodes", {"metadata": {"name": NODE, "labels": labels}, "spec": {}})
        capacity = {"cpu": "8", "memory": "32Gi", "pods": "110"}
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [{"type": "Hostname", "address": NODE}],
            "nodeInfo": {**dict.fromkeys(_NODE_INFO, ""), **_NODE_FACTS},
        }
        nodes = registry.by_storage("nodes")
        if nodes is not None:
            writer.patch(nodes, "", NODE, {"status": status}, "merge", "status", options)
