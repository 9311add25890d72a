"""A real registry (Debian's docker-registry) for tests: to start, stop, and start again with what it had."""

import base64
import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from devstack.folder import free_port

PROGRAM = shutil.which("docker-registry") or "/usr/bin/docker-registry"
USERNAME, PASSWORD = "pusher", "correct horse"
# bcrypt of PASSWORD.
HTPASSWD = f"{USERNAME}:$2b$04$nciboPopWkPCfPB60dRvx.RL/pUdVjWFHe6lesW2Rno7SMJZyPyBi\n"


def is_there() -> bool:
    return Path(PROGRAM).exists()


class RealRegistry:
    """One registry on loopback, its data in a folder of its own. As `nobody` where the tests run as root."""

    def __init__(self, *, config: dict[str, Any] | None = None, files: dict[str, bytes] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="oc-registry-"))
        self.port = free_port("127.0.0.1")
        self.host = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        for name, content in (files or {}).items():
            (self.folder / name).write_bytes(content)
        written = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.host},
        }
        extra = json.loads(json.dumps(config or {}).replace("@FOLDER@", str(self.folder)))
        written["http"] |= extra.pop("http", {})
        (self.folder / "config.yml").write_text(yaml.safe_dump(written | extra))
        self.scheme = "https" if "tls" in written["http"] else "http"
        self.url = f"{self.scheme}://{self.host}"
        if os.getuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, "nobody", "nogroup")

    def start(self) -> None:
        identity: dict[str, Any] = {}
        if os.getuid() == 0:
            identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        command = [PROGRAM, "serve", str(self.folder / "config.yml")]
        self._process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **identity,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"docker-registry did not start: {self._process.returncode}")
            time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def empty(self) -> None:
        """Lose what it has; for while it does not run."""
        shutil.rmtree(self.folder / "data")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """What anybody else gets from it."""
        return httpx.get(f"{self.url}{path}", headers=headers, trust_env=False)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[RealRegistry]:
    registry = RealRegistry(**options)
    try:
        registry.start()
        yield registry
    finally:
        registry.remove()


def certificate(name: str = "127.0.0.1") -> tuple[bytes, bytes, ec.EllipticCurvePrivateKey]:
    """A certificate that signs itself, for 127.0.0.1: certificate and key as PEM, and the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    import ipaddress

    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), pem, key


class TokenServer:
    """Gives out the bearer tokens that a registry with `auth: token` wants, for USERNAME and PASSWORD."""

    def __init__(self) -> None:
        self.certificate, _, self._key = certificate("tokens")
        self.asked: list[dict[str, list[str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer.asked.append(query)
                wanted = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
                is_known = self.headers.get("Authorization") == wanted
                body = json.dumps({"token": outer.token(query), "expires_in": 300} if is_known else {}).encode()
                self.send_response(200 if is_known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def token(self, query: dict[str, list[str]]) -> str:
        kind, name, actions = query["scope"][0].split(":")
        now = int(time.time())
        chain = "".join(self.certificate.decode().split("\n")[1:-2])
        parts = [
            {"typ": "JWT", "alg": "ES256", "x5c": [chain]},
            {
                "iss": "tests", "sub": USERNAME, "aud": query["service"][0], "exp": now + 300, "nbf": now - 10,
                "iat": now - 10, "jti": str(now),
                "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
            },
        ]  # fmt: skip
        signed = b".".join(_base64(json.dumps(part).encode()) for part in parts)
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + _base64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
