"""docker-compose.yml without a container engine: its commands as processes of this machine.

They run in a folder that holds what the Dockerfile copies, with the environment of the compose file. Only addresses,
ports and the folders of secrets and volumes are put in other places.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cluster.client import APPLY, cluster_client
from cluster.resources import SERVICE_ACCOUNTS
from devstack.folder import free_port
from tests import kubernetes
from tests.cluster.pods import make_namespace

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
SCRIPTS = Path(sys.executable).parent
OURS = ("migrate", "web", "worker", "jobs", "beat", "projector", "operator")
SECONDS = 90.0
ANYWHERE = "0.0.0.0"  # noqa: S104 - what the file says, and this test does not do


def compose() -> dict[str, Any]:
    """The file, merged but with its variables as written."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def resolved(value: str, env: dict[str, str]) -> str:
    """A text of the compose file as compose would read it: `${NAME:-default}` and `$$`."""

    def variable(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else env.get(match["name"], "") or match["default"] or ""

    return re.sub(r"\$\$|\$\{(?P<name>[A-Z0-9_]+)(?::-(?P<default>[^}]*))?\}", variable, value)


def copied() -> list[str]:
    """What the Dockerfile copies from the checkout."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    return [line.split()[1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]


class Composed:
    """The compose file's commands as processes: where they run, and with what."""

    def __init__(self, folder: Path, database_url: str, namespace: str) -> None:
        self.folder = folder
        self.app = folder / "app"
        self.secrets = folder / "secrets"
        self.port = free_port("127.0.0.1")
        self.valkey_port = free_port("127.0.0.1")
        self.namespace = namespace
        self.file = compose()
        self.logs: dict[str, Path] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.done: set[str] = set()
        self._copy_application()
        self._make_secrets(database_url)

    def _copy_application(self) -> None:
        self.app.mkdir()
        for source in copied():
            target = self.app / source
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("tests", "__pycache__"))
            else:
                shutil.copy(ROOT / source, target)

    def _make_secrets(self, database_url: str) -> None:
        script = self.folder / "secrets.sh"
        shutil.copy(ROOT / "deploy" / "compose" / "secrets.sh", script)
        subprocess.run([str(script)], check=True, capture_output=True)
        password = (self.secrets / "valkey_conf").read_text().split()[1]
        self.replace("database_url", database_url)
        self.replace("redis_url", f"redis://:{password}@127.0.0.1:{self.valkey_port}/0")
        self.replace("kubeconfig", Path(os.environ["KUBECONFIG"]).read_text(encoding="utf-8"))

    def install_roles(self) -> None:
        """The roles of deploy/kubernetes, for the namespaces of this test."""
        text = "\n---\n".join(yaml.safe_dump(each) for each in kubernetes.documents("rbac/*.yaml"))
        text = text.replace(f"namespace: {kubernetes.TENANTS}\n", f"namespace: {self.namespace}\n")
        text = text.replace(f"namespace: {kubernetes.SYSTEM}\n", f"namespace: {self.namespace}-system\n")
        make_namespace(f"{self.namespace}-system")
        client = cluster_client()
        for each in yaml.safe_load_all(text):
            group = "/apis/rbac.authorization.k8s.io/v1" if "rbac" in each["apiVersion"] else "/api/v1"
            namespace = each["metadata"].get("namespace")
            where = f"/namespaces/{namespace}" if namespace else ""
            path = f"{group}{where}/{each['kind'].lower()}s/{each['metadata']['name']}"
            client.request("PATCH", path, query={"fieldManager": "test"}, body=each, content_type=APPLY)

    def kubeconfig(self, service: str) -> Path:
        """How a process reaches the cluster: as its own ServiceAccount, or, where it has none, as nobody."""
        path = self.folder / f"kubeconfig-{service}"
        if not path.exists():
            config = yaml.safe_load((self.secrets / "kubeconfig").read_text(encoding="utf-8"))
            account, token = f"opencrane-{service}", "nobody"
            if cluster_client().get(SERVICE_ACCOUNTS, account, namespace=f"{self.namespace}-system") is not None:
                token = self.token(account, f"{self.namespace}-system")
            for user in config["users"]:
                user["user"] = {"token": token}
            path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def token(self, account: str, namespace: str, *audiences: str) -> str:
        body = {"spec": {"audiences": list(audiences), "expirationSeconds": 3600}}
        _, answer = cluster_client().request("POST", SERVICE_ACCOUNTS.path(namespace, account, "token"), body=body)
        return str(answer["status"]["token"])

    def replace(self, name: str, content: str) -> None:
        (self.secrets / name).unlink(missing_ok=True)
        (self.secrets / name).write_text(content, encoding="utf-8")

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text(encoding="utf-8").strip()

    def env(self, service: str) -> dict[str, str]:
        """What a container of the service would have, and nothing of this machine's."""
        given = {"OPENCRANE_NAMESPACE": self.namespace, "INGRESS_DOMAIN": f"{self.namespace}.example.com"}
        wanted = self.file["services"][service].get("environment", {})
        fixed = {"PATH": f"{SCRIPTS}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
        named = {name: self.here(resolved(str(value), given), service) for name, value in wanted.items()}
        fixed |= {"DJANGO_SETTINGS_MODULE": "opencrane.settings", "PYTHONDONTWRITEBYTECODE": "1"}
        return fixed | named | {"KUBECONFIG": str(self.kubeconfig(service))}

    def here(self, text: str, service: str) -> str:
        """A text of the file with this test's folders: the secrets', and a /tmp for each container."""
        temporary = self.folder / f"tmp-{service}"
        temporary.mkdir(exist_ok=True)
        return text.replace("/tmp/", f"{temporary}/").replace("/run/secrets/", f"{self.secrets}/")  # noqa: S108

    def argv(self, service: str, words: list[str]) -> list[str]:
        """A command of the file with this test's addresses."""
        text = [self.here(resolved(word, {}), service) for word in words]
        text = [str(self.port) if word == "8000" else word for word in text]
        return [
            word.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace(ANYWHERE, "127.0.0.1") for word in text
        ]

    def command(self, service: str) -> list[str]:
        return self.argv(service, self.file["services"][service]["command"])

    def run(self, service: str) -> subprocess.CompletedProcess[str]:
        """Run a service's command to its end."""
        argv, env = self.command(service), self.env(service)
        return subprocess.run(argv, env=env, cwd=self.app, text=True, capture_output=True, timeout=SECONDS, check=False)

    def start(self, service: str, argv: list[str] | None = None, cwd: Path | None = None) -> None:
        self.logs[service] = self.folder / f"{service}.log"
        with self.logs[service].open("wb") as log:
            self.processes[service] = subprocess.Popen(
                argv or self.command(service),
                cwd=cwd or self.app,
                env=self.env(service),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, service: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop a service as compose does; returns its exit status."""
        process = self.processes.pop(service)
        process.send_signal(number)
        try:
            return process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def is_healthy(self, service: str) -> bool:
        """Run the service's own health check once."""
        kind, *words = self.file["services"][service]["healthcheck"]["test"]
        argv = self.argv(service, words) if kind == "CMD" else ["sh", "-c", self.here(resolved(words[0], {}), service)]
        checked = subprocess.run(
            argv, env=self.env(service), cwd=self.app, capture_output=True, timeout=60, check=False
        )
        return checked.returncode == 0

    def said(self, service: str, text: str) -> Callable[[], bool]:
        return lambda: text in self.logs[service].read_text(encoding="utf-8", errors="replace")

    def need(self, *services: str) -> None:
        """Have services running and ready, and before them what the file says they depend on."""
        for service in services:
            if service in self.processes or service in self.done:
                continue
            self.need(*(set(self.file["services"][service].get("depends_on", {})) - {"postgres"}))
            if service == "migrate":
                self.need("valkey")  # The file need not say so: nothing is sent to the broker yet.
                result = self.run(service)
                assert result.returncode == 0, result.stdout + result.stderr
                self.done.add(service)
                continue
            self.start(service, *(self.valkey() if service == "valkey" else ()))
            self.wait(service, self.readiness(service))

    def readiness(self, service: str) -> Callable[[], bool]:
        """What tells that a started service serves: its health check, or its first words."""
        words = {"valkey": "Ready to accept connections", "projector": "projecting tenants"}
        if service in words:
            return self.said(service, words[service])
        return lambda: self.is_healthy(service)

    def valkey(self) -> tuple[list[str], Path]:
        """The broker's command with the embedded program, and its data folder."""
        from devstack.valkey import binary

        data = self.folder / "valkey-data"
        data.mkdir(exist_ok=True)
        program, *options = self.command("valkey")
        assert program == "valkey-server"
        return [str(binary()), *options, "--port", str(self.valkey_port), "--bind", "127.0.0.1"], data

    def wait(self, service: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            log = self.logs[service].read_text(encoding="utf-8", errors="replace")
            assert self.processes[service].poll() is None, f"{service} ended:\n{log}"
            assert time.monotonic() < deadline, f"{service} is not ready:\n{log}"
            time.sleep(0.1)

    def request(self, method: str, path: str, body: Any = None, *, token: str = "") -> tuple[int, Any]:
        """A request to the web process with the API token, or another."""
        bearer = token or self.secret("api_token")
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=40) as response:  # noqa: S310
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as exc:
            return exc.code, json.loads(exc.read())

    def metrics(self) -> str:
        """What the web process tells Prometheus."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/metrics",
            headers={"Authorization": f"Bearer {self.secret('api_token')}"},
        )
        with urllib.request.urlopen(request, timeout=40) as response:  # noqa: S310
            return str(response.read(), "utf-8")
