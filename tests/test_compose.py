"""docker-compose.yml and the Dockerfile, without a container engine: their form, and every command in them, run.

Not run: the image of LiteLLM, and that of the registry, of which Debian's program takes the configuration instead.

Commands run as processes of this machine, in a folder that holds what the Dockerfile copies, with the environment of
the compose file. Only addresses, ports and the folders of secrets and volumes are put in other places.
"""

import contextlib
import json
import os
import re
import shutil
import signal
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
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg
import pytest
import yaml
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader

from cluster.client import APPLY, MERGE_PATCH, cluster_client
from cluster.resources import ACCESS_POLICIES, CLUSTER_TENANTS, LEASES, OPERATOR, SERVICE_ACCOUNTS, TENANTS
from devstack.folder import free_port
from devstack.postgres import SUPERUSER
from devstack.stack import AUDIT_LOG, RUN_MARKER
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


def test_nothing_is_privileged_and_only_this_machine_reaches_what_is_published() -> None:
    services = compose()["services"]
    for service in services.values():
        assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"web", "litellm"}
    assert all(resolved(port, {}).startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_who_shares_a_network_has_business_with_each_other() -> None:
    whole = compose()
    assert all(network == {"internal": True} for network in whole["networks"].values())
    members: dict[str, set[str]] = {}
    for name, service in whole["services"].items():
        for network in service["networks"]:
            members.setdefault(network, set()).add(name)
    ours = set(OURS)
    assert members["data"] == ours | {"postgres", "valkey"}
    assert members["store"] == ours | {"registry"}, "the registry asks nobody who they are"
    assert members["models"] == {"postgres", "litellm", "litellm-database"}
    assert members["default"] == ours | {"litellm"}


def test_what_comes_along_only_when_asked_for() -> None:
    services = compose()["services"]
    optional = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert optional == {"registry": ["registry"], "litellm": ["litellm"], "litellm-database": ["litellm"]}
    for name in OURS:
        assert not set(optional) & set(services[name].get("depends_on", {})), name
    for service in services.values():
        name, _, tag = service["image"].rpartition(":")
        assert name == "${OPENCRANE_IMAGE" or re.search(r"\d", tag), service["image"]
    # The version whose API OpenCrane follows.
    (version,) = re.findall(r"proxy API of LiteLLM (\S+)", (ROOT / "docs" / "money.md").read_text(encoding="utf-8"))
    assert services["litellm"]["image"].endswith(f":v{version}")
    # What the head of the file says to set is set by somebody.
    shown = dict(re.findall(r"^#   ([A-Z_]+)=(\S+)", COMPOSE.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(shown["COMPOSE_PROFILES"].split(",")) == {"registry", "litellm"}
    assert set(shown) - {"COMPOSE_PROFILES"} <= set(services["web"]["environment"])
    for name in ("SKILL_OCI_REGISTRY_URL", "LITELLM_ENDPOINT"):
        url = urlsplit(shown[name])
        assert url.hostname in optional
        assert str(url.port) in json.dumps(services[url.hostname]["healthcheck"])
    assert Path(urlsplit(shown["LITELLM_MASTER_KEY"]).path).name in services["web"]["secrets"]


def test_litellm_gets_a_database_of_its_own(tmp_path: Path) -> None:
    service = compose()["services"]["litellm-database"]
    (config,) = service["configs"]
    script = ROOT / compose()["configs"][config["source"]]["file"]
    shell, path, *files = service["command"]
    assert (shell, path) == ("sh", config["target"])
    assert [Path(file).name for file in files] == ["postgres_password", "litellm_database_password"]
    kept = Path(os.environ.get(RUN_MARKER, "/nowhere")) / "secrets.json"
    if not kept.exists():
        pytest.skip("the administrator's password of this PostgreSQL is not known")
    (tmp_path / "admin").write_text(json.loads(kept.read_text(encoding="utf-8"))["postgres_password"])
    (host,) = parse_qs(urlsplit(os.environ["DATABASE_URL"]).query)["host"]
    env = {"PATH": os.defpath, "PGHOST": host, "PGUSER": SUPERUSER, "PGDATABASE": "postgres"}
    # Again, with another password: what is there stays.
    for password in ("first", 'it\'s "another"'):
        (tmp_path / "role").write_text(password)
        command = [shell, str(script), str(tmp_path / "admin"), str(tmp_path / "role")]
        subprocess.run(command, env=env, check=True, capture_output=True)
        with psycopg.connect(host=host, user="litellm", dbname="litellm", password=password) as role:
            role.execute("CREATE TABLE IF NOT EXISTS spend ()")
            assert role.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'litellm'").fetchone() == (False,)


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="no docker-registry here")
def test_the_registry_takes_its_configuration(tmp_path: Path) -> None:
    service = compose()["services"]["registry"]
    (config,) = service["configs"]
    text = (ROOT / compose()["configs"][config["source"]]["file"]).read_text(encoding="utf-8")
    (volume,) = service["volumes"]
    port, place = free_port("127.0.0.1"), volume.partition(":")[2]
    assert f"rootdirectory: {place}\n" in text
    file = tmp_path / "registry.yml"
    file.write_text(text.replace(place, str(tmp_path)).replace("0.0.0.0:5000", f"127.0.0.1:{port}"))
    verb, path = service["command"]
    assert path == config["target"]
    process = subprocess.Popen(["docker-registry", verb, str(file)], stderr=subprocess.DEVNULL)
    try:
        (url,) = re.findall(r"http://\S+/v2/", service["healthcheck"]["test"][-1])
        url = url.replace("5000", str(port))
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                    assert answer.status == 200
                    break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


def test_secrets_are_files_and_each_is_mounted_where_it_is_named() -> None:
    whole = compose()
    for name, service in whole["services"].items():
        named = {
            Path(match).name
            for match in re.findall(
                r"/run/secrets/\w+", json.dumps([service.get(k) for k in ("command", "entrypoint", "environment")])
            )
        }
        assert named <= set(service.get("secrets", [])), name
        assert set(service.get("secrets", [])) <= set(whole["secrets"]), name
    text = COMPOSE.read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|secret_key|token):\s+[^\s/f$]", text), "a secret's value stands in the file"


def test_every_process_of_the_development_stack_is_there() -> None:
    from devstack.stack import STOP_ORDER

    names = {name for group in STOP_ORDER for name in group} - {"cluster"}
    always = {name for name, service in compose()["services"].items() if "profiles" not in service}
    assert always == names | {"migrate"}


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


# Indexes that are made concurrently refuse to be in a transaction, even on paper.
@pytest.mark.django_db(transaction=True)
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
    make_namespace(namespace)
    system = Composed(tmp_path_factory.mktemp("compose"), database_url, namespace)
    system.install_roles()
    yield system
    for service in list(system.processes):
        system.stop(service, signal.SIGKILL)
    client.request("DELETE", TENANTS.path(namespace))


@pytest.mark.stack
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
        for service in ("worker", "jobs", "beat", "projector"):
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

    def test_each_process_may_what_it_asks_for_and_no_more(self, composed: Composed) -> None:
        """Each runs as its own ServiceAccount, with the roles of deploy/kubernetes."""
        log = Path(os.environ["KUBECONFIG"]).parent / "cluster" / AUDIT_LOG
        if not log.exists():
            pytest.skip("this cluster keeps no audit log where it could be read")
        composed.need("web", "worker", "jobs", "beat", "projector", "operator")
        everything_that_reaches_the_cluster(composed)
        asked, refused = asked_by(composed, log)
        assert not refused
        assert set(asked) == {"migrate", "web", "worker", "jobs", "projector", "operator"}
        allowed = {service: set(kubernetes.rights(f"opencrane-{service}")) for service in asked}
        assert not {right for service, wanted in asked.items() for right in wanted - allowed[service]}
        unused = {service: allowed[service] - wanted for service, wanted in asked.items()}
        assert {service: rights for service, rights in unused.items() if rights} == NOT_ASKED_FOR_HERE

    def test_everything_stops_when_asked(self, composed: Composed) -> None:
        composed.need("operator", "projector", "beat", "jobs", "worker", "web", "valkey")
        for service in ("operator", "projector", "beat", "jobs", "worker", "web", "valkey"):
            began = time.monotonic()
            status = composed.stop(service)
            assert status in {0, -signal.SIGTERM}, f"{service}: {status}"
            assert time.monotonic() - began < 25, service


# --- Rights ----------------------------------------------------------------------------------------------------------


def rights(**verbs: str) -> set[kubernetes.Right]:
    return {kubernetes.Right(name, verb) for name, listed in verbs.items() for verb in listed.split()}


# What processes ask for where this test does not go: rare turns, and what the development cluster lacks.
NOT_ASKED_FOR_HERE: dict[str, set[kubernetes.Right]] = {
    # The definitions are there already.
    "migrate": rights(**{"customresourcedefinitions.apiextensions.k8s.io": "create"}),
    # A person's session, for the token; and the other kind of issuer.
    "web": rights(**{"serviceaccounts/token": "create", "issuers.cert-manager.io": "get"}),
    # A tenant that is let go of, the other kind of issuer, and a metrics API.
    "jobs": rights(
        **{
            "tenants.opencrane.io": "patch",
            "issuers.cert-manager.io": "get create patch",
            "nodes": "list",
            "nodes.metrics.k8s.io": "list",
        }
    ),
    # Cilium, an object that turns up while it is made, a tenant that is gone, and an admission plugin that looks at
    # owner references.
    "operator": rights(
        **{
            "ciliumnetworkpolicies.cilium.io": "list watch create patch delete",
            "persistentvolumeclaims": "get",
            "secrets": "get",
            "tenants.opencrane.io": "get",
            "tenants.opencrane.io/finalizers": "update",
        }
    ),
}


def asked_by(composed: Composed, log: Path) -> tuple[dict[str, set[kubernetes.Right]], list[str]]:
    """What each process has asked the API server for, and what it was refused."""
    asked: dict[str, set[kubernetes.Right]] = {}
    refused = []
    prefix = f"system:serviceaccount:{composed.namespace}-system:opencrane-"
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        user = event["user"]["username"]
        if not user.startswith(prefix):
            continue
        about, code, verb = event["objectRef"], event["responseStatus"]["code"], event["verb"]
        name = f"{about['resource']}.{about['apiGroup']}" if "apiGroup" in about else about["resource"]
        resource = f"{name}/{about['subresource']}" if "subresource" in about else name
        # An apply that makes an object asks for both.
        verbs = (verb, "create") if (verb, code) == ("patch", 201) else (verb,)
        asked.setdefault(user.removeprefix(prefix), set()).update(kubernetes.Right(resource, each) for each in verbs)
        if code == 403:
            refused.append(f"{user} {verb} {resource}")
    return asked, refused


def everything_that_reaches_the_cluster(composed: Composed) -> None:
    """What people do in a year, in seconds."""

    def do(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        code, answer = composed.request(method, f"/api/v1{path}", body)
        assert code == status, f"{method} {path}: {code} {answer}"
        return answer

    def running(name: str) -> None:
        composed.wait("operator", lambda: do("GET", f"/tenants/{name}")["phase"] == "Running")

    client = cluster_client()
    customer = f"{composed.namespace[-20:]}-acme".strip("-")
    person = {"displayName": "Anna", "email": "anna@example.com", "team": "red"}
    do("POST", "/policies", {"name": "closed", "tenantSelector": {"matchTeam": "red"}, "domains": ["a.example"]}, 201)
    do("PUT", "/policies/closed", {"description": "For red."})
    place = {"isolationTier": "shared", "compute": {"mode": "shared"}, "resources": {"quota": {"pods": 5}}}

    def placed() -> None:
        body = {"name": customer, "displayName": "Acme", **place}
        # 409 while the place of the one before is cleared away.
        composed.wait("jobs", lambda: composed.request("POST", "/api/v1/cluster-tenants", body)[0] == 201)
        composed.wait("jobs", lambda: do("GET", f"/cluster-tenants/{customer}")["status"]["phase"] == "ready")

    placed()
    do("PUT", f"/cluster-tenants/{customer}", {"displayName": "Acme AG"})
    do("POST", "/tenants", {"name": "anna", **person}, 201)
    do("POST", "/tenants", {"name": "berta", **person, "clusterTenantRef": customer}, 201)
    running("anna")
    running("berta")
    do("POST", "/tenants/anna/suspend")
    composed.wait("operator", lambda: do("GET", "/tenants/anna")["phase"] == "Suspended")
    do("POST", "/tenants/anna/resume")
    running("anna")
    token = composed.token("openclaw-anna", composed.namespace, "control-plane")
    assert composed.request("GET", "/api/internal/contract/anna", token=token)[0] == 200
    do(
        "PUT",
        "/platform/dns",
        {
            "provider": "cloudflare",
            "zone": "a.example",
            "email": "a@a.example",
            "apiToken": "t" * 20,
            "issuerName": composed.namespace,
        },
    )
    assert do("GET", f"/platform/dns?issuerName={composed.namespace}")["configured"] is True
    do("PUT", "/providers/keys/openai", {"apiKey": "sk-" + "t" * 20})
    do("POST", "/tenants/anna/sync")
    for resource, name, where, field in (
        (TENANTS, "anna", "tenants", "team"),
        (ACCESS_POLICIES, "closed", "policies", "description"),
        (CLUSTER_TENANTS, customer, "cluster-tenants", "displayName"),
    ):
        path = resource.path(composed.namespace, name)
        client.request("PATCH", path, body={"spec": {field: "blue"}}, content_type=MERGE_PATCH)
        assert do("GET", f"/{where}/drift")["mismatches"][0]["fields"] == [field]
        do("POST", f"/{where}/repair?dryRun=false")
    composed.wait("beat", lambda: "opencrane_definition_outdated{" in composed.metrics())

    def is_renewed() -> bool:
        lease = (client.get(LEASES, OPERATOR, namespace=composed.namespace) or {})["spec"]
        return bool(lease["renewTime"] != lease["acquireTime"])

    composed.wait("operator", is_renewed)
    do("DELETE", "/tenants/berta?purge=true")
    do("DELETE", "/tenants/anna")
    (left,) = [each for each in do("GET", "/retained-data") if each["tenant"] == "anna"]
    do("DELETE", f"/retained-data/{left['id']}")
    do("DELETE", f"/cluster-tenants/{customer}")
    placed()
    do("DELETE", f"/cluster-tenants/{customer}?purge=true")
    do("DELETE", "/policies/closed")
