"""Which processes make up the system, in what order they start, and the environment they get."""

import base64
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from devstack import postgres, sessions, valkey
from devstack.folder import DataFolder, loopback
from devstack.guard import Guard
from devstack.output import Output
from devstack.supervisor import Service, Supervisor

ROOT = Path(__file__).resolve().parent.parent
CLUSTER_NAMESPACE = "opencrane"
AUDIT_LOG = "audit.log"
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# Set for every process of a stack, to the data folder.
RUN_MARKER = "OPENCRANE_DEV_DATA"
# Applications together, the newest first; then what they need, one by one.
STOP_ORDER = (("operator", "projector", "beat", "jobs", "worker"), ("web",), ("cluster",), ("valkey",), ("postgres",))


def python(*arguments: str) -> list[str]:
    """This environment's Python with `arguments`."""
    return [sys.executable, *arguments]


class Stack:
    """The embedded services in one data folder, and the environment for whatever uses them."""

    def __init__(self, folder: DataFolder, supervisor: Supervisor, *, throw_away: bool = False) -> None:
        self.folder = folder
        self.supervisor = supervisor
        self.throw_away = throw_away
        self.env: dict[str, str] = os.environ | {RUN_MARKER: str(folder.path)}
        self.embedded: list[str] = []

    @property
    def is_all_embedded(self) -> bool:
        """Nothing was replaced by something of the caller's."""
        return len(self.embedded) == 3

    def start_services(self, *, replaceable: bool = True, cluster: bool = True) -> None:
        """Start PostgreSQL, Valkey and the development cluster, each unless the environment names one already.

        Raises:
            DevError: one does not start.
            Stopped: somebody asked to stop.
        """
        _end_leftovers(self.folder.path)
        given = self.env if replaceable else {}
        # The slowest of the three goes first and is waited for last.
        finish_cluster = None
        if cluster and not given.get("KUBECONFIG") and not (replaceable and in_cluster()):
            finish_cluster = self._start_cluster()
        else:
            self.folder.remove("kubeconfig")
        if not given.get("DATABASE_URL"):
            self.env["DATABASE_URL"] = postgres.start(self.supervisor, self.folder, throw_away=self.throw_away)
            self.embedded.append("postgres")
        if not given.get("REDIS_URL"):
            self.env["REDIS_URL"] = valkey.start(self.supervisor, self.folder)
            self.embedded.append("valkey")
        if finish_cluster is not None:
            finish_cluster()
            self.embedded.append("cluster")

    def _start_cluster(self) -> Callable[[], None]:
        """Start the development cluster. Returns what waits for it and makes it known."""
        data = self.folder.path / "cluster"
        data.mkdir(mode=0o700, exist_ok=True)
        host, port = loopback(), self.folder.port("cluster")
        # Tests want to know who asks for what.
        audit = ["--audit-log-path", str(data / AUDIT_LOG)] if self.throw_away else []
        service = Service(
            name="cluster",
            argv=python(
                "-m", "devstack.cluster", "--data", str(data), "--host", host, "--port", str(port),
                "--namespace", CLUSTER_NAMESPACE, *audit,
            ),
            env=self.env | {"PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
            ready=lambda: (data / "kubeconfig").exists() and _listens(host, port),
        )  # fmt: skip
        self.supervisor.start(service)

        def finish() -> None:
            self.supervisor.wait_ready("cluster")
            kubeconfig = self.folder.write_private("kubeconfig", (data / "kubeconfig").read_text(encoding="utf-8"))
            self.env["KUBECONFIG"] = str(kubeconfig)
            self.env.pop("NAMESPACE", None)  # The kubeconfig's context names it.

        return finish

    def settings(self, *, hosts: tuple[str, ...] = ()) -> dict[str, str]:
        """The environment of the product's processes; what the caller has set stays."""
        kept = self.folder.secrets
        defaults = {
            "OPENCRANE_SECRET_KEY": kept.secret_key,
            "OPENCRANE_ENCRYPTION_KEYS": kept.encryption_key,
            "OPENCRANE_API_TOKEN": kept.api_token,
            "OPENCRANE_ENVIRONMENT": "development",
            "OPENCRANE_LOG_FORMAT": "console",
            "OPENCRANE_WEB_THREADS": "16",
            "INGRESS_DOMAIN": "opencrane.localhost",
            "PYTHONUNBUFFERED": "1",
        }
        env = dict(self.env)
        for name, value in defaults.items():
            if not env.get(name, "").strip():
                env[name] = value
        allowed = dict.fromkeys([*env.get("OPENCRANE_ALLOWED_HOSTS", "").split(","), *hosts, "localhost"])
        allowed |= dict.fromkeys(["127.0.0.1", "[::1]"])
        env["OPENCRANE_ALLOWED_HOSTS"] = ",".join(host.strip() for host in allowed if host.strip())
        return env

    def write_environment(self, env: Mapping[str, str]) -> Path:
        """Write `env` in the data folder for shells: `. .opencrane/env`."""
        names = [name for name in env if name.startswith("OPENCRANE_")] + ["DATABASE_URL", "REDIS_URL", "KUBECONFIG"]
        return self.folder.write_environment({name: env[name] for name in names if name in env})


@contextlib.contextmanager
def supervised(data: Path, *, remove: bool = False) -> Iterator[tuple[DataFolder, Supervisor]]:
    """An opened data folder and a supervisor for it. Stops everything at the end, however it comes.

    `remove`: the folder is deleted then, even after a `kill -9` of this process.
    """
    folder = DataFolder(data)
    output = Output()
    guard = Guard(inherit=[folder.cleanup_fd])
    supervisor = Supervisor(output, guard)
    if folder.sockets_are_outside:
        guard.remove_at_end(str(folder.sockets))
    if remove:
        guard.remove_at_end(str(folder.path))
    supervisor.listen_for_signals()
    try:
        yield folder, supervisor
    finally:
        supervisor.stop.set()
        supervisor.stop_all(STOP_ORDER)
        guard.close()
        output.close()


def in_cluster() -> bool:
    """Whether this runs in a pod that has a ServiceAccount."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and SERVICE_ACCOUNT_TOKEN.exists()


def throw_away_environment() -> dict[str, str]:
    """Settings that let Django load when no service runs: for linters and the OpenAPI document."""
    return {
        "DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/nothing",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "OPENCRANE_DATABASE_POOL": "0",
        "OPENCRANE_SECRET_KEY": secrets.token_urlsafe(50),
        "OPENCRANE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "OPENCRANE_API_TOKEN": secrets.token_hex(24),
    }


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _end_leftovers(data: Path) -> None:
    """End what an earlier run left that nobody could end: its supervisor and its guard were both killed."""
    for session in sessions.left_by(str(data), f"{RUN_MARKER}={data}") - {os.getsid(0)}:
        sessions.send(session, signal.SIGINT)  # for PostgreSQL "fast", for Valkey the same as SIGTERM
        sessions.end(session, grace_seconds=10)
