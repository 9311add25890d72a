"""Makes the virtual environment and keeps it in step with the requirement files.

Which index packages come from is pip's configuration, never ours. A stamp holds the hash of what was installed, so that
a start without changes costs a few milliseconds. Runs with the system's Python: standard library only.
"""

import contextlib
import enum
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from devstack import child

LINES_TO_SHOW = 15
REPORT_EVERY = 10


class InstallError(Exception):
    """Why the environment could not be made, as one sentence."""


class Requirements(enum.Enum):
    """Which requirement files; the value is a name for the stamp."""

    BASE = "base"
    DEVELOPMENT = "development"

    @property
    def files(self) -> tuple[str, ...]:
        base = ("requirements.txt", "devstack/requirements.txt")
        return (*base, "requirements-dev.txt") if self is Requirements.DEVELOPMENT else base


def environment_python(root: Path, requirements: Requirements) -> str:
    """The environment's interpreter, after making and filling the environment where needed.

    The environment is `.venv` beside `./dev`, or the folder that OPENCRANE_VENV names.

    Raises:
        InstallError: it cannot be made or filled.
    """
    environment = Path(os.environ.get("OPENCRANE_VENV") or root / ".venv").absolute()
    python = environment / "bin" / "python"
    if _is_current(root, environment, requirements):
        _place_command(root, environment)
        return str(python)
    with _locked(environment):
        if _is_current(root, environment, requirements):  # Somebody else did it meanwhile.
            _place_command(root, environment)
            return str(python)
        interrupted = environment / ".opencrane-installing"
        if not _works(python):
            _make(environment)
        try:
            if interrupted.exists():
                _forget_half_installed(environment)
            interrupted.touch()
            _fill(root, python, requirements)
            _write_stamp(root, environment, requirements)
            interrupted.unlink(missing_ok=True)
        except OSError as exc:
            raise InstallError(
                f"cannot write to {environment} ({exc.strerror}); set OPENCRANE_VENV to a folder"
            ) from exc
        _place_command(root, environment)
    return str(python)


_COMMAND = """\
#!/bin/sh
# The opencrane command of this checkout; ./dev puts it here.
exec {python} -I -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.main import run; run()' {root} "$@"
"""


