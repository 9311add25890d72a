"""`./dev lint`: every check that needs no services, each under its name; all of them run, whatever the others say."""

import filecmp
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from devstack import openapi
from devstack.stack import ROOT, python, throw_away_environment


def _command(*argv: str) -> Callable[[Mapping[str, str]], bool]:
    def run(env: Mapping[str, str]) -> bool:
        return subprocess.run(python(*argv), cwd=ROOT, env=dict(env), check=False).returncode == 0

    return run


def _document_is_current(env: Mapping[str, str]) -> bool:
    del env  # It makes its own.
    checked_in = ROOT / "openapi.json"
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "openapi.json"
        if openapi.write(fresh) != 0:
            return False
        if not checked_in.exists():
            print("there is no openapi.json; make it with ./dev openapi")
            return False
        if filecmp.cmp(checked_in, fresh, shallow=False):
            return True
        diff = ["diff", "-u", "--label", "openapi.json", "--label", "generated", str(checked_in), str(fresh)]
        shown = subprocess.run(diff, text=True, capture_output=True, check=False).stdout.splitlines()
        print("\n".join(shown[:60]))
        print(f"openapi.json is out of date ({len(shown)} lines of difference); renew it with ./dev openapi")
        return False


STEPS: dict[str, Callable[[Mapping[str, str]], bool]] = {
    "ruff check": _command("-m", "ruff", "check"),
    "ruff format": _command("-m", "ruff", "format", "--check"),
    "mypy": _command("-m", "mypy", "."),
    "import-linter": _command("-c", "import sys; from importlinter.cli import lint_imports_command as run; run()"),
    "check --deploy": _command("manage.py", "check", "--deploy", "--fail-level", "WARNING"),
    "makemigrations --check": _command("-W", "ignore", "manage.py", "makemigrations", "--check", "--dry-run"),
    "openapi": _document_is_current,
}


def main() -> int:
    """Run all steps and sum up. Status 1 when one failed."""
    env = os.environ | throw_away_environment()
    results: dict[str, bool] = {}
    for name, step in STEPS.items():
        print(f"--- {name}", flush=True)
        began = time.monotonic()
        results[name] = step(env)
        print(f"--- {name}: {'ok' if results[name] else 'FAILED'} ({time.monotonic() - began:.1f} s)\n", flush=True)
    for name, ok in results.items():
        print(f"{'ok    ' if ok else 'FAILED'} {name}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
