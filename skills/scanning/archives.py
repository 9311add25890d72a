"""Unpack archives in memory: no link, no path that leads out, no bomb, and nothing that is not looked at.

Whatever is wrong becomes a finding. Names are never used as paths of this machine.
"""

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from skills.scanning.findings import Finding
from skills.scanning.material import File, Material

SCANNER = "archive"
MAX_FILES = 2000
MAX_UNPACKED = 64 * 1024 * 1024
MAX_PATH = 512
_CHUNK = 256 * 1024
ZIP_TYPES = {"application/zip", "application/x-zip-compressed"}
TAR_TYPES = {
    "application/gzip", "application/x-gzip", "application/x-tar", "application/x-tar+gzip", "application/x-gtar",
    "application/tar+gzip", "application/x-compressed-tar", "application/vnd.oci.image.layer.v1.tar+gzip",
}  # fmt: skip
_ZIP, _GZIP = b"PK\x03\x04", b"\x1f\x8b"
_ZIP_END = b"PK\x05\x06"


class BombError(Exception):
    """It unpacks into more than anybody wants."""


def unpack(content: bytes, *, name: str, content_type: str) -> Material:
    """The bundle's files, and what is wrong with their container."""
    plain = content_type.partition(";")[0].strip()
    material = Material(name=name)
    if plain in ZIP_TYPES or plain in TAR_TYPES:
        kind = _kind(content)
        said = "zip" if plain in ZIP_TYPES else "tar"
        if not kind:
            _add(material, "not-an-archive", "critical", f"It says it is {plain}, and is no archive that can be read.")
            return material
        if kind != said:
            _add(material, "type-mismatch", "high", f"It says it is {plain}, and is a {kind} archive.")
        material.is_archive = True
        _unpack_archive(material, content, kind)
        return material
    material.files.append(File("", content, plain))
    if kind := _kind(content):
        _add(material, "type-mismatch", "high", f"It says it is {plain}, and is a {kind} archive.")
        _unpack_archive(material, content, kind)
    elif _ZIP_END in content and zipfile.is_zipfile(io.BytesIO(content)):
        _add(material, "polyglot", "critical", f"It says it is {plain}, and can also be opened as a zip archive.")
    return material


def _kind(content: bytes) -> str:
    """`zip`, `tar` (compressed or not), or empty, by what is at its beginning."""
    if content.startswith((_ZIP, _ZIP_END)):
        return "zip"
    if content.startswith(_GZIP) or content[257:262] == b"ustar":
        return "tar"
    return ""


def _unpack_archive(material: Material, content: bytes, kind: str) -> None:
    names: set[str] = set()
    left = MAX_UNPACKED
    try:
        for path, data in _zip(material, content, left) if kind == "zip" else _tar(material, content):
            if len(names) >= MAX_FILES:
                raise BombError(f"It holds more than {MAX_FILES} files.")
            left -= len(data)
            if left < 0:
                raise BombError(f"It unpacks into more than {MAX_UNPACKED // 2**20} MiB.")
            if path in names:
                _add(
                    material,
                    "duplicate-path",
                    "high",
                    "Two files have this path; which one counts, nobody knows.",
                    path,
                )
            names.add(path)
            material.files.append(File(path, data))
    except BombError as exc:
        _add(material, "archive-bomb", "critical", str(exc))
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
        ValueError, UnicodeError,
    ) as exc:  # fmt: skip
        _add(material, "unreadable-archive", "critical", f"It cannot be read to its end ({type(exc).__name__}).")


def _zip(material: Material, content: bytes, limit: int) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        end = content.rfind(_ZIP_END)
        if not content.startswith((_ZIP, _ZIP_END)) or end + 22 + len(archive.comment) != len(content):
            _add(material, "polyglot", "high", "There is something before or after the zip archive.")
        members = archive.infolist()
        if len(members) > MAX_FILES:
            raise BombError(f"It holds more than {MAX_FILES} files.")
        if sum(member.file_size for member in members) > limit:
            raise BombError(f"It unpacks into more than {limit // 2**20} MiB.")
        for member in members:
            mode = member.external_attr >> 16
            # ZipInfo has cut the name at a NUL already; what is in the file counts.
            if not _is_path_safe(material, member.orig_filename) or member.is_dir():
                continue
            if stat.S_ISLNK(mode) or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                _add(
                    material, "link", "critical", "It is a link or a device; bundles hold plain files.", member.filename
                )
            elif member.flag_bits & 0x1:
                _add(material, "encrypted", "critical", "It is encrypted, so nobody can look into it.", member.filename)
            else:
                with archive.open(member) as opened:
                    data = _read(opened, limit)
                limit -= len(data)
                yield member.filename, data


def _tar(material: Material, content: bytes) -> Iterator[tuple[str, bytes]]:
    plain = _gunzipped(material, content) if content.startswith(_GZIP) else content
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
        seen = 0
        for member in archive:
            seen += 1
            if seen > MAX_FILES:
                raise BombError(f"It holds more than {MAX_FILES} files.")
            if not _is_path_safe(material, member.name) or member.isdir():
                continue
            if not member.isreg():
                _add(material, "link", "critical", "It is a link or a device; bundles hold plain files.", member.name)
                continue
            if member.size > MAX_UNPACKED:
                raise BombError(f"It unpacks into more than {MAX_UNPACKED // 2**20} MiB.")
            opened = archive.extractfile(member)
            if opened is not None:
                yield member.name, _read(opened, MAX_UNPACKED)


def _gunzipped(material: Material, content: bytes) -> bytes:
    """What was compressed; one stream, as gzip files for people are (RFC 1952 allows several)."""
    inflater = zlib.decompressobj(wbits=31)
    limit = MAX_UNPACKED + MAX_FILES * 1024
    plain = inflater.decompress(content, limit)
    if inflater.unconsumed_tail:
        raise BombError(f"It unpacks into more than {MAX_UNPACKED // 2**20} MiB.")
    if not inflater.eof:
        raise EOFError
    if inflater.unused_data:
        _add(material, "polyglot", "high", "There is something after the compressed archive.")
    return plain


def _read(opened: IO[bytes], limit: int) -> bytes:
    """All of it; the declared size is somebody's word, so what comes is counted."""
    chunks, size = [], 0
    while chunk := opened.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise BombError(f"It unpacks into more than {MAX_UNPACKED // 2**20} MiB.")
        chunks.append(chunk)
    return b"".join(chunks)


def _is_path_safe(material: Material, path: str) -> bool:
    parts = path.split("/")
    if (
        not path
        or len(path) > MAX_PATH
        or path.startswith("/")
        or ".." in parts
        or "\\" in path
        or any(ord(character) < 32 or ord(character) == 127 for character in path)
        or (len(path) > 1 and path[1] == ":")
    ):
        _add(material, "path-traversal", "critical", "Its path leads out of the bundle, or is no plain path.", path)
        return False
    return True


def _add(material: Material, rule: str, severity: str, message: str, path: str = "") -> None:
    material.findings.append(Finding(SCANNER, rule, severity, message, path))
