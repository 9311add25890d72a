"""docker-compose.yml and the Dockerfile, without a container engine: their form, and every command in them, run.

Commands run as processes of this machine, in a folder that holds what the Dockerfile copies, with the environment of
the compose file. Only addresses, ports and the folders of secrets and volumes are put in other places.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import yaml
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader

from cluster.client import cluster_client
from cluster.resources import NAMESPACES, TENANTS

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


# --- Form ------------------------------------------------------------------------------------------------------------


def test_the_file_fits_the_compose_specification() -> None:
    checker = [str(SCRIPTS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    result = subprocess.run(checker, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", OURS)
def test_containers_have_no_more_rights_than_they_need(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "user" not in service, "the image's own user is the right one"


def test_nothing_is_privileged_and_only_web_is_reachable() -> None:
    services = compose()["services"]
    for service in services.values():
        assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    assert [name for name, service in services.items() if service.get("ports")] == ["web"]
    assert resolved(services["web"]["ports"][0], {}).startswith("127.0.0.1:")
    assert compose()["networks"]["data"] == {"internal": True}


def test_secrets_are_files_and_each_is_mounted_where_it_is_named() -> None:
    whole = compose()
    for name, service in whole["services"].items():
        named = {
            Path(match).name
            for match in re.findall(
                r"/run/secrets/\w+", json.dumps([service.get(k) for k in ("command", "environment")])
            )
        }
        assert named <= set(service.get("secrets", [])), name
        assert set(service.get("secrets", [])) <= set(whole["secrets"]), name
    text = COMPOSE.read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|secret_key|token):\s+[^\s/f$]", text), "a secret's value stands in the file"


def test_every_process_of_the_development_stack_is_there() -> None:
    from devstack.stack import STOP_ORDER

    names = {name for group in STOP_ORDER for name in group} - {"cluster"}
    assert set(compose()["services"]) == names | {"migrate"}


def test_the_image_is_not_root_and_copies_what_exists() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    final = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    # Nothing of the distribution but what workers run.
    assert re.findall(r"apt-get -qq install .*", text) == [
        "apt-get -qq install --yes --no-install-recommends git ca-certificates >/dev/null \\"
    ]
    for source in copied():
        assert (ROOT / source).exists(), source
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored, "what is not named stays out"
    assert {line[1:].rstrip("/") for line in ignored if line.startswith("!")} == set(copied())


def test_every_app_of_the_settings_is_in_the_image(settings: Any) -> None:
    own = {app.partition(".")[0] for app in settings.INSTALLED_APPS if (ROOT / app.partition(".")[0]).is_dir()}
    assert own <= set(copied())


def copied() -> list[str]:
    """What the Dockerfile copies from the checkout."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    return [line.split()[1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]


# --- What PostgreSQL 17 lacks ----------------------------------------------------------------------------------------

# What came with 18, and extensions, which a managed server may not have either.
_NEWER = re.compile(
    r"\buuidv[47]\s*\(|\buuid_extract|\bCREATE\s+EXTENSION|\bgin_trgm|\bWITHOUT\s+OVERLAPS|\bNOT\s+ENFORCED|\bcasefold\s*\("
    r"|GENERATED\s+ALWAYS\s+AS\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)(?!\s*STORED)|\)\s*VIRTUAL\b",
    re.IGNORECASE,
)


@pytest.mark.django_db
def test_no_migration_needs_what_postgresql_17_lacks() -> None:
    checked = 0
    for app, name in sorted(MigrationLoader(None).disk_migrations):
        out = StringIO()
        call_command("sqlmigrate", app, name, stdout=out, no_color=True)
        found = _NEWER.search(out.getvalue())
        assert found is None, f"{app} {name}: {found[0]}"
        checked += 1
    assert checked >= 10


def test_the_search_for_newer_features_finds_them() -> None:
    assert _NEWER.search("id uuid DEFAULT uuidv7()")
    assert _NEWER.search('"phase" text GENERATED ALWAYS AS (CASE WHEN (a OR b(c)) THEN d END) VIRTUAL')
    assert _NEWER.search('"phase" text GENERATED ALWAYS AS (lower(a))')
    assert not _NEWER.search('"phase" text GENERATED ALWAYS AS (CASE WHEN (a OR b(c)) THEN d END) STORED')


