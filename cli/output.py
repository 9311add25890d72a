"""What commands print: tables for people, the same columns as plain text for pipes, and the API's own answer as JSON or
YAML.

On a terminal, tables are fitted to it, times are relative and states have colours. Anywhere else nothing is cut, times
are exact and there is no colour, so that what a script sees does not depend on who runs it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from cli import texts
from cli.config import Settings

FORMATS = ("table", "wide", "json", "yaml", "name")

_TONES = {
    "green": """Running ready healthy synced active published passed succeeded ok delivered allow pushed imported
        created""",
    "yellow": """Pending waiting provisioning warning queued running pending scanning syncing degraded drifted review
        new pending-approval unavailable retiring revoking update configured field-mismatch missing-projection
        missing-source""",
    "red": "Error failed failing exceeded critical unhealthy deny error expired unusable high",
    "bright_black": """Suspended draft unknown cancelled revoked deprecated deleting none gone unchanged skipped low
        info""",
}
_TONE = {word: tone for tone, words in _TONES.items() for word in words.split()}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        value: a dotted path into the row, or a function of it.
        form: `text`, `age`, `money`, `size`, `count` or `state`.
        wide: whether only `-o wide` shows it.
    """

    title: str
    value: str | Callable[[Any], Any]
    form: str = "text"
    wide: bool = False

    def of(self, row: Any) -> Any:
        """The row's value, None where there is none."""
        return self.value(row) if callable(self.value) else at(row, self.value)


def at(row: Any, path: str) -> Any:
    """What a dotted path leads to in nested objects; None where it ends early."""
    for key in path.split("."):
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


def column(title: str, value: str | Callable[[Any], Any], form: str = "text") -> Column:
    """A column that tables always have."""
    return Column(title, value, form)


def wide(title: str, value: str | Callable[[Any], Any], form: str = "text") -> Column:
    """A column of `-o wide`."""
    return Column(title, value, form, wide=True)


