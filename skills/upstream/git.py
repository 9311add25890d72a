"""Skills in a git repository, read without a working tree: nothing is checked out, and nothing in it is run.

git itself runs fenced in: an environment of its own without configuration, hooks, templates, credentials and proxies;
https and http only, no redirects, no submodules; the address resolved and judged here and pinned for it; limits of
time, memory and size. Files are then read as objects, so that links, odd names and paths that lead elsewhere are
only names.
"""

import contextlib
import gzip
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from opencrane.addresses import Network
from opencrane.console.values import parse_object
from opencrane.outbound import RefusedAddressError, addresses_of, judged
from skills.oci.artifact import digest_of
from skills.oci.store import MAX_CONTENT_BYTES
from skills.upstream.found import Found, SourceError, is_semver, text_of

CLONE_SECONDS = 120.0
READ_SECONDS = 60.0
# Of the pack that git writes, and so of what is downloaded.
MAX_PACK_BYTES = 256 * 1024 * 1024
MEMORY_BYTES = 1024 * 1024 * 1024
MAX_ENTRIES = 100_000
MAX_SKILLS = 2_000
MAX_FILES = 2_000
MAX_HEAD = 16 * 1024
MAX_BRACKETS = 200
SKILL_FILE = "SKILL.md"
REF = re.compile(r"[A-Za-z0-9](?!.*(\.\.|//|\.lock$|/$))[A-Za-z0-9._/-]{0,199}")
_HEAD_OF_TEXT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
_OPTIONS = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=false", "credential.helper=", "gc.auto=0",
    "maintenance.auto=false", "http.followRedirects=false", "http.lowSpeedLimit=1000", "http.lowSpeedTime=20",
    "http.sslVerify=true", "pack.threads=1", "protocol.version=2", "submodule.recurse=false",
    "transfer.bundleURI=false",
    # One pack, so that the limit on a file's size is one on the whole.
    "transfer.unpackLimit=1", "fetch.unpackLimit=1", "transfer.fsckObjects=true",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clone:
    """A repository's newest commit, on disk."""

    folder: Path
    commit: str


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    object_id: str
    size: int


@contextlib.contextmanager
def cloned(url: str, ref: str, allowed: tuple[Network, ...]) -> Iterator[Clone]:
    """The newest commit of a repository's branch or tag; gone from the disk when the block ends.

    Args:
        url: http(s), without a user name.
        ref: empty for what the repository itself prefers.

    Raises:
        SourceError: it may not be connected to, cannot be cloned, or is too large.
    """
    pinned = _pinned(url, allowed)
    if ref and not REF.fullmatch(ref):
        raise SourceError("The branch or tag has a name that git does not take.")
    with tempfile.TemporaryDirectory(prefix="opencrane-git-") as text:
        home = Path(text)
        folder = home / "clone"
        options = [word for option in (*_OPTIONS, *pinned) for word in ("-c", option)]
        branch = ["--branch", ref] if ref else []
        arguments = ["clone", "--quiet", "--bare", "--depth=1", "--single-branch", "--no-tags", "--template=", *branch]
        _run(home, [*options, *arguments, "--", url, str(folder)], CLONE_SECONDS, ref)
        commit = _run(
            home, [f"--git-dir={folder}", "rev-parse", "--verify", "HEAD^{commit}"], READ_SECONDS, ref
        ).strip()
        if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit):
            raise SourceError("The repository is empty.")
        yield Clone(folder, commit)


def read_skills(clone: Clone) -> Iterator[Found]:
    """Every folder with a SKILL.md, one after the other, with its files; skills within skills are their own.

    Raises:
        SourceError: there is more than anybody wants.
    """
    files = _files(clone)
    folders = sorted({_folder(each.path) for each in files if PurePosixPath(each.path).name == SKILL_FILE})
    if len(folders) > MAX_SKILLS:
        raise SourceError(f"It has more than {MAX_SKILLS} skills.")
    owned: dict[str, list[_File]] = {folder: [] for folder in folders}
    for each in files:
        owner = _owner(each.path, owned)
        if owner is not None:
            owned[owner].append(each)
    with _Objects(clone) as objects:
        for folder in folders:
            yield _skill(clone, objects, folder, owned[folder])


