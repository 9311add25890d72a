"""Keep credentials out of logs, audit diffs and job results.

Masking is the second line of defence: code should not hand credentials to these places at all. Values are judged by
the key they stand under, since a value alone does not tell a password from a word.
"""

import re
from typing import Any

MASK = "***"

_CREDENTIAL_PARTS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "authorization",
    "credential",
    "private",
    "bearer",
    "cookie",
    "signingkey",
    "encryptionkey",
    "masterkey",
)
# `maxTokens` and `inputTokens` count; `secretName` and `tokenRef` point at a credential without being one.
_HARMLESS_ENDINGS = ("tokens", "name", "ref", "namespace")
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/@:]*):[^\s/@]+(?=@)")
_KNOWN_TOKENS = re.compile(r"\bocp_[0-9a-f]{48}\b|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}")


def is_credential_key(key: str) -> bool:
    """Whether a value under `key` should never be shown. Spelling (camelCase, dashes, dots) does not matter."""
    plain = _SEPARATORS.sub("", key.lower())
    if plain.endswith(_HARMLESS_ENDINGS):
        return False
    return plain == "auth" or any(part in plain for part in _CREDENTIAL_PARTS)


def mask_text(text: str) -> str:
    """`text` without passwords in URLs, bearer tokens and our own access tokens."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}", text)
    if "ocp_" in text or "earer " in text:
        text = _KNOWN_TOKENS.sub(MASK, text)
    return text


def mask(value: Any) -> Any:
    """A copy of a JSON value in which everything under a credential-like key is `***`.

    Covers `{"name": "API_KEY", "value": …}` pairs as Kubernetes writes environment variables. Null and empty text
    stay, because "was not set" is worth knowing. Tuples become lists; the argument is left unchanged.
    """
    if isinstance(value, dict):
        named = value.get("name")
        hide_value = isinstance(named, str) and is_credential_key(named)
        return {
            key: _hidden(item) if is_credential_key(str(key)) or (hide_value and key == "value") else mask(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    return mask_text(value) if isinstance(value, str) else value


def _hidden(value: Any) -> Any:
    return value if value is None or value in ("", [], {}) else MASK
