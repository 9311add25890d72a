"""`./dev bench`: the benchmark, against a whole system with production settings in a folder of its own.

The benchmark gets OPENCRANE_BENCH_URL and OPENCRANE_BENCH_TOKEN, and OPENCRANE_BENCH_PIDS: a JSON object with the
number of each process by name, so that it can tell what a request costs. DATABASE_URL, REDIS_URL and KUBECONFIG reach
the parts behind. The database keeps its promises here (fsync is on).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from devstack import ociregistry
from devstack.folder import free_port, loopback
from devstack.stack import ROOT, python, supervised
from devstack.supervisor import POLL_SECONDS, DevError, Stopped
from devstack.up import Up, listening_address


def run(arguments: list[str]) -> int:
    """Start the system, run the benchmark, stop the system. Returns the benchmark's exit status.

    Raises:
        DevError: the system does not start.
        Stopped: somebody asked to stop.
    """
    folder_path = Path(tempfile.mkdtemp(prefix="opencrane-bench-"))
    with supervised(folder_path, remove=True) as (folder, supervisor):
        system = Up(folder, supervisor, listening_address(None, free_port(loopback())))
        system.stack.env |= {
            "OPENCRANE_ENVIRONMENT": "production",
            "OPENCRANE_LOG_FORMAT": "json",
            "OPENCRANE_LOG_LEVEL": "WARNING",
        }
        # Thousands of tenants that nobody wants to run would keep it busy beside what is measured.
        system.without = {"operator"}
        system.start_services(replaceable=False)
        if registry := ociregistry.start(supervisor, folder):
            system.env["SKILL_OCI_REGISTRY_URL"] = registry
        system.prepare()
        system.serve()
        env = system.env | {
            "OPENCRANE_BENCH_URL": system.address.url,
            "OPENCRANE_BENCH_TOKEN": system.env["OPENCRANE_API_TOKEN"],
            "OPENCRANE_BENCH_PIDS": json.dumps(supervisor.pids()),
        }
        with subprocess.Popen(python("-m", "bench", *arguments), env=env, cwd=ROOT) as process:
            while (status := process.poll()) is None:
                if supervisor.stop.wait(POLL_SECONDS):
                    process.terminate()
        return status


def main() -> int:
    """Measure what the arguments select, by default all."""
    try:
        return run(sys.argv[1:])
    except Stopped:
        return 130
    except DevError as exc:
        print(f"dev: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
