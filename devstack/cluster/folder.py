"""The data folder: which files are in it; nobody else may read them and none is ever half written."""

from __future__ import annotations

import base64
import fcntl
import os
import time
from pathlib import Path

import orjson
import yaml


class FolderError(Exception):
    """Why a folder cannot be used, as one sentence."""


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
    draft.replace(path)


class DataFolder:
    """The files of one development cluster, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Make the folder when it is missing, and take it.

        Raises:
            FolderError: it cannot be written, or another process has it.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise FolderError(f"The data folder {path} cannot be used: {exc.strerror}.") from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            raise FolderError(f"Another development cluster already runs on {path}.") from exc
        self.ca = path / "ca.crt"
        self.ca_key = path / "ca.key"
        self.server = path / "server.crt"
        self.server_key = path / "server.key"
        self.port = path / "port"
        self.objects = path / "objects.sqlite3"
        self.account_key = path / "service-account.key"
        self.admin_token = path / "admin-token"
        self.kubeconfig = path / "kubeconfig"
        self._certified = path / "server.json"

    def has_certificates(self, host: str) -> bool:
        """Whether there is a server certificate for `host` that still holds for a while."""
        if not all(file.exists() for file in (self.ca, self.ca_key, self.server, self.server_key, self._certified)):
            return False
        try:
            note = orjson.loads(self._certified.read_bytes())
            return bool(note["host"] == host and note["renew"] > time.time())
        except (ValueError, KeyError, TypeError):
            return False

    def note_certificates(self, host: str, renew: float) -> None:
        write_private(self._certified, orjson.dumps({"host": host, "renew": renew}))

    def write_kubeconfig(self, url: str, token: str, namespace: str) -> None:
        name = "opencrane-development"
        ca = base64.b64encode(self.ca.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority-data": ca}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
            "current-context": name,
        }
        write_private(self.kubeconfig, yaml.safe_dump(config, sort_keys=False).encode())
