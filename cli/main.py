"""Runs the command line: parses, calls, and turns whatever goes wrong into a sentence and an exit status."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from typer import Exit as TyperExit
from typer._click.exceptions import ClickException, UsageError

from cli.config import Settings
from cli.errors import CliError, Exit, ReaderGoneError
from cli.frame import PROGRAM, Program
from cli.nouns import ENTRIES

HELP = "Manage OpenCrane: tenants, what they may use, and what they cost."
ABOUT = "Begin with `opencrane login --server URL`. Exit statuses and everything else: docs/cli.md."
COMPLETE = "_OPENCRANE_COMPLETE"


def program() -> Program:
    """The root of all commands."""
    return Program(HELP, ENTRIES, ABOUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line. Returns the exit status, which docs/cli.md explains."""
    settings = Settings()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal has no letters for is no reason to fail.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        if COMPLETE in os.environ:
            from cli.complete import init

            init()
        status = program().main(
            args=None if argv is None else list(argv), prog_name=PROGRAM, standalone_mode=False, obj=settings
        )
        sys.stdout.flush()
        return status if isinstance(status, int) else Exit.OK
    except TyperExit as exc:
        return exc.exit_code
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else Exit.OK
    except UsageError as exc:
        words = exc.ctx.command_path.strip() if exc.ctx else PROGRAM
        _tell(settings, [exc.format_message().rstrip(".").replace("\n", " "), f"Next: {words} --help"])
        return Exit.USAGE
    except ClickException as exc:
        _tell(settings, [exc.format_message()])
        return Exit.FAILURE
    except CliError as exc:
        _tell(settings, exc.lines())
        return exc.status
    except KeyboardInterrupt:
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return Exit.INTERRUPTED
    except (ReaderGoneError, BrokenPipeError):
        # Nothing more may be written, not even at the end by the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    except RecursionError:
        _tell(settings, ["what was given is nested too deeply"])
        return Exit.USAGE
    except OSError as exc:
        _tell(settings, [f"{exc.filename or 'system'}: {exc.strerror or exc}"])
        return Exit.FAILURE


def _tell(settings: Settings, lines: list[str]) -> None:
    from cli.output import Output

    try:
        Output(settings).error(lines)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def run() -> Any:
    """The entry point `opencrane`."""
    sys.excepthook = _defect
    sys.exit(main())


def _defect(kind: type[BaseException], exc: BaseException, trace: Any) -> None:
    """What should not happen: a sentence for people, and with --verbose where it was."""
    if {"-v", "--verbose"} & set(sys.argv):
        sys.__excepthook__(kind, exc, trace)
    reason = " ".join(f"{kind.__name__}: {exc}".split())
    sys.stderr.write(f"opencrane: this is a defect of the program ({reason})\nNext: -v shows where; please report it\n")
