"""`./dev test`: pytest on a PostgreSQL, a Valkey and a development cluster that exist for this run only.

`--cluster` runs `tests/cluster/` alone, against whatever KUBECONFIG names, in a namespace with a name of its own that
the tests make and delete.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devstack import child
from devstack.stack import ROOT, RUN_MARKER, Stack, python, supervised
from devstack.supervisor import POLL_SECONDS, DevError, Stopped, Supervisor

INTERRUPTED = 2  # pytest's own status for Ctrl-C


def processes() -> int:
    """How many test processes to run: one per core, or OPENCRANE_TEST_PROCESSES."""
    wanted = os.environ.get("OPENCRANE_TEST_PROCESSES", "")
    if wanted.isdigit():
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _distribution(arguments: Sequence[str]) -> list[str]:
    """How tests are spread over processes, as far as the arguments leave it open.

    A module stays in one process: what it has started serves all of its tests, and they do not meet each other.
    """
    if any(argument.startswith(("--pdb", "--trace", "--dist")) for argument in arguments):
        return []
    chosen = any(argument.startswith(("-n", "--numprocesses")) for argument in arguments)
    return [*([] if chosen else ["-n", str(processes())]), "--dist", "loadscope"]


def _pytest(arguments: Sequence[str], env: dict[str, str], supervisor: Supervisor) -> int:
    argv = python("-m", "pytest", *arguments)
    # In our own process group, so that Ctrl-C reaches pytest, which then says where it was.
    with subprocess.Popen(child.command(argv, death_signal=signal.SIGTERM), env=env, cwd=ROOT) as process:
        while (status := process.poll()) is None:
            if supervisor.hard.is_set():
                process.kill()
            elif supervisor.stop.wait(POLL_SECONDS) and process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
    return status if status >= 0 else 128 - status


def run(arguments: Sequence[str], *, cluster_only: bool) -> int:
    """Start services, run pytest on them, stop them. Returns pytest's exit status.

    Raises:
        DevError: a service does not start, or no cluster is named.
        Stopped: somebody asked to stop before pytest began.
    """
    if cluster_only and not os.environ.get("KUBECONFIG"):
        raise DevError("--cluster needs KUBECONFIG: it names the cluster that tests/cluster/ is to run against")
    folder_path = Path(tempfile.mkdtemp(prefix="opencrane-test-"))
    with supervised(folder_path, remove=True) as (folder, supervisor):
        stack = Stack(folder, supervisor, throw_away=True)
        # Whoever runs the tests may have settings of their own for `./dev up`; none of those may decide a test.
        kept = (RUN_MARKER, "OPENCRANE_TEST_", "OPENCRANE_VENV")
        stack.env = {
            name: value
            for name, value in stack.env.items()
            if not name.startswith("OPENCRANE_") or name.startswith(kept)
        }
        if cluster_only:
            stack.env.pop("DATABASE_URL", None)
            stack.env.pop("REDIS_URL", None)
        stack.start_services(replaceable=cluster_only)
        env = stack.settings() | {"OPENCRANE_DATABASE_POOL": "0"}
        env["OPENCRANE_TEST_NAMESPACE"] = f"opencrane-test-{secrets.token_hex(4)}"
        given = _distribution(arguments)
        if cluster_only:
            given.append("tests/cluster")
        return _pytest([*given, *arguments], env, supervisor)


def main() -> int:
    """Run the tests that the arguments select, by default all."""
    arguments = sys.argv[1:]
    cluster_only = "--cluster" in arguments
    try:
        return run([argument for argument in arguments if argument != "--cluster"], cluster_only=cluster_only)
    except Stopped:
        return INTERRUPTED
    except DevError as exc:
        print(f"dev: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
