"""`python -m devstack.cluster --data DIR`: serve a development cluster in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from devstack.cluster.folder import DataFolder, FolderError
from devstack.cluster.server import StartError, serve
from devstack.cluster.store import HISTORY_EVENTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack.cluster", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds everything")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0: the port used before, or at first a free one")
    parser.add_argument("--namespace", default="opencrane", help="namespace to make and to name in the kubeconfig")
    parser.add_argument(
        "--history",
        type=int,
        default=HISTORY_EVENTS,
        help="changes of each kind that a watch can go back (%(default)s)",
    )
    parser.add_argument("--audit-log-path", type=Path, help="file to which every request is appended")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Everything written from here on, SQLite's files too, is for the owner alone.
    os.umask(0o077)
    try:
        serve(
            DataFolder(arguments.data),
            arguments.host,
            arguments.port,
            arguments.namespace,
            arguments.history,
            arguments.audit_log_path,
        )
    except (FolderError, StartError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
