"""How webhooks are signed, so that a receiver can tell ours from anybody's. Pure.

The scheme is that of Standard Webhooks: HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`, in base64 behind
`v1,`. A receiver refuses timestamps more than TOLERANCE_SECONDS away from its clock, so that a request which was
listened to cannot be sent again later, and remembers ids, so that a retry counts once.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import secrets

TOLERANCE_SECONDS = 300
PREFIX = "whsec_"
SECRET_MIN, SECRET_MAX = 24, 200


def new_secret() -> str:
    """A secret of 256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signing_key(secret: str) -> bytes:
    """The bytes to sign with: what follows `whsec_` in base64; any other secret as it is.

    Raises:
        ValueError: it begins with `whsec_` but goes on with something that is no base64, or with too little.
    """
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as exc:
        raise ValueError("What follows whsec_ has to be base64.") from exc
    if len(key) < 16:
        raise ValueError("What follows whsec_ has to be at least 16 bytes in base64.")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`.

    Args:
        timestamp: seconds since 1970, as in the header `webhook-timestamp`.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(signing_key(secret), signed, hashlib.sha256).digest()).decode()


def derived_secret(purpose: str, root: str) -> str:
    """A secret for one purpose, the same each time, that tells nothing of `root`."""
    digest = hashlib.blake2b(purpose.encode(), key=root.encode()[:64], digest_size=32).digest()
    return PREFIX + base64.b64encode(digest).decode()
