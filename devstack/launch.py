"""What `./dev` hands over to: reads the command line, makes the virtual environment, becomes the command.

Runs with the system's Python, before anything is installed: standard library only. The last step is an exec, so that
the process somebody started is the one that does the work and can be signalled.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

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
             -m 'stack or fuzz'   only what takes long, which is left out otherwise
  lint     every check that needs no services
  openapi  write the OpenAPI document                              [FILE]
  bench    measure, on a stack of its own                          [the benchmark's arguments]
  services only the database, the broker and the cluster, for work on OpenCrane itself
             --data DIR    where everything is kept                (.opencrane)
             --without-cluster
  help     this text

DATABASE_URL, REDIS_URL, KUBECONFIG and OPENCRANE_API_TOKEN each replace what ./dev up would bring.
"""


COMMANDS = ("up", "test", "lint", "openapi", "bench", "services", "help")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"dev: {message}\n\n{USAGE}")
        sys.exit(2)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no port: a number from 1 to 65535")


def _parse(argv: list[str]) -> tuple[str, Requirements, list[str]]:
    """The module to become, what has to be installed, and the module's arguments."""
    command, rest = (argv[0], argv[1:]) if argv else ("help", [])
    if command in ("test", "bench"):  # Their arguments belong to pytest and to the benchmark.
        return f"devstack.{command}", Requirements.DEVELOPMENT, rest
    if command in ("help", "-h", "--help") or rest[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        sys.exit(0)
    if command not in COMMANDS:
        _Parser().error(f"there is no command {command}")
    parser = _Parser(prog="./dev", add_help=False)
    commands = parser.add_subparsers(dest="command", parser_class=_Parser)
    commands.add_parser("lint", add_help=False)
    commands.add_parser("openapi", add_help=False).add_argument("file", nargs="?", default=str(ROOT / "openapi.json"))
    up = commands.add_parser("up", add_help=False, allow_abbrev=False)
    up.add_argument("--host")
    up.add_argument("--port", type=_port, default=8000)
    up.add_argument("--demo", action="store_true")
    services = commands.add_parser("services", add_help=False, allow_abbrev=False)
    services.add_argument("--without-cluster", action="store_true")
    for subparser in (up, services):
        subparser.add_argument("--data", default=str(ROOT / ".opencrane"))

    arguments = parser.parse_args(argv)
    # Paths are the caller's; the command itself runs in the checkout.
    if command == "lint":
        return "devstack.lint", Requirements.DEVELOPMENT, []
    if command == "openapi":
        return "devstack.openapi", Requirements.BASE, [os.path.abspath(arguments.file)]
    passed = ["--data", os.path.abspath(arguments.data)]
    if command == "services":
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
