"""Runs several management commands in one process: `python -m devstack.prepare migrate --noinput -- install_crds`.

Loading Django, Celery and the Kubernetes client costs more than what the commands do, so paying it once is most of the
difference between a slow start and a quick one. Knows the commands' names only from its arguments.
"""

import sys
import time

import django
from django.core.management import CommandError, call_command


def main() -> int:
    """Run the commands in order; stop at the first that fails."""
    django.setup()
    commands: list[list[str]] = [[]]
    for argument in sys.argv[1:]:
        if argument == "--":
            commands.append([])
        else:
            commands[-1].append(argument)
    for name, *arguments in commands:
        began = time.monotonic()
        try:
            call_command(name, *arguments, no_color=True)
        except CommandError as exc:
            print(f"{name}: {exc}")
            return exc.returncode
        print(f"{name}: done in {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