def _skill(clone: Clone, objects: "_Objects", folder: str, files: list[_File]) -> Found:
    prefix = f"{folder}/" if folder else ""
    head = next(each for each in files if each.path == f"{prefix}{SKILL_FILE}")
    details: dict[str, Any] = {"folder": folder or ".", "files": len(files), "commit": clone.commit}
    total = sum(each.size for each in files)
    problem, content, content_type = "", None, ""
    if len(files) > MAX_FILES:
        problem = f"It has more than {MAX_FILES} files."
    elif total > MAX_CONTENT_BYTES:
        problem = f"Its files are larger than {MAX_CONTENT_BYTES // 1024 // 1024} MiB together."
    text = objects.read(head) if head.size <= MAX_CONTENT_BYTES else b""
    fields, trouble = front_matter(text)
    problem = problem or trouble
    if not problem and len(files) == 1:
        content, content_type = text, "text/markdown"
    elif not problem:
        content, content_type = (
            packed({each.path[len(prefix) :]: objects.read(each) for each in files}),
            "application/gzip",
        )
        if len(content) > MAX_CONTENT_BYTES:
            problem, content = f"Packed, it is larger than {MAX_CONTENT_BYTES // 1024 // 1024} MiB.", None
    identity = content if content is not None else "\n".join(f"{each.object_id} {each.path}" for each in files).encode()
    digest = digest_of(identity)
    said = fields.get("version")
    nested = fields.get("metadata")
    if said is None and isinstance(nested, dict):
        said = nested.get("version")
    version = said if is_semver(said) else f"0.0.0-sha{digest.removeprefix('sha256:')[:12]}"
    details["size"] = total
    if said is not None and not is_semver(said):
        details["saidVersion"] = text_of(str(said), 100)
    return Found(
        kind="skill",
        upstream_id=folder or ".",
        name=text_of(fields.get("name"), 253) or PurePosixPath(folder).name or "skill",
        version=str(version),
        digest=digest,
        description=text_of(fields.get("description"), 2000),
        details=details,
        content=content,
        content_type=content_type,
        problem=problem,
    )


def front_matter(content: bytes) -> tuple[dict[str, Any], str]:
    """The fields at the head of a SKILL.md, and what is wrong with it as a text; the scan judges the rest."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {}, f"Its {SKILL_FILE} is not UTF-8."
    if "\x00" in text:
        return {}, f"Its {SKILL_FILE} holds NUL characters."
    if not text.strip():
        return {}, f"Its {SKILL_FILE} is empty."
    match = _HEAD_OF_TEXT.match(text[: MAX_HEAD + 10])
    # Deep nesting takes the parser seconds.
    if match is None or match[1].count("[") + match[1].count("{") > MAX_BRACKETS:
        return {}, ""
    try:
        return parse_object(match[1], max_length=MAX_HEAD) or {}, ""
    except ValueError:
        # It can be imported all the same: the scan says where it is wrong.
        return {}, ""


def packed(files: dict[str, bytes]) -> bytes:
    """A tar.gz of the files that is the same for the same files: sorted, without times and owners."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as zipped,
        tarfile.open(mode="w", fileobj=zipped, format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(files):
            entry = tarfile.TarInfo(path)
            entry.size = len(files[path])
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(files[path]))
    return out.getvalue()


# --- Reading objects -------------------------------------------------------------------------------------------------


def _files(clone: Clone) -> list[_File]:
    """The plain files of the commit; links and submodules are not among them."""
    command = ["ls-tree", "-r", "-l", "-z", "--full-tree", clone.commit]
    found: list[_File] = []
    count = 0
    with _started(clone.folder.parent, [f"--git-dir={clone.folder}", *command]) as process:
        # A tree that names itself over and over unfolds without end, so it is read as it comes.
        deadline = time.monotonic() + READ_SECONDS
        for record in _records(process.stdout, b"\x00"):
            count += 1
            if count > MAX_ENTRIES or time.monotonic() > deadline:
                raise SourceError(f"It has more than {MAX_ENTRIES} files.")
            head, _, name = record.partition(b"\t")
            mode, kind, object_id, size = head.split()
            if kind != b"blob" or mode not in (b"100644", b"100755"):
                continue
            try:
                path = name.decode()
            except UnicodeDecodeError:
                continue
            if _is_plain(path):
                found.append(_File(path, object_id.decode(), int(size)))
        if process.wait(READ_SECONDS):
            raise SourceError("git cannot read the repository.")
    return found


def _is_plain(path: str) -> bool:
    parts = path.split("/")
    is_short = len(path) <= 1000
    return is_short and path.isprintable() and all(part not in ("", ".", "..", ".git") for part in parts)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _owner(path: str, owned: dict[str, list[_File]]) -> str | None:
    """The nearest folder above a file that is a skill's."""
    folder = _folder(path)
    while True:
        if folder in owned:
            return folder
        if not folder:
            return None
        folder = _folder(folder)


