"""What a source offers, whatever it is."""

import re
from dataclasses import dataclass, field
from typing import Any

# https://semver.org, the suggested expression, without its groups.
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
VERSION_MAX = 128


class SourceError(Exception):
    """The source could not be read; the sentence is fit for callers and holds no secret."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that a source offers.

    Attributes:
        kind: `skill` or `mcp-server`.
        upstream_id: what the source itself knows it by: a folder, or a name.
        version: as the source says it; for a skill without one it follows from the content.
        digest: `sha256:…`, of a skill's content, or of a server's description.
        content: of a skill; None when it cannot be taken.
        problem: why it cannot be imported; empty when it can.
    """

    kind: str
    upstream_id: str
    name: str
    version: str
    digest: str
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str = ""
    problem: str = ""


def is_semver(version: object) -> bool:
    """Whether a version is one that bundles may have."""
    return isinstance(version, str) and len(version) <= VERSION_MAX and bool(_SEMVER.fullmatch(version))


def text_of(value: object, length: int) -> str:
    """A text of somebody else's, cut, without the NUL characters that PostgreSQL does not hold; empty for no text."""
    return value.replace("\x00", "").strip()[:length] if isinstance(value, str) else ""
