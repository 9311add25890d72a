"""The inside of the sandbox: `python -I child.py FOLDER`, started by `sandbox` and by nobody else.

Reads `request.json` and `content` in FOLDER and writes `report.json` there. Whose turn it was stands in `turn`, so that
a crash can be laid at a scanner's door; what was wrong with the content never leaves by stderr.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import TracebackType

FILES = 64
LARGEST_FILE = 128 * 1024 * 1024
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def confine(*, memory_mb: int | None, seconds: int) -> None:
    """Give up what a scan has no need of. Limits always; the network where the kernel lets anybody cut it off."""
    if memory_mb is not None:
        _limit(resource.RLIMIT_AS, memory_mb * 1024 * 1024)
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_FSIZE, LARGEST_FILE)
    _limit(resource.RLIMIT_NOFILE, FILES)
    _limit(resource.RLIMIT_CORE, 0)
    os.umask(0o077)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        # A worker that is killed takes its scan with it.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Many containers refuse it; scanners that talk to nobody are still all that runs here.
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    confine(memory_mb=request["memory_mb"], seconds=request["cpu_seconds"])
    sys.path.insert(0, request["root"])
    from skills.scanning import external, pipeline

    turn = folder / "turn"

    def note(name: str) -> None:
        turn.write_text(name)

    def tell_kind(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        # The message may quote the content; its kind does not.
        del value, trace
        with contextlib.suppress(OSError):
            (folder / "crash").write_text(kind.__name__)

    sys.excepthook = tell_kind
    content = (folder / "content").read_bytes()
    report, material = pipeline.run(content, name=request["name"], content_type=request["content_type"], note=note)
    if request["tools"]:
        external.lay_out(material, folder / "files")
    unfinished = folder / "report.unfinished"
    unfinished.write_text(json.dumps(report.as_json()))
    unfinished.rename(folder / "report.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