# --- Every command, for real -----------------------------------------------------------------------------------------


class Composed:
    """The compose file's commands as processes: where they run, and with what."""

    def __init__(self, folder: Path, database_url: str, namespace: str) -> None:
        self.folder = folder
        self.app = folder / "app"
        self.secrets = folder / "secrets"
        self.port = free_port()
        self.valkey_port = free_port()
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

    def replace(self, name: str, content: str) -> None:
        (self.secrets / name).unlink(missing_ok=True)
        (self.secrets / name).write_text(content, encoding="utf-8")

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text(encoding="utf-8").strip()

    def env(self, service: str) -> dict[str, str]:
        """What a container of the service would have, and nothing of this machine's."""
        given = {"OPENCRANE_NAMESPACE": self.namespace}
        wanted = self.file["services"][service].get("environment", {})
        fixed = {"PATH": f"{SCRIPTS}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
        named = {name: self.here(resolved(str(value), given), service) for name, value in wanted.items()}
        return fixed | {"DJANGO_SETTINGS_MODULE": "opencrane.settings", "PYTHONDONTWRITEBYTECODE": "1"} | named

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

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request to the web process with the API token."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.secret('api_token')}", "Content-Type": "application/json"},
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """An empty database on the test server."""
    url = os.environ["DATABASE_URL"]
    name = f"compose_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory, cluster_namespace: str, database_url: str) -> Iterator[Composed]:
    """The commands, none of them running, and a namespace for them."""
    client = cluster_client()
    namespace = f"{cluster_namespace}-compose"
    if client.get(NAMESPACES, namespace) is None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        client.request("POST", NAMESPACES.path(""), body=body)
    system = Composed(tmp_path_factory.mktemp("compose"), database_url, namespace)
    yield system
    for service in list(system.processes):
        system.stop(service, signal.SIGKILL)
    client.request("DELETE", TENANTS.path(namespace))


