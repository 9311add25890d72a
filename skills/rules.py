"""What a bundle's fields may hold. Pure."""

import base64
import binascii
import hashlib
import re
from typing import Any

NAME_MAX, VERSION_MAX, TAG_MAX, MAX_TAGS = 253, 128, 64, 50
CONTENT_MAX_BYTES = 10 * 1024 * 1024
# Base64 of the largest content, in lines of 76 as `base64` writes them.
BASE64_MAX = (CONTENT_MAX_BYTES + 2) // 3 * 4 * 77 // 76 + 2
DEFAULT_TYPE = "text/markdown"
DIGEST = r"^sha256:[0-9a-f]{64}$"
# https://semver.org, the suggested expression.
SEMVER = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$"
)
# RFC 6838, 4.2; the one parameter that text may have.
CONTENT_TYPE = r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}(; ?charset=utf-8)?$"
_TEXT_TYPES = {"application/json", "application/yaml", "application/x-yaml", "application/toml", "application/xml"}
_SEMVER = re.compile(SEMVER, re.ASCII)


def digest_of(content: bytes) -> str:
    """`sha256:<64 hex>`, as OCI registries name content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_text(content_type: str) -> bool:
    """Whether content of that type has to be UTF-8 text."""
    plain = content_type.partition(";")[0].strip()
    return plain.startswith("text/") or plain in _TEXT_TYPES or plain.endswith(("+json", "+yaml", "+xml"))


def decoded(text: str) -> bytes:
    """The bytes that base64 stands for; line breaks are passed over.

    Raises:
        ValueError: it is not base64.
    """
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", "").encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as exc:
        raise ValueError("Has to be base64.") from exc


def encoded(content: bytes) -> str:
    """The content in base64, on one line."""
    return base64.b64encode(content).decode()


def check_text(content: bytes) -> None:
    """Judge content whose type says that it is text.

    Raises:
        ValueError: it is not UTF-8, or holds NUL characters.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(
            f"Text has to be UTF-8; byte {exc.start} is not. Name another contentType for binary."
        ) from exc
    if "\x00" in text:
        raise ValueError("Text may not hold NUL characters. Name another contentType for binary.")


def version_key(version: str) -> tuple[Any, ...]:
    """What versions are ordered by: precedence (semver.org, 11), then build metadata, so that the order is total."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        return ((-1,), (), version)
    numbers = tuple(int(part) for part in match.group(1, 2, 3))
    pre, build = match.group(4), match.group(5) or ""
    # Without a pre-release comes after all that have one; numbers come before words.
    parts = (
        ((2, 0, ""),)
        if pre is None
        else tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split("."))
    )
    return (numbers, parts, build)
