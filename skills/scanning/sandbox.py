"""Scan content in a process of its own that may do next to nothing: the only way from the product to the scanners.

The process gets no environment, a folder that goes with it, a limit of memory, of processor time, of files and of the
clock. It is given files and leaves a file; whatever else it does, dying included, is a scan that failed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from skills.scanning import external
from skills.scanning.findings import Finding, Report, ScannerRun

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).resolve().parent / "child.py"
MAX_REPORT = 8 * 1024 * 1024
MAX_OUTPUT = 32 * 1024 * 1024


class SandboxError(Exception):
    """The sandbox could not be made: no processes, no disk. Nothing is said about the content."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one scan may use.

    Attributes:
        seconds: of the clock; the same of processor time.
        memory_mb: address space, which is a little more than memory.
    """

    seconds: int
    memory_mb: int


def scan(content: bytes, *, name: str, content_type: str, limits: Limits) -> Report:
    """What the scanners find in the content. Never raises for what the content does: that is a report with an error.

    Raises:
        SandboxError: the machine could not run it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="opencrane-scan-") as made:
            folder = Path(made)
            tools = external.tools()
            request = {
                "root": str(ROOT),
                "name": name,
                "content_type": content_type,
                "memory_mb": limits.memory_mb,
                "cpu_seconds": limits.seconds,
                "tools": [tool.name for tool in tools],
            }
            (folder / "request.json").write_text(json.dumps(request))
            (folder / "content").write_bytes(content)
            report = _pipeline(folder, limits)
            for tool in tools:
                if not report.error:
                    _run_tool(tool, folder, limits, report)
            return report
    except OSError as exc:
        raise SandboxError(f"{exc.strerror or type(exc).__name__}") from exc


def _pipeline(folder: Path, limits: Limits) -> Report:
    command = [sys.executable, "-I", "-B", str(CHILD), str(folder)]
    environment = {"LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder)}
    status = _run(command, folder, environment, limits.seconds)
    scanner = _word(folder / "turn") or "sandbox"
    if why := _why(status, limits):
        crash = _word(folder / "crash")
        why = f"ran out of {limits.memory_mb} MB of memory" if crash == "MemoryError" else why
        return Report(error=f"The scan did not end: {scanner} {why}{f' ({crash})' if crash else ''}.")
    report = folder / "report.json"
    try:
        if report.stat().st_size > MAX_REPORT:
            raise ValueError("too long")
        return Report.from_json(json.loads(report.read_bytes()))
    except (FileNotFoundError, ValueError, RecursionError):
        return Report(error="The scan ended without a report that can be read.")


def _run_tool(tool: external.Tool, folder: Path, limits: Limits, report: Report) -> None:
    """Have a program of others look, and add what it says."""
    files = folder / "files"
    began = time.monotonic()
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); from skills.scanning.child import confine;"
        "confine(memory_mb=None, seconds=int(sys.argv[2])); os.execv(sys.argv[3], sys.argv[3:])"
    )
    command = [sys.executable, "-I", "-B", "-c", code, str(ROOT), str(limits.seconds), *tool.command(files)]
    status = _run(command, folder, external.environment(folder), limits.seconds)
    if why := _why(status, limits):
        report.error = f"The scan did not end: {tool.name} {why}."
        return
    try:
        output = folder / "output"
        if output.stat().st_size > MAX_OUTPUT:
            raise ValueError("too long")
        found: list[Finding] = external.parsed(tool.name, output.read_bytes(), files)
    except (ValueError, RecursionError):
        report.error = f"The scan did not end: {tool.name} said nothing that can be read."
        return
    report.findings += found
    report.scanners.append(ScannerRun(tool.name, "", round(time.monotonic() - began, 3), len(found)))


def _run(command: list[str], folder: Path, environment: dict[str, str], seconds: int) -> int | None:
    """Run to the end, or to the end of the time; its status, negative for a signal, None when the time was up."""
    with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
        # A session of its own, so that whatever it has started ends with it.
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, or a tool that the operator has installed
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            has_ended = _has_ended(process.pid, time.monotonic() + seconds)
        finally:
            # Not reaped yet, so the number is still its own.
            with contextlib.suppress(PermissionError):  # macOS, for a group whose only process has ended
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
    return status if has_ended else None


def _has_ended(pid: int, deadline: float) -> bool:
    """Wait for a process without reaping it; False when the time is up."""
    pause = 0.005
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 2, 0.05)
    return True


def _why(status: int | None, limits: Limits) -> str:
    """Why a process did not do its work; empty when it did."""
    if status == 0:
        return ""
    if status is None:
        return f"took longer than {limits.seconds} s"
    if status == -signal.SIGXCPU:
        return f"used more than {limits.seconds} s of processor time"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return "crashed"


def _word(path: Path) -> str:
    try:
        text = path.read_bytes()[:40].decode("ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return text if text.isidentifier() else ""
