"""The data folder: who may use it, what it must keep secret, and where sockets go.

Everything in it belongs to one user and is closed to others. Two locks guard it: `lock` is the running supervisor's,
`cleanup.lock` is also its guard's, which after a `kill -9` needs a few seconds to end what is left.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import random
import secrets
import shlex
import shutil
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.supervisor import DevError

FORMAT = 1
MARKER = "opencrane.json"
CLEANUP_SECONDS = 20.0
# sockaddr_un.sun_path has room for 107 bytes and a terminator (macOS: 103); the longest name put there follows.
MAX_SOCKET_PATH_BYTES = 103
LONGEST_SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True)
class Secrets:
    """What is made once per data folder and never changes by itself."""

    secret_key: str
    encryption_key: str
    api_token: str
    admin_password: str
    postgres_password: str
    database_password: str
    valkey_password: str

    @classmethod
    def generate(cls) -> "Secrets":
        """New random ones. The encryption key is 32 bytes in URL-safe base64, as Fernet wants it."""
        return cls(
            secret_key=secrets.token_urlsafe(50),
            encryption_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            api_token=secrets.token_hex(24),
            admin_password=secrets.token_urlsafe(15),
            postgres_password=secrets.token_hex(24),
            database_password=secrets.token_hex(24),
            valkey_password=secrets.token_hex(24),
        )


class DataFolder:
    """An opened and locked data folder. `first` says whether this is its first use."""

    def __init__(self, path: Path) -> None:
        """Open, make and lock.

        Raises:
            DevError: it cannot be used; the message says why.
        """
        self.path = Path(os.path.abspath(path))
        self._prepare()
        self.lock_fd, self.cleanup_fd = self._lock()
        marker = self._read_json(MARKER)
        if marker and marker.get("format") != FORMAT:
            raise DevError(
                f"{self.path} was written by another version of OpenCrane (format {marker.get('format')}, this one "
                f"knows {FORMAT}); name another folder with --data"
            )
        self.first = not (self.path / "secrets.json").exists()
        self.secrets = self._load_secrets()
        if not marker:
            self.write_private(MARKER, json.dumps({"format": FORMAT}) + "\n")
        self.sockets = self._socket_folder()

    def _prepare(self) -> None:
        try:
            self.path.mkdir(parents=True, mode=0o700, exist_ok=True)
            entries = set(os.listdir(self.path))
            if entries and not entries & {MARKER, "lock"}:
                raise DevError(f"{self.path} is not empty and no OpenCrane data folder; name another one with --data")
            if self.path.stat().st_uid != os.geteuid():
                raise DevError(f"{self.path} belongs to another user; name a folder of your own with --data")
            self.path.chmod(0o700)
            (self.path / MARKER).touch(mode=0o600)
        except FileExistsError as exc:
            raise DevError(f"{self.path} is a file, not a folder; name another one with --data") from exc
        except OSError as exc:
            raise DevError(
                f"cannot use {self.path} for data ({exc.strerror}); name another folder with --data"
            ) from exc

    def _lock(self) -> tuple[int, int]:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise DevError(
                f"OpenCrane already runs on {self.path} (process {holder}); stop it or name another folder with --data"
            ) from exc
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        cleanup = os.open(self.path / "cleanup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + CLEANUP_SECONDS
        while True:
            try:
                fcntl.flock(cleanup, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise DevError(f"what the last run on {self.path} left behind does not end; look with ps") from exc
                time.sleep(0.05)
            else:
                return lock, cleanup

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = (self.path / name).read_text(encoding="utf-8")
            loaded = json.loads(content) if content.strip() else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise DevError(
                f"{self.path / name} cannot be read ({exc}); restore it, or start afresh with another --data"
            ) from exc
        return loaded if isinstance(loaded, dict) else {}

    def _load_secrets(self) -> Secrets:
        stored = self._read_json("secrets.json")
        if not stored:
            if (self.path / "postgres").exists():
                raise DevError(
                    f"{self.path} holds a database but not its secrets.json, without which it cannot be opened; "
                    "restore the file, or start afresh with another --data"
                )
            made = Secrets.generate()
            self.write_private("secrets.json", json.dumps(vars(made), indent=2) + "\n")
            return made
        try:
            return Secrets(**stored)
        except TypeError as exc:
            raise DevError(f"{self.path / 'secrets.json'} is incomplete; start afresh with another --data") from exc

    def _socket_folder(self) -> Path:
        """Inside the data folder when its path is short enough, else a private one whose name follows from it."""
        inside = self.path / "run"
        if len(os.fsencode(inside / LONGEST_SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES:
            inside.mkdir(mode=0o700, exist_ok=True)
            return inside
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        outside = Path("/tmp") / f"opencrane-{os.geteuid()}-{digest}"  # noqa: S108 - checked below
        outside.mkdir(mode=0o700, exist_ok=True)
        found = outside.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise DevError(f"{outside}, where the sockets should go, is not a private folder of yours; remove it")
        return outside

    @property
    def sockets_are_outside(self) -> bool:
        """The socket folder has to be removed when all is over."""
        return self.sockets.parent != self.path

    def write_private(self, name: str, content: str) -> Path:
        """Write a file of mode 0600, whole or not at all."""
        target = self.path / name
        temporary = self.path / f".{name}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
        return target

    def remember(self, name: str) -> bool:
        """Note in the folder that something has happened. True when it had not before."""
        marker = self._read_json(MARKER)
        self.write_private(MARKER, json.dumps(marker | {name: True}) + "\n")
        return name not in marker

    def remove(self, name: str) -> None:
        """Delete a file or a folder, if it is there."""
        target = self.path / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def port(self, name: str) -> int:
        """A free loopback port for `name`, the same one as last time when it is still free."""
        stored = self._read_json("ports.json")
        host = loopback()
        remembered = stored.get(name)
        if not (isinstance(remembered, int) and is_free(host, remembered)):
            remembered = free_port(host)
            self.write_private("ports.json", json.dumps(stored | {name: remembered}) + "\n")
        return remembered

    def write_environment(self, variables: Mapping[str, str]) -> Path:
        """`env`, for `. DIR/env` in a shell: what a process needs to use these services."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items())]
        return self.write_private("env", "".join(lines))


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError, OverflowError):
            attempt.bind((host, port))
            return True
    return False


def free_port(host: str) -> int:
    """A free port below the range that the system hands to outgoing connections, so that it stays free while the
    server behind it is restarted."""
    for _ in range(200):
        port = random.randrange(20_000, 32_000)  # noqa: S311 - not a secret
        if is_free(host, port):
            return port
    raise DevError(f"found no free port on {host}")


def loopback() -> str:
    """This machine's own address: 127.0.0.1, or ::1 where there is no IPv4."""
    return "127.0.0.1" if is_free("127.0.0.1", 0) else "::1"


def in_url(host: str) -> str:
    """`host` as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