class _Objects:
    """`git cat-file --batch`: the content of objects, one after the other."""

    def __init__(self, clone: Clone) -> None:
        self._clone = clone
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "_Objects":
        command = [f"--git-dir={self._clone.folder}", "cat-file", "--batch"]
        self._process = self._stack.enter_context(_started(self._clone.folder.parent, command, with_input=True))
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

    def read(self, file: _File) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - asked for above
        assert stdout is not None  # noqa: S101
        try:
            stdin.write(f"{file.object_id}\n".encode())
            stdin.flush()
            head = stdout.readline().split()
            if len(head) != 3 or int(head[2]) != file.size:
                raise SourceError("The repository is damaged.")
            content = stdout.read(file.size)
            stdout.read(1)
        except OSError as exc:
            raise SourceError("git cannot read the repository.") from exc
        if len(content) != file.size:
            raise SourceError("git cannot read the repository.")
        return content


def _records(stream: IO[bytes] | None, end: bytes) -> Iterator[bytes]:
    assert stream is not None  # noqa: S101 - it is a pipe
    rest = b""
    while chunk := stream.read1(64 * 1024):  # type: ignore[attr-defined]
        *whole, rest = (rest + chunk).split(end)
        yield from whole


# --- Running git -----------------------------------------------------------------------------------------------------


def _pinned(url: str, allowed: tuple[Network, ...]) -> list[str]:
    """Options that let git connect to nothing but addresses that were judged."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise SourceError("The address of a repository has to start with https:// or http://, without a user name.")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise SourceError(f"{host} cannot be resolved.") from exc
    try:
        addresses = judged(host, addresses_of(found), allowed)
    except RefusedAddressError as exc:
        raise SourceError(str(exc)) from exc
    if re.fullmatch(r"[0-9.]+|.*:.*", host):
        # An address is what it is.
        return []
    bracketed = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
    return [f"http.curloptResolve={host}:{port}:{bracketed}"]


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join(os.get_exec_path()),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "TMPDIR": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": "https:http",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_CEILING_DIRECTORIES": str(home),
        "GIT_HTTP_USER_AGENT": "opencrane",
    }


@contextlib.contextmanager
def _started(home: Path, arguments: list[str], *, with_input: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """git with limits on memory and on the size of files; it and whatever it started end with the block."""
    git = shutil.which("git")
    if git is None:
        raise SourceError("git is not installed where workers run.")
    # The shell sets the limits: what runs between fork and exec in Python is not safe in a process with threads.
    limits = f'ulimit -c 0; ulimit -v {MEMORY_BYTES // 1024}; ulimit -f {MAX_PACK_BYTES // 512}; exec "$@"'
    with (home / "stderr").open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own words, and a URL after `--`
            ["/bin/sh", "-c", limits, "sh", git, *arguments],
            cwd=home,
            env=_environment(home),
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()


def _run(home: Path, arguments: list[str], seconds: float, ref: str) -> str:
    """What git prints; it is killed when it takes too long."""
    with _started(home, arguments) as process:
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as exc:
            raise SourceError(f"Cloning it takes longer than {seconds:g} s.") from exc
    if process.returncode:
        raise SourceError(_sentence(home, process.returncode, ref))
    return out.decode(errors="replace")


_KNOWN = (
    ("out of memory|cannot allocate|malloc failed", "Reading it takes more memory than it may."),
    # What git says when the part that writes the pack was ended for its size.
    ("invalid index-pack output|file too large|signal 25",
     f"It is larger than {MAX_PACK_BYTES // 1024 // 1024} MiB, or what it sends is damaged."),
    ("could not read Username|Authentication failed|terminal prompts disabled|error: 401|error: 403",
     "It wants credentials, which sources have none of."),
    ("error: 30[0-9]|redirect", "It redirects, which is not followed; give the address that it redirects to."),
    ("Remote branch .* not found", "It has no such branch or tag."),
    ("not found|error: 404|error: 410", "There is no repository at that address."),
    ("Could not resolve|Failed to connect|Connection refused|Connection timed out", "It cannot be connected to."),
    ("SSL certificate|certificate verify", "Its certificate is not trusted."),
    ("does not appear to be a git|not valid: is this a git|dumb http", "There is no repository at that address."),
    ("empty repository|Needed a single revision|unknown revision", "The repository is empty."),
    ("fsck error", "It holds objects that git's own check refuses."),
    ("Operation too slow|timed out", "It sends too slowly."),
)  # fmt: skip


def _sentence(home: Path, status: int, ref: str) -> str:
    """Why git failed, in our own words: what it prints has addresses in it, and what the other side says."""
    text = (home / "stderr").read_bytes()[-8192:].decode(errors="replace")
    for pattern, sentence in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            return sentence
    return f"git could not clone it (status {status})" + (f", branch or tag {ref}." if ref else ".")