@pytest.mark.stack
@pytest.mark.xdist_group("compose")
class TestCommands:
    """In the order of the file's own dependencies; each test starts what it needs and is not there yet."""

    def test_secrets_are_made_once_and_closed_to_others(self, composed: Composed) -> None:
        before = {path.name: path.read_bytes() for path in composed.secrets.iterdir()}
        assert set(before) == set(composed.file["secrets"]), "the script makes every secret, the kubeconfig aside"
        subprocess.run([str(composed.folder / "secrets.sh")], check=True, capture_output=True)
        assert {path.name: path.read_bytes() for path in composed.secrets.iterdir()} == before
        assert stat.S_IMODE(composed.secrets.stat().st_mode) == 0o700
        assert stat.S_IMODE((composed.secrets / "kubeconfig").stat().st_mode) == 0o444

    def test_the_image_can_collect_its_static_files(self, composed: Composed) -> None:
        step = next(
            step for step in DOCKERFILE.read_text().replace("\\\n", " ").splitlines() if "collectstatic" in step
        )
        command = step.removeprefix("RUN ").replace("/opt/venv/bin/python", sys.executable)
        subprocess.run(
            ["sh", "-c", command], cwd=composed.app, env={"PATH": os.defpath}, check=True, capture_output=True
        )
        assert (composed.app / "staticfiles" / "admin").is_dir()

    def test_valkey_starts_as_written(self, composed: Composed) -> None:
        composed.need("valkey")
        import redis

        client = redis.Redis.from_url(composed.secret("redis_url"))
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.close()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=composed.valkey_port).ping()

    @pytest.mark.skipif(not (shutil.which("valkey-cli") or shutil.which("redis-cli")), reason="no valkey-cli here")
    def test_valkey_health_check(self, composed: Composed, tmp_path: Path) -> None:
        composed.need("valkey")
        tool = shutil.which("valkey-cli") or shutil.which("redis-cli")
        check = composed.file["services"]["valkey"]["healthcheck"]["test"][1]
        wrapper = tmp_path / "valkey-cli"
        wrapper.write_text(f'#!/bin/sh\nexec {tool} -p {composed.valkey_port} "$@"\n')
        wrapper.chmod(0o755)
        script = composed.here(resolved(check, {}), "valkey")
        for path, healthy in (("valkey_conf", True), ("api_token", False)):
            env = {"PATH": f"{tmp_path}:{os.defpath}"}
            command = ["sh", "-c", script.replace("valkey_conf", path)]
            assert (subprocess.run(command, env=env, check=False).returncode == 0) is healthy

    def test_postgres_answers_the_health_check(self, composed: Composed, database_url: str) -> None:
        from devstack.postgres import binaries

        kind, program, *options = composed.file["services"]["postgres"]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "pg_isready")
        host = dict(part.split("=") for part in urlsplit(database_url).query.split("&"))["host"].replace("%2F", "/")
        subprocess.run([str(binaries() / program), *options, "--host", host], check=True)

    def test_postgres_takes_the_options_as_written(self, composed: Composed) -> None:
        from devstack.postgres import binaries

        program, *options = composed.command("postgres")
        known = {option.partition("=")[0] for option in options if "=" in option}
        assert program == "postgres"
        listing = [str(binaries() / "postgres"), "--describe-config"]
        described = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
        assert known
        assert known <= {line.split("\t")[0] for line in described.splitlines()}

    def test_migrate_prepares_an_empty_database_and_can_run_again(self, composed: Composed) -> None:
        composed.need("valkey")
        for _ in range(2):
            result = composed.run("migrate")
            assert result.returncode == 0, result.stdout + result.stderr
            composed.done.add("migrate")
            for secret in ("api_token", "admin_password", "postgres_password"):
                assert composed.secret(secret) not in result.stdout + result.stderr
        assert "installed accesspolicies.opencrane.io" in result.stdout

    def test_web_is_healthy_and_ready(self, composed: Composed) -> None:
        composed.need("web")
        status, answer = composed.request("GET", "/readyz")
        assert (status, answer["status"]) == (200, "ready")
        assert composed.request("GET", "/api/v1/auth/me")[1]["role"] == "admin"

    def test_workers_and_beat_pass_their_health_check(self, composed: Composed) -> None:
        for service in ("worker", "jobs", "beat"):
            assert service in composed.processes or not composed.is_healthy(service)
            composed.need(service)
            assert composed.is_healthy(service)

    def test_beat_sends_its_tasks(self, composed: Composed) -> None:
        composed.need("web", "worker", "beat")
        # What workers have run is in the metrics; nothing but beat asks for a sweep.
        composed.wait(
            "beat", lambda: 'opencrane_task_runs_total{outcome="success",task="cluster.sweep"}' in composed.metrics()
        )

    def test_a_tenant_reaches_the_cluster_runs_there_and_its_status_comes_back(self, composed: Composed) -> None:
        composed.need("web", "worker", "projector", "operator")
        body = {"name": "composed", "displayName": "Composed", "email": "composed@example.com"}
        assert composed.request("POST", "/api/v1/tenants", body) == (201, {"name": "composed", "status": "created"})
        path = TENANTS.path(composed.namespace, "composed")
        assert cluster_client().request("GET", path)[1]["spec"]["email"] == body["email"]
        composed.wait("operator", lambda: composed.request("GET", "/api/v1/tenants/composed")[1]["phase"] == "Running")
        # Nobody would let go of it once the operator has ended.
        assert composed.request("DELETE", "/api/v1/tenants/composed")[0] == 200

    def test_repair_runs_in_the_jobs_worker(self, composed: Composed) -> None:
        composed.need("web", "jobs")
        status, report = composed.request("POST", "/api/v1/tenants/repair?dryRun=false")
        assert (status, report["mode"]) == (200, "apply")

    def test_everything_stops_when_asked(self, composed: Composed) -> None:
        composed.need("operator", "projector", "beat", "jobs", "worker", "web", "valkey")
        for service in ("operator", "projector", "beat", "jobs", "worker", "web", "valkey"):
            began = time.monotonic()
            status = composed.stop(service)
            assert status in {0, -signal.SIGTERM}, f"{service}: {status}"
            assert time.monotonic() - began < 25, service
