"""Who is calling: the administrator's bearer token, or a signed token of a ServiceAccount."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from devstack.cluster.folder import DataFolder, write_private
from devstack.cluster.store import Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
MIN_SECONDS = 600
DEFAULT_SECONDS = 3600
MAX_SECONDS = 2**32


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated caller. Only an administrator may do more than look around."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = field(default_factory=dict)
    admin: bool = False

    def as_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"username": self.name}
        if self.uid:
            out["uid"] = self.uid
        out["groups"] = list(self.groups)
        if self.extra:
            out["extra"] = self.extra
        return out


class InvalidTokenError(Exception):
    """A token that authenticates nobody, and why."""


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Tokens:
    """Signs and checks tokens with a key kept in the data folder."""

    def __init__(self, folder: DataFolder, store: Store) -> None:
        self._store = store
        key_file = folder.account_key
        if not key_file.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
            write_private(key_file, made.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password))
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{key_file} is no EC key")
        self._key = key
        self._public = key.public_key()
        numbers = self._public.public_numbers()
        x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
        self._kid = _b64(hashlib.sha256(x + y).digest())
        self.jwk = {
            "use": "sig",
            "kty": "EC",
            "kid": self._kid,
            "crv": "P-256",
            "alg": "ES256",
            "x": _b64(x),
            "y": _b64(y),
        }
        token_file = folder.admin_token
        if not token_file.exists():
            write_private(token_file, secrets.token_urlsafe(32).encode())
        self.admin_token = token_file.read_text().strip()
        self._admin = User("kubernetes-admin", groups=("system:masters", "system:authenticated"), admin=True)

    def issue(self, namespace: str, account: str, uid: str, audiences: list[str], seconds: int) -> tuple[str, int]:
        """A token for a ServiceAccount, and when it expires (seconds since the epoch)."""
        now = int(time.time())
        header = {"alg": "ES256", "kid": self._kid, "typ": "JWT"}
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        signed = f"{_b64(orjson.dumps(header))}.{_b64(orjson.dumps(claims))}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}", now + seconds

    def authenticate(self, token: str, audiences: list[str] | None = None) -> tuple[User, list[str]]:
        """Who holds `token`, and for which of the wanted audiences it counts.

        Args:
            token: a bearer token.
            audiences: those that the asker answers to; None or empty for the API server's own.

        Raises:
            InvalidTokenError: unknown, forged, expired, for others, or of an account that is gone.
        """
        wanted = audiences or [ISSUER]
        if hmac.compare_digest(token.encode(), self.admin_token.encode()):
            shared = [audience for audience in wanted if audience == ISSUER]
            if not shared:
                raise InvalidTokenError("invalid bearer token")
            return self._admin, shared
        claims = self._claims(token)
        now = time.time()
        if claims["exp"] <= now or claims["nbf"] > now + 10:
            raise InvalidTokenError("[invalid bearer token, service account token has expired]")
        given = claims["aud"]
        shared = [audience for audience in wanted if audience in given]
        if not shared:
            shown, targets = orjson.dumps(given).decode(), orjson.dumps(wanted).decode()
            why = f"token audiences {shown} is invalid for the target audiences {targets}"
            raise InvalidTokenError(f"[invalid bearer token, {why}]")
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        entry = self._store.get("serviceaccounts", namespace, account["name"])
        if entry is None or entry.uid != account["uid"]:
            raise InvalidTokenError("[invalid bearer token, service account token has been invalidated]")
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
        return User(claims["sub"], account["uid"], groups, extra), shared

    def _claims(self, token: str) -> dict[str, Any]:
        parts = token.split(".")
        try:
            if len(parts) != 3:
                raise InvalidTokenError("invalid bearer token")
            header, claims = orjson.loads(_unb64(parts[0])), orjson.loads(_unb64(parts[1]))
            signature = _unb64(parts[2])
            if header.get("alg") != "ES256" or len(signature) != 64 or claims.get("iss") != ISSUER:
                raise InvalidTokenError("invalid bearer token")
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            der = encode_dss_signature(r, s)
            self._public.verify(der, f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256()))
        except (ValueError, AttributeError, InvalidSignature) as exc:
            raise InvalidTokenError("invalid bearer token") from exc
        return dict(claims)
