"""What `./dev` hands over to: reads the command line, makes the virtual environment, becomes the command.

Runs with the system's Python, before anything is installed: standard library only. The last step is an exec, so that
the process somebody started is the one that does the work and can be signalled.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # was devstack/, whose modules are not top-level ones

from devstack.install import InstallError, Requirements, environment_python  # noqa: E402 - after the path is set

USAGE = """\
usage: ./dev COMMAND

  up       run OpenCrane: database, broker, a development cluster, web, workers, in the foreground
             --host HOST   address to listen on                    (127.0.0.1)
             --port PORT   port to listen on                       (8000)
             --data DIR    where everything is kept                (.opencrane)
             --demo        fill in a small company to look at
  test     run the tests on services of their own                  [--cluster] [pytest's arguments]
             --cluster     only tests/cluster/, against the cluster that KUBECONFIG names
  lint     every check that needs no services
  openapi  write the OpenAPI document                              [FILE]
  bench    measure, on a stack of its own                          [the benchmark's arguments]
  services only the database, the broker and the cluster, for work on OpenCrane itself
             --data DIR    where everything is kept                (.opencrane)
             --without-cluster
  help     this text

DATABASE_URL, REDIS_URL, KUBECONFIG and OPENCRANE_API_TOKEN each replace what ./dev up would bring.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> "None":  # type: ignore[override]
        sys.stderr.write(f"dev: {message}\n\n{USAGE}")
        sys.exit(2)


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65_535:
        raise ValueError(text)
    return port


def _parse(argv: list[str]) -> tuple[str, Requirements, list[str]]:
    """The module to become, what has to be installed, and the module's arguments."""
    parser = _Parser(prog="./dev", add_help=False, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", parser_class=_Parser)
    commands.add_parser("help", add_help=False)
    up = commands.add_parser("up", add_help=False, allow_abbrev=False)
    up.add_argument("--host", default=None)
    up.add_argument("--port", type=_port, default=8000)
    up.add_argument("--data", default=None)
    up.add_argument("--demo", action="store_true")
    services = commands.add_parser("services", add_help=False, allow_abbrev=False)
    services.add_argument("--data", default=None)
    services.add_argument("--without-cluster", action="store_true")
    openapi = commands.add_parser("openapi", add_help=False)
    openapi.add_argument("file", nargs="?", default="")
    lint = commands.add_parser("lint", add_help=False)
    for name in ("test", "bench"):
        commands.add_parser(name, add_help=False)

    if not argv or argv[0] in ("help", "-h", "--help") or "--help" in argv[1:2] or "-h" in argv[1:2]:
        if argv and argv[0] in ("test", "bench") and len(argv) > 1:
            return f"devstack.{argv[0]}", Requirements.DEVELOPMENT, argv[1:]
        sys.stdout.write(USAGE)
        sys.exit(0)
    if argv[0] in ("test", "bench"):  # Their arguments belong to somebody else.
        return f"devstack.{argv[0]}", Requirements.DEVELOPMENT, argv[1:]
    del lint
    arguments = parser.parse_args(argv)
    if arguments.command == "lint":
        return "devstack.lint", Requirements.DEVELOPMENT, []
    if arguments.command == "openapi":
        file = os.path.abspath(arguments.file) if arguments.file else str(ROOT / "openapi.json")
        return "devstack.openapi", Requirements.BASE, [file]
    data = os.path.abspath(arguments.data) if arguments.data else str(ROOT / ".opencrane")
    passed = ["--data", data]
    if arguments.command == "services":
        return "devstack.services", Requirements.BASE, passed + ["--without-cluster"] * arguments.without_cluster
    passed += ["--port", str(arguments.port), *(["--host", arguments.host] if arguments.host else [])]
    return "devstack.up", Requirements.BASE, passed + ["--demo"] * arguments.demo


def main() -> None:
    """Become the command that the arguments name."""
    module, requirements, passed = _parse(sys.argv[1:])
    try:
        python = environment_python(ROOT, requirements)
    except InstallError as exc:
        sys.exit(f"dev: {exc}")
    except KeyboardInterrupt:
        sys.exit(130)
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(python, [python, "-m", module, *passed])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
