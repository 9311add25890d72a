"""`./dev up`: the whole system in the foreground."""

import argparse
import errno
import hashlib
import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from devstack.folder import DataFolder, in_url, loopback
from devstack.stack import ROOT, Stack, python, supervised
from devstack.supervisor import DevError, Service, Stopped, Supervisor

ADMIN = "admin"
READY_SECONDS = 90.0


@dataclass(frozen=True)
class Address:
    """Where the web process listens, and how to get there from this machine."""

    host: str  # as named by the caller
    ip: str
    port: int

    @property
    def is_wildcard(self) -> bool:
        return ip_address(self.ip).is_unspecified

    @property
    def reachable(self) -> str:
        """A host that leads there from here."""
        if self.is_wildcard:
            return "::1" if ":" in self.ip else "127.0.0.1"
        return self.host

    @property
    def url(self) -> str:
        return f"http://{in_url(self.reachable)}:{self.port}"

    @property
    def names(self) -> tuple[str, ...]:
        """What browsers may send as Host."""
        mine: tuple[str, ...] = (self.host, self.ip, self.reachable)
        if self.is_wildcard:
            mine += (socket.gethostname(), socket.getfqdn(), *_addresses_of_this_machine())
        return tuple(dict.fromkeys(in_url(name) for name in mine))


def _addresses_of_this_machine() -> list[str]:
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(entry[4][0]) for entry in found]


def listening_address(host: str | None, port: int) -> Address:
    """Check that the web process will be able to listen there.

    Raises:
        DevError: it will not; the message says why.
    """
    host = host or loopback()
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise DevError(f"{host} is no address or name that this machine knows; name another one with --host") from exc
    family, kind, _, _, where = found[0]
    ip = str(where[0])
    shown = f"{in_url(ip)}:{port}"
    try:
        with socket.socket(family, kind) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(where)
            attempt.listen(1)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise DevError(f"another program listens on {shown}; name another port with --port") from exc
        if exc.errno == errno.EACCES:
            raise DevError(f"this user may not listen on {shown}; name a port from 1024 with --port") from exc
        raise DevError(f"cannot listen on {shown} ({exc.strerror}); name another address with --host") from exc
    return Address(host=host.strip("[]"), ip=ip, port=port)


