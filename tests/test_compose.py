"""docker-compose.yml and the Dockerfile, without a container engine: their form, and every command in them, run.

Not run: the image of LiteLLM, and that of the registry, of which Debian's program takes the configuration instead.
"""

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
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg
import pytest
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader

from cluster.client import cluster_client
from cluster.resources import TENANTS
from devstack.folder import free_port
from devstack.postgres import SUPERUSER
from devstack.stack import AUDIT_LOG, RUN_MARKER
from tests import kubernetes
from tests.cluster.pods import make_namespace
from tests.composed import COMPOSE, DOCKERFILE, OURS, ROOT, SCRIPTS, SECONDS, Composed, compose, copied, resolved
from tests.rights import NOT_ASKED_FOR_HERE, asked_by, everything_that_reaches_the_cluster

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
