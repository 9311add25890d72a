"""What the processes of the stack use, and what machine this is. Read from /proc; elsewhere the figures stay empty."""

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")
MIB = 1024 * 1024


def _parents() -> dict[int, int]:
    """The parent of every process."""
    parents = {}
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    return parents


def families(roots: Mapping[str, int]) -> dict[str, list[int]]:
    """Each root process with all its descendants."""
    parents = _parents()
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found = {}
    for name, root in roots.items():
        members, waiting = [], [root] if root in parents else []
        while waiting:
            pid = waiting.pop()
            members.append(pid)
            waiting += children.get(pid, [])
        found[name] = members
    return found


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """CPU time used so far by each root process and its living descendants."""
    tick = os.sysconf("SC_CLK_TCK")
    used = {}
    for name, members in families(roots).items():
        total = 0
        for pid in members:
            try:
                fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        used[name] = total / tick
    return used


def memory_mib(roots: Mapping[str, int], name: str) -> float | None:
    """Resident memory of the largest process of a family: of the web server, the worker that runs Django."""
    sizes = []
    for pid in families(roots).get(name, []):
        try:
            pages = int((PROC / str(pid) / "statm").read_text().split()[1])
        except OSError:
            continue
        sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / MIB)
    return max(sizes, default=None)


def wait_until_idle(roots: Mapping[str, int], *, most_seconds: float = 60.0) -> None:
    """Return when the stack has used less than 10 % of a core for a second."""
    deadline = time.monotonic() + most_seconds
    while roots and time.monotonic() < deadline:
        before = sum(cpu_seconds(roots).values())
        time.sleep(1.0)
        if sum(cpu_seconds(roots).values()) - before < 0.1:
            return


def load() -> float | None:
    """The load average of the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def describe() -> dict[str, object]:
    """The machine, without any name of it."""
    model = ""
    try:
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.processor()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {
        "cpu": model or platform.machine(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
