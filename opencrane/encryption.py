"""Secrets at rest: sealed with AES-256-GCM by a ring of keys, so that keys can be replaced while everything runs.

A sealed text is `oc1.<key id>.<nonce and ciphertext in URL-safe base64>`. The key id says which key of the ring opens
it and is no secret: the first 8 hex digits of the key's SHA-256. Version and key id are authenticated with the text.
The first key of OPENCRANE_ENCRYPTION_KEYS seals, all of them open; `manage.py rotate_encryption` seals all again.

Nonces are random: NIST SP 800-38D, 8.3, allows 2^32 texts for each key.
"""

import base64
import binascii
import hashlib
import os
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from opencrane.errors import DependencyNotConfiguredError

_VERSION = "oc1"
_NONCE_BYTES = 12


class DecryptionError(DependencyNotConfiguredError):
    """A stored secret cannot be opened with the keys at hand. Names the key's id, never the secret."""

    default_message = "A stored secret cannot be opened."


def key_id(key: bytes) -> str:
    """What a key is called in sealed texts and messages."""
    return hashlib.sha256(b"opencrane key id\x00" + key).hexdigest()[:8]


@lru_cache(maxsize=8)
def _ring(keys: tuple[bytes, ...]) -> dict[str, AESGCM]:
    return {key_id(key): AESGCM(key) for key in keys}


def _keys() -> dict[str, AESGCM]:
    """The ring by key id, the one that seals first.

    Raises:
        DependencyNotConfiguredError: there is none.
    """
    ring = _ring(tuple(settings.ENCRYPTION_KEYS))
    if not ring:
        raise DependencyNotConfiguredError(
            "Secrets cannot be stored: no encryption key is configured.",
            detail="Set OPENCRANE_ENCRYPTION_KEYS; docs/security.md says how.",
        )
    return ring


def is_configured() -> bool:
    """Whether there is a key to seal with."""
    return bool(settings.ENCRYPTION_KEYS)


def sealing_prefix() -> str:
    """How texts begin that were sealed with the present first key.

    Raises:
        DependencyNotConfiguredError: there is no key.
    """
    return f"{_VERSION}.{next(iter(_keys()))}."


def encrypt(text: str) -> str:
    """Seal a text with the first key. Twice the same text gives different sealed texts.

    Raises:
        DependencyNotConfiguredError: there is no key.
    """
    header = sealing_prefix()
    nonce = os.urandom(_NONCE_BYTES)
    cipher = next(iter(_keys().values()))
    body = nonce + cipher.encrypt(nonce, text.encode(), header.encode())
    return header + _encode(body)


def decrypt(sealed: str) -> str:
    """The text that `encrypt` sealed, by whichever key of the ring did.

    Raises:
        DependencyNotConfiguredError: there is no key.
        DecryptionError: the key is not in the ring, or the text was changed or is none of ours.
    """
    ring = _keys()
    version, _, rest = sealed.partition(".")
    name, _, encoded = rest.partition(".")
    if version != _VERSION or not encoded:
        raise DecryptionError("A stored secret is damaged: it is no sealed text.")
    cipher = ring.get(name)
    if cipher is None:
        raise DecryptionError(
            f"A stored secret was sealed with key {name[:8]}, which is not configured.",
            detail=f"OPENCRANE_ENCRYPTION_KEYS has {', '.join(ring)}. Add the missing key after the first one.",
        )
    try:
        body = _decode(encoded)
        opened = cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], f"{version}.{name}.".encode())
    except (InvalidTag, binascii.Error, ValueError) as exc:
        raise DecryptionError(f"A stored secret sealed with key {name} is damaged.") from exc
    return opened.decode()


def _encode(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _decode(encoded: str) -> bytes:
    """The bytes of the one text that `_encode` makes of them.

    The standard library also reads texts with other characters in between, or with bits set after the last byte
    (RFC 4648, 3.3 and 3.5): changed texts, which the cipher would not notice.

    Raises:
        ValueError: it is no such text.
    """
    body = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if _encode(body) != encoded:
        raise ValueError("not what the encoder makes")
    return body


class Sealed:
    """A value of an EncryptedTextField as the column holds it; opened only by `reveal`, and never shown."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def reveal(self) -> str:
        """The plain text.

        Raises:
            DependencyNotConfiguredError, DecryptionError: see `decrypt`.
        """
        return decrypt(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return "<sealed>"


class _PlainAttribute(DeferredAttribute):
    """Opens a sealed value when it is read, not when its row is: rows can be listed without the key."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        return value.reveal() if isinstance(value, Sealed) else value

    def __set__(self, instance: Any, value: Any) -> None:
        # Only a data descriptor comes before the instance's own dictionary.
        instance.__dict__[self.field.attname] = value


class EncryptedTextField(models.TextField[Any, Any]):
    """A text that the column holds sealed. Reading the attribute gives the plain text, and may raise DecryptionError.

    Empty text and NULL are kept as they are, so that "nothing is set" needs no key. Saving a row whose value was not
    assigned anew keeps the sealed text. The value stays out of forms and dumps; `values()` gives `Sealed` objects; of
    lookups only `isnull` and a comparison with the empty text make sense.
    """

    descriptor_class = _PlainAttribute
    description = "Encrypted text"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("editable", None)
        return name, path, args, kwargs

    def from_db_value(self, value: str | None, _expression: Any, _connection: Any) -> Any:
        return Sealed(value) if value else value

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        value = model_instance.__dict__.get(self.attname, "")
        # Once sealed for saving, the row in memory holds no plain text either.
        if isinstance(value, str) and value:
            value = model_instance.__dict__[self.attname] = Sealed(encrypt(value))
        return value

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, Sealed):
            return value.text
        if value is None or value == "":
            return value
        return encrypt(str(value))

    def value_to_string(self, obj: Any) -> str:
        value = obj.__dict__.get(self.attname, "")
        return str(self.get_prep_value(value) or "")
