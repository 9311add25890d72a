"""A real OpenID provider: npm's oidc-provider, which is certified, run by node on this machine."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CLIENT_ID, CLIENT_SECRET = "opencrane", "the secret of the tests' client"
_FILES = ("package.json", "package-lock.json", "provider.mjs")


@contextmanager
def running_provider(redirect_uri: str, afterwards: str) -> Iterator[str]:
    """The issuer of a provider with one client and a few people; see provider.mjs.

    Args:
        redirect_uri: where it sends the browser with a code.
        afterwards: where it sends the browser that has signed out.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node with npm on this machine (Debian: apt install nodejs npm)")
    folder = _installed(npm)
    command = [node, "--no-warnings", "provider.mjs", CLIENT_ID, CLIENT_SECRET, redirect_uri, afterwards]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # What it has to say about itself comes first.
            issuer = next((line.strip() for line in process.stdout if line.startswith("http")), "")
            assert issuer, f"the OpenID provider ended with status {process.wait(30)}"
            yield issuer
        finally:
            process.stdin.close()
            process.wait(30)


def _installed(npm: str) -> Path:
    """A folder with the provider and its packages, outside the repository; made once for each lock file."""
    content = b"".join((HERE / name).read_bytes() for name in _FILES)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opencrane"
    if not _can_write(base):
        base = Path(tempfile.gettempdir()) / f"opencrane-{os.getuid()}"
    folder = base / f"openid-provider-{hashlib.sha256(content).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    base.mkdir(parents=True, exist_ok=True)
    # Several test processes may do this at once: each in a folder of its own, and the first one counts.
    draft = Path(tempfile.mkdtemp(prefix="openid-provider-", dir=base))
    for name in _FILES:
        shutil.copy(HERE / name, draft)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=draft, capture_output=True, text=True, check=False, timeout=170)
    if done.returncode != 0:
        shutil.rmtree(draft)
        pytest.fail(f"npm ci failed: {done.stderr[-2000:]}")
    with contextlib.suppress(OSError):
        draft.rename(folder)
    shutil.rmtree(draft, ignore_errors=True)
    return folder


def _can_write(base: Path) -> bool:
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(base, os.W_OK)
