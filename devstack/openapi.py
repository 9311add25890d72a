"""`./dev openapi [FILE]`: writes the OpenAPI document; needs no running services."""

import os
import subprocess
import sys
from pathlib import Path

from devstack.stack import ROOT, python, throw_away_environment


def write(file: Path) -> int:
    """Generate and validate the document. Returns the generator's exit status."""
    command = python("manage.py", "spectacular", "--format", "openapi-json", "--validate", "--fail-on-warn")
    command += ["--file", str(file)]
    env = os.environ | throw_away_environment()
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def main() -> int:
    """Write the file that the arguments name."""
    return write(Path(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