class Up:
    """One run of the whole system."""

    def __init__(self, folder: DataFolder, supervisor: Supervisor, address: Address) -> None:
        self.folder = folder
        self.supervisor = supervisor
        self.output = supervisor.output
        self.address = address
        self.stack = Stack(folder, supervisor)
        # Processes that are not to be started.
        self.without: set[str] = set()
        self.env: dict[str, str] = {}

    # --- Before the first request ----------------------------------------------------------------------------------

    def start_services(self, *, replaceable: bool = True) -> None:
        """Start what the product needs; `replaceable`: as far as the caller's environment does not name it."""
        self.stack.start_services(replaceable=replaceable)
        self.env = self.stack.settings(hosts=self.address.names)
        self.stack.write_environment(self.env)

    def prepare(self) -> None:
        """Bring database, cluster and static files up to this version of the code."""
        commands = [
            ["migrate", "--noinput"],
            ["install_crds"],
            ["bootstrap", "--admin-user", ADMIN, "--credentials", str(self.folder.path / "credentials.json")],
        ]
        static = self._static_files_to_make()
        if static:
            commands.append(["collectstatic", "--noinput"])
        self.output.line("dev", "preparing: " + ", ".join(command[0] for command in commands))
        self._manage(commands)
        if static:
            static.write_text(_fingerprint("*/static/**/*"), encoding="ascii")
        self.folder.write_private("prepared", self._preparation())

    def is_prepared(self) -> bool:
        """Whether the last run prepared the same databases with the same code, so that serving need not wait."""
        try:
            prepared = (self.folder.path / "prepared").read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return False
        return self.stack.is_all_embedded and prepared == self._preparation()

    def fill_in_demo(self) -> None:
        """Make the small company of `--demo`."""
        self.output.line("dev", "filling in the demo")
        self._manage([["demo"]])

    def _admin_password(self) -> str:
        return self.env.get("OPENCRANE_BOOTSTRAP_ADMIN_PASSWORD") or self.folder.secrets.admin_password

    def _preparation(self) -> str:
        return _fingerprint("*/migrations/*.py", "deploy/crds/*", "*/static/**/*")

    def _manage(self, commands: list[list[str]]) -> None:
        arguments = [word for command in commands for word in ("--", *command)][1:]
        env = self.env | {
            "DJANGO_SETTINGS_MODULE": "opencrane.settings",
            "OPENCRANE_BOOTSTRAP_ADMIN_PASSWORD": self._admin_password(),
        }
        began = time.monotonic()
        self.supervisor.run("prepare", python("-m", "devstack.prepare", *arguments), env=env, cwd=ROOT)
        self.output.line("dev", f"prepared in {time.monotonic() - began:.1f} s")

    def _static_files_to_make(self) -> Path | None:
        """The stamp to write once they are made; None when they are up to date or cannot be written."""
        target = ROOT / "staticfiles"
        stamp = target / ".stamp"
        try:
            if stamp.read_text(encoding="ascii") == _fingerprint("*/static/**/*"):
                return None
        except (OSError, UnicodeDecodeError):
            pass
        if not os.access(target if target.exists() else ROOT, os.W_OK):
            self.output.line("dev", f"{target} cannot be written: the console's styles may be missing or old")
            return None
        return stamp

    # --- Running ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Start what serves and works, and wait until /readyz is green; go on waiting when that takes long."""
        web, *others = self.services()
        self.supervisor.start(web)
        self.supervisor.wait_ready("web")
        # Python's imports keep the cores busy: the others come after what everybody waits for.
        for service in others:
            if service.name not in self.without:
                self.supervisor.start(service)
        complain_at = time.monotonic() + READY_SECONDS
        while (problem := self._problem()) is not None:
            if time.monotonic() > complain_at:
                self.output.line("dev", f"not ready yet: {problem}")
                complain_at = time.monotonic() + READY_SECONDS
            self.supervisor.pause(0.1)

    def services(self) -> list[Service]:
        """The processes of the product."""
        celery = ("-m", "celery", "--quiet", "--app", "opencrane")
        # Nobody looks at what these switch off: workers do not need to know of each other.
        worker = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")
        web = python(
            "-m", "granian", "--interface", "wsgi", "--host", self.address.ip, "--port", str(self.address.port),
            "--workers", "1", "--blocking-threads", self.env["OPENCRANE_WEB_THREADS"], "--no-ws",
            "--log-level", "warning", "opencrane.wsgi:application",
        )  # fmt: skip
        # Celery's advice against root is about pickles, which are not accepted; production is not root.
        quiet = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}
        # As in the Dockerfile: granian's allocator keeps what it may need again for ten seconds, unless told otherwise.
        frugal = {"_RJEM_MALLOC_CONF": "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0"}
        return [
            self._service("web", web, self._answers, noise=("Configuration allows spawning up to",), extra=frugal),
            self._service(
                "worker", python(*celery, "worker", "-n", "sync@%h", "-Q", "sync", "-c", "2", *worker), extra=quiet
            ),
            self._service(
                "jobs",
                python(*celery, "worker", "-n", "jobs@%h", "-Q", "default,probes,scans,pushes", "-c", "3", *worker),
                extra=quiet,
            ),
            self._service("beat", python(*celery, "beat", "-S", "celery.beat:Scheduler", "--loglevel", "WARNING")),
            self._service("projector", python("manage.py", "projector")),
            self._service("operator", python("manage.py", "operator")),
        ]

    def _service(
        self,
        name: str,
        argv: list[str],
        ready: Callable[[], bool] | None = None,
        *,
        extra: dict[str, str] | None = None,
        noise: tuple[str, ...] = (),
    ) -> Service:
        env = self.env | (extra or {})
        return Service(name=name, argv=argv, env=env, cwd=ROOT, ready=ready, noise=(*noise, "Warm shutdown"))

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address.reachable, self.address.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read(4000).decode("utf-8", "replace")
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            return self._get("/healthz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _problem(self) -> str | None:
        try:
            status, text = self._get("/readyz")
        except (OSError, http.client.HTTPException) as exc:
            return f"/readyz does not answer ({exc})"
        return None if status == 200 else f"/readyz says {status} {' '.join(text.split())}"

    def announce(self) -> None:
        """Write credentials.json and say where everything is; the secrets themselves only the first time."""
        path = self.folder.path / "credentials.json"
        first = self.folder.remember("announced")
        credentials = {
            "url": self.address.url,
            "token": _text_of_secret(self.env["OPENCRANE_API_TOKEN"]),
            "adminUser": ADMIN,
            "adminPassword": _text_of_secret(self._admin_password()),
        }
        self.folder.write_private("credentials.json", json.dumps(credentials, indent=2) + "\n")
        say = self.output.plain
        say("")
        say(f"  console   {self.address.url}/admin/")
        if first:
            say(f"            user {ADMIN}, password {credentials['adminPassword']}")
        say(f"  API       {self.address.url}/api/v1")
        if first:
            say(f"            token {credentials['token']}")
        if "cluster" in self.stack.embedded:
            say(f"  cluster   kubectl --kubeconfig {self.folder.path / 'kubeconfig'} get tenants")
            say("            a stand-in for trying things out; set KUBECONFIG to use a real one")
        say(f"  password and token {'will not be shown again; they ' * first}are in {path}")
        if not ip_address(self.address.ip).is_loopback:
            say(f"  WARNING   {self.address.host}: whoever can reach this machine can reach the console, without TLS")
        say("")
        say(f"ready: {self.address.url}")


def _text_of_secret(value: str) -> str:
    """A setting's text; settings of secrets may name a file instead."""
    if not value.startswith("file://"):
        return value
    path = unquote(urlsplit(value).path)
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise DevError(f"{path}, which a setting names, cannot be read: {exc}") from exc


def _fingerprint(*patterns: str) -> str:
    """Changes with the locked packages and with the matching files of the checkout."""
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes())
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()):
        found = path.stat()
        digest.update(f"{path.relative_to(ROOT)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="./dev up")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=ROOT / ".opencrane")
    parser.add_argument("--demo", action="store_true")
    arguments = parser.parse_args()
    try:
        with supervised(arguments.data) as (folder, supervisor):
            run = Up(folder, supervisor, listening_address(arguments.host, arguments.port))
            run.start_services()
            if run.is_prepared():
                with ThreadPoolExecutor(1) as pool:
                    checking = pool.submit(run.prepare)
                    run.serve()
                checking.result()
            else:
                run.prepare()
                run.serve()
            if arguments.demo:
                run.fill_in_demo()
            run.announce()
            supervisor.stop.wait()
            supervisor.output.line("dev", "stopping")
    except Stopped:
        return 0
    except DevError as exc:
        print(f"dev: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
