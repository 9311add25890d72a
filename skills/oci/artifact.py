"""A skill bundle as an OCI 1.1 artifact: one layer with the content, and the empty config. Pure.

The manifest follows from name, version and content alone, so pushing twice makes the same manifest.
Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, "Guidelines for Artifact Usage".
"""

import hashlib
import re
from dataclasses import dataclass

import orjson

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.opencrane.skill.v1"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_PLAIN_VERSION = re.compile(r"[A-Za-z0-9.-]{1,60}(\+[A-Za-z0-9.-]{1,40})?")
# What the file is called when somebody pulls it with another tool.
_ENDINGS = {
    "text/markdown": ".md",
    "text/plain": ".txt",
    "application/zip": ".zip",
    "application/gzip": ".tar.gz",
    "application/x-gzip": ".tar.gz",
    "application/x-tar+gzip": ".tar.gz",
}


def digest_of(content: bytes) -> str:
    """`sha256:` and the hash in hexadecimal."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


EMPTY_DIGEST = digest_of(EMPTY)


@dataclass(frozen=True, slots=True)
class Artifact:
    """What goes into the registry for one bundle.

    Attributes:
        tag: unique for (name, version).
        content: the layer; its digest is the bundle's.
        manifest: bytes whose digest the registry knows the artifact by.
    """

    tag: str
    content: bytes
    digest: str
    manifest: bytes
    manifest_digest: str


def artifact_of(*, name: str, version: str, content: bytes, content_type: str) -> Artifact:
    """The artifact of a bundle."""
    digest = digest_of(content)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": EMPTY_DIGEST, "size": len(EMPTY)},
        "layers": [
            {
                "mediaType": content_type,
                "digest": digest,
                "size": len(content),
                "annotations": {"org.opencontainers.image.title": file_name(name, content_type)},
            }
        ],
        "annotations": {"org.opencontainers.image.title": name, "org.opencontainers.image.version": version},
    }
    encoded = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)
    return Artifact(tag_of(name, version), content, digest, encoded, digest_of(encoded))


def file_name(name: str, content_type: str) -> str:
    """What the content is called as a file; SKILL.md is what agents look for."""
    media = content_type.partition(";")[0].strip().lower()
    return "SKILL.md" if media == "text/markdown" else f"{_slug(name)}{_ENDINGS.get(media, '.bin')}"


def tag_of(name: str, version: str) -> str:
    """A tag for (name, version) that no other pair has, at most 128 of the characters that tags may have.

    `+` is not among them and becomes `_`, as Helm does it. What had to be changed otherwise gets a hash.
    """
    if not _PLAIN_VERSION.fullmatch(version):
        version = f"v-{_hash(version)}"
    return f"{_slug(name)}_{version.replace('+', '_')}"


def _slug(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    readable = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:40]
    return "-".join(filter(None, [readable, _hash(name)]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