class Output:
    """Standard output and standard error of one command."""

    def __init__(self, settings: Settings, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.format = settings.output or "table"
        self.has_headers = not settings.no_headers
        is_plain = settings.no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self.is_terminal = self.stdout.isatty()
        self.is_coloured = self.is_terminal and not is_plain
        self._is_plain = is_plain

    @property
    def is_for_people(self) -> bool:
        """Whether tables and sentences are wanted, not data."""
        return self.format in ("table", "wide")

    def line(self, text: str = "") -> None:
        """A line of the result."""
        self.stdout.write(f"{text}\n")

    def note(self, text: str) -> None:
        """Something for whoever watches; never part of the result."""
        self.stdout.flush()
        self.stderr.write(f"{text}\n")
        self.stderr.flush()

    def error(self, lines: Sequence[str]) -> None:
        """An error, on standard error."""
        self.stdout.flush()
        head, *rest = [texts.clean(line) for line in lines]
        red, end = ("\033[31m", "\033[0m") if self.stderr.isatty() and not self._is_plain else ("", "")
        self.stderr.write("\n".join([f"{red}opencrane:{end} {head}", *rest]) + "\n")
        self.stderr.flush()

    # --- Data --------------------------------------------------------------------------------------------------------

    def data(self, value: Any) -> None:
        """A value as JSON or YAML, whole."""
        if self.format == "yaml":
            from cli import yamls

            self.stdout.write(yamls.dump(value))
        else:
            self.line(_json(value))

    def rows(
        self, pages: Iterable[Sequence[Any]], columns: Sequence[Column], label: Callable[[Any], str], *, empty: str = ""
    ) -> int:
        """A list, page by page as it comes. Returns how many rows there were.

        Args:
            label: what `-o name` shows of a row.
            empty: what to tell people when there is nothing.
        """
        count = 0
        writer = {"json": self._json_rows, "yaml": self._yaml_rows, "name": self._names}.get(self.format)
        if writer is not None:
            return writer(pages, label)
        shown = [each for each in columns if self.format == "wide" or not each.wide]
        widths: list[int] = []
        for rows in pages:
            if rows:
                self._table(rows, shown, widths, is_first=not count)
                self.stdout.flush()
                count += len(rows)
        if not count and empty:
            self.note(empty)
        return count

    def _json_rows(self, pages: Iterable[Sequence[Any]], label: Callable[[Any], str]) -> int:
        del label
        count = 0
        for rows in pages:
            for row in rows:
                text = "\n".join(f"  {line}" for line in _json(row).splitlines())
                self.stdout.write(f"{',' if count else '['}\n{text}")
                count += 1
        self.line("\n]" if count else "[]")
        return count

    def _yaml_rows(self, pages: Iterable[Sequence[Any]], label: Callable[[Any], str]) -> int:
        del label
        from cli import yamls

        count = 0
        for rows in pages:
            if rows:
                self.stdout.write(yamls.dump(list(rows)))
                count += len(rows)
        if not count:
            self.line("[]")
        return count

    def _names(self, pages: Iterable[Sequence[Any]], label: Callable[[Any], str]) -> int:
        count = 0
        for rows in pages:
            for row in rows:
                self.line(texts.clean(label(row)))
                count += 1
        return count

    # --- Tables ------------------------------------------------------------------------------------------------------

    def cell(self, value: Any, form: str) -> str:
        """A value as a table or a list of fields has it."""
        if value is None or value == "":
            return "-"
        match form:
            case "age":
                return texts.age(value) if self.is_terminal else str(value)
            case "money":
                return texts.money(value)
            case "size":
                return texts.size(value) if self.is_terminal else str(value)
            case "count":
                return f"{value:,}" if self.is_terminal and isinstance(value, int) else str(value)
        return texts.plain(value)

    def table(self, rows: Sequence[Any], columns: Sequence[Column]) -> None:
        """A table of its own, for instance within a report."""
        if rows:
            shown = [each for each in columns if self.format == "wide" or not each.wide]
            self._table(rows, shown, [], is_first=True)

    def _table(self, rows: Sequence[Any], columns: Sequence[Column], widths: list[int], *, is_first: bool) -> None:
        cells = [[self.cell(each.of(row), each.form) for each in columns] for row in rows]
        titles = [each.title for each in columns]
        is_headed = is_first and self.has_headers
        needed = [
            max(texts.width(text) for text in (title, *column))
            for title, column in zip(titles, zip(*cells, strict=True), strict=True)
        ]
        if is_first:
            widths[:] = self._fitted(needed)
        elif not self._is_fitted:
            widths[:] = map(max, widths, needed)
        for line in [titles, *cells] if is_headed else cells:
            made = []
            for text, room, each in zip(line, widths, columns, strict=True):
                shown = _cut(text, room) if self._is_fitted else text
                padding = " " * (room - texts.width(shown))
                if line is titles:
                    shown = f"\033[1m{shown}\033[0m" if self.is_coloured else shown
                elif each.form == "state":
                    shown = self.tone(shown, text)
                is_number = each.form in ("money", "size", "count") and self.is_terminal
                made.append(f"{padding}{shown}" if is_number else f"{shown}{padding}")
            self.line("  ".join(made).rstrip())

    @property
    def _is_fitted(self) -> bool:
        return self.is_terminal and self.format != "wide"

    def _fitted(self, needed: Sequence[int]) -> list[int]:
        """Widths of columns: the widest give way until the terminal is wide enough."""
        widths = list(needed)
        if not self._is_fitted:
            return widths
        import shutil

        room = shutil.get_terminal_size().columns - 2 * (len(widths) - 1)
        # What it is called comes last: a name that is cut cannot be copied.
        for candidates in (range(1, len(widths)), range(len(widths))):
            while sum(widths) > room and (widest := max(candidates, key=widths.__getitem__, default=0)) in candidates:
                if widths[widest] <= _NARROWEST:
                    break
                widths[widest] = max(_NARROWEST, widths[widest] - max(1, (sum(widths) - room) // len(widths)))
        return widths

    def tone(self, shown: str, word: str = "") -> str:
        """Text in the colour of the state it names, where there are colours."""
        code = _CODES.get(_TONE.get(word or shown, "")) if self.is_coloured else None
        return f"\033[{code}m{shown}\033[0m" if code else shown

    # --- One thing ---------------------------------------------------------------------------------------------------

    def thing(self, value: Any, label: str, describe: Callable[["Output", Any], None] | None = None) -> None:
        """One object: as data, as its name, or field by field.

        Args:
            describe: shows it to people, where fields alone would not do.
        """
        if self.format == "name":
            self.line(texts.clean(label))
        elif not self.is_for_people:
            self.data(value)
        elif describe is not None:
            describe(self, value)
        else:
            self.fields(value)

    def fields(
        self, value: Mapping[str, Any], indent: int = 0, *, skip: Sequence[str] = (), are_ours: bool = True
    ) -> None:
        """An object's fields, one to a line: nested objects stand in, lists of objects are tables.

        Args:
            skip: fields to leave out.
            are_ours: whether the keys are names of fields; else they are somebody's and stay as they are.
        """
        shown = {key: each for key, each in value.items() if key not in skip}
        labels = {key: _label(key) if are_ours else texts.clean(key) for key in shown}
        room = max([texts.width(label) for label in labels.values()], default=0) + 2
        for key, each in shown.items():
            label = f"{labels[key]}:"
            head = " " * indent + (f"\033[1m{label}\033[0m" if self.is_coloured else label)
            padding = " " * (room - texts.width(label))
            if isinstance(each, Mapping) and each:
                self.line(head)
                self.fields(each, indent + 2, are_ours=are_ours and key not in _SOMEBODYS)
            elif isinstance(each, list) and any(isinstance(item, Mapping) for item in each):
                self.line(head)
                self._nested(key, each, indent + 2, value.get("id"))
            else:
                self._field(head + padding, indent + room, key, each)

    def _field(self, head: str, indent: int, key: str, value: Any) -> None:
        if isinstance(value, str) and "\n" in value.strip():
            lines = texts.clean(value.rstrip(), lines=True).splitlines()
        else:
            form = _form(key, value)
            shown = self.cell(value, form)
            if form == "age" and value and self.is_terminal:
                shown = f"{value} ({shown if shown.startswith('in ') else f'{shown} ago'})"
            lines = [self.tone(shown)]
        self.line(head + lines[0])
        for line in lines[1:]:
            self.line(" " * indent + line)

    def _nested(self, key: str, items: Sequence[Any], indent: int, own_id: Any) -> None:
        keys = list(dict.fromkeys(key for item in items if isinstance(item, Mapping) for key in item))
        # A column that says nothing only takes room.
        keys = [name for name in keys if any(_picker(name)(item) not in (None, "", [], {}) for item in items)]
        inner = Output.__new__(Output)
        inner.__dict__ |= self.__dict__ | {"stdout": _Indented(self.stdout, indent), "has_headers": True}
        columns = _COLUMNS.get(key) or [Column(_label(name).upper(), _picker(name), _form(name, None)) for name in keys]
        # What a grant is about goes without saying where it stands in that object's own list.
        columns = [each for each in columns if any(each.of(item) != own_id for item in items)]
        inner._table(items, columns, [], is_first=True)


# Objects whose keys are somebody's: labels, settings, parameters.
_SOMEBODYS = frozenset({"labels", "matchLabels", "configOverrides", "solverConfig", "params", "before", "after"})
_COLUMNS: Mapping[str, Sequence[Column]] = {
    "grants": (
        column("ACCESS", "access", "state"),
        column("SUBJECT", lambda row: f"{row['subjectType']}:{row['subjectName']}"),
        column("PAYLOAD", "payloadId"),
        column("SCOPE", "scope"),
        column("PRIORITY", "priority"),
        column("NOTE", "note"),
        column("ID", "id"),
    ),
}
_NARROWEST = 8
_CODES = {"green": "32", "yellow": "33", "red": "31", "bright_black": "90"}


class _Indented:
    """A stream whose lines stand in."""

    def __init__(self, stream: TextIO, indent: int) -> None:
        self._stream = stream
        self._indent = " " * indent

    def write(self, text: str) -> int:
        return self._stream.write(f"{self._indent}{text}")


def _picker(key: str) -> Callable[[Any], Any]:
    return lambda row: row.get(key) if isinstance(row, Mapping) else None


def _label(key: str) -> str:
    # A key that is no name of ours is somebody's: a label, a rule, a tenant.
    is_ours = key.isascii() and key.isalnum() and key[:1].islower()
    return texts.words(key) if is_ours else texts.clean(key)


def _form(key: str, value: Any) -> str:
    if key.endswith(("At", "Since")) or key in ("at", "timestamp", "asOf"):
        return "age"
    if key.endswith("Usd"):
        return "money"
    if key.endswith("Bytes"):
        return "size"
    if isinstance(value, int) and not isinstance(value, bool):
        return "count"
    return "state" if key in ("status", "phase", "state", "outcome", "severity", "access", "health") else "text"


def _cut(text: str, room: int) -> str:
    if texts.width(text) <= room:
        return text
    made, used = [], 0
    for each in text:
        used += texts.width(each)
        if used > room - 1:
            break
        made.append(each)
    return "".join(made) + "\N{HORIZONTAL ELLIPSIS}"


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if text.isascii() and "\x7f" not in text:
        return text
    # JSON may hold these as they are; a terminal would obey them.
    return "".join(f"\\u{ord(each):04x}" if 0x7F <= ord(each) <= 0x9F else each for each in text)