def _place_command(root: Path, environment: Path) -> None:
    """Put `opencrane` into the environment, running this checkout's `cli`: no build, and changes count at once.

    A shell starts it, since a path may be longer than what may stand behind `#!`, or hold spaces.
    """
    command = environment / "bin" / "opencrane"
    text = _COMMAND.format(python=shlex.quote(str(environment / "bin" / "python")), root=shlex.quote(str(root)))
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if command.read_text(encoding="utf-8") == text:
            return
    # An environment that only others may write to comes with what they put there.
    with contextlib.suppress(OSError):
        fresh = command.with_name(f".opencrane-{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o755)
        fresh.replace(command)


def _hash(root: Path, requirements: Requirements) -> str:
    digest = hashlib.sha256()
    for name in requirements.files:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def _stamp(environment: Path) -> dict[str, str]:
    try:
        stamp = json.loads((environment / ".opencrane-stamp").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _is_current(root: Path, environment: Path, requirements: Requirements) -> bool:
    return (
        os.path.exists(environment / "bin" / "python")  # False, too, when the Python it links to was removed
        and not (environment / ".opencrane-installing").exists()
        and _stamp(environment).get(requirements.value) == _hash(root, requirements)
    )


def _write_stamp(root: Path, environment: Path, requirements: Requirements) -> None:
    stamp = {requirements.value: _hash(root, requirements)}
    if requirements is Requirements.DEVELOPMENT:
        stamp[Requirements.BASE.value] = _hash(root, Requirements.BASE)
    (environment / ".opencrane-stamp").write_text(json.dumps(stamp), encoding="utf-8")


@contextlib.contextmanager
def _locked(environment: Path) -> Iterator[None]:
    """One installation at a time. The lock is on the folder around the environment, so that it needs no file."""
    try:
        environment.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(environment.parent, os.O_RDONLY)
    except OSError as exc:
        raise InstallError(f"cannot make {environment} ({exc.strerror}); set OPENCRANE_VENV to a folder") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("dev: another ./dev is installing; waiting for it", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _works(python: Path) -> bool:
    if not os.path.exists(python):
        return False
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


def _forget_half_installed(environment: Path) -> None:
    """Make pip install again what an interrupted run had begun to unpack, which it would take for installed.

    pip writes INSTALLER after a package's own files. What else is in the environment stays: it may be somebody's.
    """
    for information in environment.glob("lib/python*/site-packages/*.dist-info"):
        if not (information / "INSTALLER").exists():
            shutil.rmtree(information)


def _make(environment: Path) -> None:
    # --clear below empties the folder, which has to be an environment and nothing else.
    if environment.is_dir() and any(environment.iterdir()) and not (environment / "pyvenv.cfg").exists():
        raise InstallError(f"{environment} is not empty and no virtual environment; name another folder")
    try:
        import ensurepip  # noqa: F401 - Debian splits it off, and venv's own message about that is a page long
        import venv  # noqa: F401
    except ImportError as exc:
        raise InstallError(
            f"{sys.executable} has no venv module; on Debian and Ubuntu: apt install python3-venv"
        ) from exc
    print(f"dev: making {environment}", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(environment)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["venv said nothing"]
        raise InstallError(
            f"cannot make {environment}: {lines[-1]}; run from a folder you may write to, or set OPENCRANE_VENV to one"
        )


def _fill(root: Path, python: Path, requirements: Requirements) -> None:
    # The files are complete locks, so pip has nothing to resolve.
    command = [str(python), "-m", "pip", "install", "--no-deps", "--no-input", "--progress-bar=off"]
    command += ["--disable-pip-version-check"]
    names: set[str] = set()
    for file in requirements.files:
        command += ["-r", file]
        text = (root / file).read_text(encoding="utf-8")
        names.update(re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", text, flags=re.MULTILINE))
    progress = _Progress(len(names))
    last: deque[str] = deque(maxlen=LINES_TO_SHOW)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    # pip's cursor control and colours have no place in what we read.
    env |= {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    # Killed together with this process: an orphan would go on writing while the next ./dev starts afresh.
    command = child.command(command, death_signal=signal.SIGKILL)
    with subprocess.Popen(
        command, cwd=root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for mypy; it was opened with a pipe
        for line in process.stdout:
            last.append(line.rstrip())
            progress.see(line)
    progress.end()
    if process.returncode != 0:
        print("\n".join(last), file=sys.stderr)
        raise InstallError(
            "pip could not install what OpenCrane needs (its last words are above); put that right and run ./dev again"
        )


class _Progress:
    """Turns pip's wall of text into a count: one line rewritten on a terminal, one in ten packages elsewhere."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.live = sys.stdout.isatty()

    def see(self, line: str) -> None:
        if line.startswith(("Collecting ", "Requirement already satisfied: ")):
            self.done = min(self.done + 1, self.total)
            name = re.split(r"[=<>! (]", line.partition(": ")[2] or line.removeprefix("Collecting "))[0]
            if self.live:
                print(f"\rdev: fetching {self.done} of {self.total} packages: {name:<40}", end="", flush=True)
            elif self.done % REPORT_EVERY == 0:
                print(f"dev: fetching {self.done} of {self.total} packages", flush=True)
        elif line.startswith("Installing collected packages"):
            count = line.count(",") + 1
            print(f"{chr(10) * self.live}dev: unpacking {count} packages, about a minute", flush=True)

    def end(self) -> None:
        if self.live:
            print(flush=True)


__all__ = ["InstallError", "Requirements", "environment_python"]
