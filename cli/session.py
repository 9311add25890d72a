"""What a command works with: settings, a client made when it is needed, output, and somebody to ask."""

import getpass
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cli.config import Settings
from cli.errors import CliError, Exit, UsageError
from cli.output import Output

if TYPE_CHECKING:
    from cli.client import Client


class Session:
    """One run of one command.

    Args:
        words: the command as somebody would type it, for hints: `tenants delete`.
    """

    def __init__(self, settings: Settings, words: str = "") -> None:
        self.settings = settings
        self.words = words
        self.out = Output(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @cached_property
    def client(self) -> "Client":
        from cli.client import Client
        from cli.config import Store, target

        found = target(self.settings)
        if found.context and Store().is_exposed():
            self.out.note(f"opencrane: others may read {Store().tokens_path}; chmod 600 it")
        return Client(found, timeout=self.settings.timeout, verbose=self.settings.verbose)

    # --- Asking ------------------------------------------------------------------------------------------------------

    @property
    def can_ask(self) -> bool:
        """Whether somebody sits at a terminal."""
        return sys.stdin.isatty() and self.out.stderr.isatty()

    def confirm(self, question: str, *, yes: bool, typed: str = "") -> None:
        """Go on only if somebody says so.

        Args:
            question: names what will be touched.
            yes: what `--yes` says; nobody is asked then.
            typed: what has to be typed instead of `y`, for what cannot be undone.

        Raises:
            CliError: they said no, or there is nobody to ask.
        """
        if yes:
            return
        if not self.can_ask:
            raise UsageError("this asks first, and there is no terminal to ask on", hint="--yes, if that is meant")
        from cli import texts

        self.out.note(texts.clean(question, lines=True))
        prompt = f"Type {typed} to go on: " if typed else "Go on? [y/N] "
        self.out.stderr.write(texts.clean(prompt))
        self.out.stderr.flush()
        answer = sys.stdin.readline().strip()
        is_agreed = answer == typed if typed else answer.lower() in ("y", "yes")
        if not is_agreed:
            raise CliError("nothing was changed")

    def secret(self, prompt: str, source: str = "") -> str:
        """A secret from a file, from standard input (`-`), or typed without being shown.

        Raises:
            CliError: there is none.
        """
        if source:
            value = self.text(source)
        elif sys.stdin.isatty():
            value = getpass.getpass(f"{prompt}: ")
        else:
            value = sys.stdin.read()
        if not value.strip():
            raise UsageError(f"no {prompt.lower()} was given")
        return value.strip()

    # --- Files -------------------------------------------------------------------------------------------------------

    def bytes(self, source: str) -> bytes:
        """What a file holds; `-` is standard input.

        Raises:
            UsageError: it cannot be read.
        """
        if source == "-":
            if sys.stdin.isatty():
                self.out.note("Reading from the terminal; end with Ctrl-D.")
            return sys.stdin.buffer.read()
        try:
            return Path(source).expanduser().read_bytes()
        except OSError as exc:
            raise UsageError(f"cannot read {source}: {exc.strerror}") from exc

    def text(self, source: str) -> str:
        """`bytes`, as UTF-8."""
        try:
            return self.bytes(source).decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise UsageError(f"{source} is no UTF-8 text") from exc

    # --- Waiting -----------------------------------------------------------------------------------------------------

    def until(
        self, look: Callable[[], Any], done: Callable[[Any], bool], *, what: str, seconds: float, every: float = 1.0
    ) -> Any:
        """Look again and again until it is `done`; returns what was seen then.

        Raises:
            CliError: it was not, in time.
        """
        end = time.monotonic() + seconds
        while True:
            seen = look()
            if done(seen):
                return seen
            if time.monotonic() + every > end:
                raise CliError(f"{what}: not within {seconds:g} s", status=Exit.UNAVAILABLE)
            time.sleep(every)


def each(session: Session, names: Sequence[str], act: Callable[[str], None]) -> None:
    """Do something for each name; what fails does not keep the others from their turn.

    Raises:
        CliError: the last failure, after all have been told, where there was one.
    """
    failures = []
    for name in dict.fromkeys(names):
        try:
            act(name)
        except CliError as exc:
            # Neither of them would become true for the next name.
            if len(names) == 1 or exc.status in (Exit.USAGE, Exit.DENIED):
                raise
            session.out.error([f"{name}: {exc.lines()[0]}", *exc.lines()[1:]])
            failures.append(exc)
    if failures:
        raise CliError(f"{len(failures)} of {len(names)} failed", status=failures[-1].status)
