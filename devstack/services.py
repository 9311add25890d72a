"""`./dev services`: only PostgreSQL, Valkey and the development cluster, for work on the product itself.

Writes the variables that reach them to `env` in the data folder: `. .opencrane/env`.
"""

import argparse
import sys
from pathlib import Path

from devstack.stack import Stack, supervised
from devstack.supervisor import DevError, Stopped


def main() -> int:
    """Run the services in the foreground until told to stop."""
    parser = argparse.ArgumentParser(prog="./dev services")
    parser.add_argument("--data", type=Path, default=Path(".opencrane"))
    parser.add_argument("--without-cluster", action="store_true", help="PostgreSQL and Valkey only")
    arguments = parser.parse_args()
    try:
        with supervised(arguments.data) as (folder, supervisor):
            stack = Stack(folder, supervisor)
            stack.start_services(cluster=not arguments.without_cluster)
            file = stack.write_environment(stack.settings())
            supervisor.output.plain(f"services ready: . {file}")
            supervisor.stop.wait()
    except Stopped:
        return 0
    except DevError as exc:
        print(f"dev: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
