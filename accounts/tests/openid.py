"""A small OpenID provider on this machine, which can be made to say anything."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from accounts.oidc.provider import forget_provider

CLIENT_ID, CLIENT_SECRET = "opencrane", "s3cret+of the/client"


class Key:
    """A signing key with its public half as a JWK."""

    def __init__(self, key_id: str, algorithm: str = "RS256") -> None:
        self.algorithm, self.key_id = algorithm, key_id
        self.private: Any
        if algorithm.startswith("RS"):
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            jwk = json.loads(RSAAlgorithm.to_jwk(self.private.public_key()))
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            jwk = json.loads(ECAlgorithm.to_jwk(self.private.public_key()))
        self.jwk = jwk | {"kid": key_id, "use": "sig", "alg": algorithm}


_KEYS = {(name, algorithm): Key(name, algorithm) for name, algorithm in (("one", "RS256"), ("two", "ES256"))}


@dataclass
class Openid:
    """What the provider says, to be changed by tests; and what it was asked."""

    issuer: str
    key: Key = field(default_factory=lambda: _KEYS["one", "RS256"])
    other_key: Key = field(default_factory=lambda: _KEYS["two", "ES256"])
    # Over the usual claims; None takes a claim away.
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    discovery: dict[str, Any] = field(default_factory=dict)
    # Path -> status and body, instead of the usual answer.
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    published: list[Key] = field(default_factory=list)
    id_token: str | None = None
    nonce: str = ""
    asked: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
        }
        return {name: value for name, value in (found | self.discovery).items() if value is not None}

    def token(self) -> str:
        """An ID token as the claims say, signed with `key`."""
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "sub": "anna-at-provider",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": self.nonce,
            "email": "anna@example.com",
            "email_verified": True,
            "given_name": "Anna",
            "family_name": "Arden",
        }
        claims = {name: value for name, value in (usual | self.claims).items() if value is not None}
        header = {name: value for name, value in ({"kid": self.key.key_id} | self.header).items() if value is not None}
        return jwt.encode(claims, self.key.private, self.key.algorithm, headers=header)

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if path in self.answers:
            return self.answers[path]
        match path:
            case "/.well-known/openid-configuration":
                said: Any = self.document()
            case "/keys":
                said = {"keys": [key.jwk for key in self.published or [self.key]]}
            case "/token":
                said = {
                    "access_token": "an access token",
                    "token_type": "Bearer",
                    "id_token": self.id_token or self.token(),
                }
            case "/userinfo":
                said = {"sub": self.claims.get("sub", "anna-at-provider")} | self.userinfo
            case _:
                return 404, b"{}"
        return 200, json.dumps(said).encode()


@contextmanager
def running() -> Iterator[Openid]:
    """A provider that answers until the block ends; another one may have had its port before."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    provider = Openid(f"http://127.0.0.1:{server.server_port}")
    server.openid = provider  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    forget_provider()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self._provider.forms.append(dict(parse_qsl(body)))
        self._provider.authorizations.append(self.headers.get("Authorization", ""))
        self._reply()

    @property
    def _provider(self) -> Openid:
        return self.server.openid  # type: ignore[attr-defined]

    def _reply(self) -> None:
        status, body = self._provider.answer(urlsplit(self.path).path)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""
