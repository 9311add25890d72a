"""The bundle as scanners see it: files with their text, and the code that stands in fences of Markdown."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Protocol

from skills.scanning.findings import Finding

_FENCE = re.compile(r"^[ \t]{0,12}(?P<mark>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n]*$", re.MULTILINE)
LANGUAGES = {
    "python": "python", "py": "python", "python3": "python", "pycon": "text",
    "bash": "shell", "sh": "shell", "shell": "shell", "zsh": "shell", "console": "shell", "shell-session": "shell",
    "": "shell",
}  # fmt: skip
_SUFFIXES = {".py": "python", ".pyw": "python", ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ksh": "shell",
             ".md": "markdown", ".markdown": "markdown"}  # fmt: skip
_SHEBANG = re.compile(rb"^#![^\n]*\b(?P<what>python|bash|sh|zsh|ksh|dash)[\d.]*\b")


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code, and how many lines of its file come before it. `is_whole` tells a file from a fence."""

    language: str
    text: str
    lines_before: int
    is_whole: bool


@dataclass(eq=False)
class File:
    """One file. `text` is None for what is not UTF-8.

    Attributes:
        path: inside the archive; empty where the bundle is this one file.
        media_type: what the bundle says it is; empty inside archives, where the name tells.
    """

    path: str
    data: bytes
    media_type: str = ""

    @cached_property
    def text(self) -> str | None:
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None

    @cached_property
    def language(self) -> str:
        """`python`, `shell`, `markdown`, or `text` for anything else."""
        if match := _SHEBANG.match(self.data):
            return "python" if match["what"] == b"python" else "shell"
        if self.media_type:
            plain = self.media_type.partition(";")[0]
            known = {"text/x-python": "python", "text/x-sh": "shell", "text/x-shellscript": "shell"}
            return known.get(plain, "markdown" if plain in {"text/markdown", "text/x-markdown"} else "text")
        return _SUFFIXES.get(PurePosixPath(self.path).suffix.lower(), "text")

    @cached_property
    def _line_starts(self) -> list[int]:
        starts, at = [0], self.data.find(b"\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.data.find(b"\n", at + 1)
        return starts

    def line_of(self, offset: int) -> int:
        """The line, from 1, that the byte at `offset` is in."""
        return bisect_right(self._line_starts, offset)

    @cached_property
    def code(self) -> list[Code]:
        """The file itself if it is code, and what stands in the fences of Markdown."""
        if self.text is None:
            return []
        if self.language in {"python", "shell"}:
            return [Code(self.language, self.text, 0, is_whole=True)]
        return fenced(self.text) if self.language == "markdown" else []


def fenced(text: str) -> list[Code]:
    """The code in fences (CommonMark 0.31, 4.5); a fence that is never closed runs to the end."""
    found: list[Code] = []
    at = 0
    while opening := _FENCE.search(text, at):
        mark = opening["mark"]
        closing = re.compile(rf"^[ \t]{{0,12}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$", re.MULTILINE)
        start = min(opening.end() + 1, len(text))
        end = closing.search(text, start)
        inside = text[start : end.start() if end else len(text)]
        language = LANGUAGES.get(opening["language"].lower(), "text")
        if language != "text":
            found.append(Code(language, inside, text.count("\n", 0, start), is_whole=False))
        at = end.end() if end else len(text)
    return found


@dataclass(eq=False)
class Material:
    """All that scanners are given.

    Attributes:
        name: what the bundle is called in the catalog.
        files: those that could be read; never from outside the bundle.
        is_archive: whether it came as one.
        findings: what unpacking itself has found.
    """

    name: str
    files: list[File] = field(default_factory=list)
    is_archive: bool = False
    findings: list[Finding] = field(default_factory=list)


class Scanner(Protocol):
    """What the pipeline runs. A scanner that raises fails the scan: it never passes what it could not read."""

    name: str

    @property
    def version(self) -> str:
        """What its findings depend on, for people to compare."""

    def scan(self, material: Material) -> list[Finding]:
        """What it has found."""
