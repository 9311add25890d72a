"""What can go wrong, with the exit status it has. Documented in docs/cli.md and never renumbered."""

from collections.abc import Mapping, Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    DIFFERENT = 7
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CliError(Exception):
    """Ends the command with a sentence on standard error.

    Args:
        message: one sentence, without a full stop where it ends in a name or an address.
        status: what the command exits with.
        detail: facts beyond the sentence.
        fields: path of each offending field, with the reasons.
        hint: what to do next.
        code: the API's machine-readable code, where it comes from there.
        request_id: of the answer it comes from.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Exit = Exit.FAILURE,
        detail: str = "",
        fields: Mapping[str, Sequence[str]] | None = None,
        hint: str = "",
        code: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.detail = detail
        self.fields = fields or {}
        self.hint = hint
        self.code = code
        self.request_id = request_id

    def lines(self) -> list[str]:
        """The error as it is shown: the sentence with what it is known by, then what helps."""
        known_by = ", ".join(filter(None, (self.code, self.request_id and f"request {self.request_id}")))
        lines = [self.message + (f" ({known_by})" if known_by else "")]
        if self.detail:
            lines.append(self.detail)
        lines += [f"  {path}: {' '.join(reasons)}" for path, reasons in self.fields.items()]
        if self.hint:
            lines.append(f"Next: {self.hint}")
        return lines


class UsageError(CliError):
    """The command line itself is wrong."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, status=Exit.USAGE, hint=hint)


class ReaderGoneError(Exception):
    """Whoever read standard output has had enough, as `head` has. No OSError, as Typer has its own way with those."""
