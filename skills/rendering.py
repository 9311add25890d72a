"""Show content that strangers wrote: Markdown without anything active, source by line, and what differs between two.

Nothing here may load or run anything: no HTML of theirs, no pictures, links to the web and nowhere else, and every
character that hides shows.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

# What is longer is shown in parts, or to be downloaded.
RENDERED_MAX, DIFF_MAX_LINES = 64 * 1024, 3000
# How often a mark may come: for each of these the parser looks through the rest of the text, so that 64 kB of nothing
# but `[` would keep a thread for half a minute.
_MOST = {"\n": 2000, "[": 600, "*": 6000, "_": 6000, "~": 6000, "<": 6000, "|": 12_000}
WHOLE_MAX_LINES, CONTEXT_LINES, LINE_MAX = 1500, 3, 400
_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*\r?\n?", re.DOTALL | re.MULTILINE)


def visible(text: str) -> str:
    """The text with a mark, such as `⟦U+202E⟧`, in place of each character that nobody would see."""
    return _HIDDEN.sub(lambda match: f"⟦U+{ord(match.group()):04X}⟧", text)


def _may_link(url: str) -> bool:
    try:
        return urlsplit(url).scheme in {"http", "https", "mailto"}
    except ValueError:
        return False


def _image(_self: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    """A picture is fetched by looking at it, so there is only its description and address."""
    token = tokens[index]
    return f"<span>[picture: {escape(token.content)} <code>{escape(str(token.attrGet('src') or ''))}</code>]</span>"


def _link(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("rel", "nofollow noopener noreferrer")
    return str(self.renderToken(tokens, index, options, env))


def _parser() -> MarkdownIt:
    parser = MarkdownIt("js-default", {"html": False, "linkify": False, "typographer": False})
    # Addresses elsewhere than on the web stay the text that they are.
    parser.validateLink = _may_link  # type: ignore[method-assign]
    parser.add_render_rule("image", _image)
    parser.add_render_rule("link_open", _link)
    return parser


_markdown = _parser()


@dataclass(frozen=True, slots=True)
class Rendered:
    """Markdown as a page: its front matter as it is written, the rest as HTML that may be shown as it is."""

    front_matter: str
    html: SafeString


def rendered(text: str) -> Rendered | None:
    """Markdown as HTML; None when it is too long, or would take too long."""
    if len(text) > RENDERED_MAX or any(text.count(mark) > most for mark, most in _MOST.items()):
        return None
    match = _FRONT.match(text)
    front, body = (match["yaml"], text[match.end() :]) if match else ("", text)
    tokens = _markdown.parse(visible(body))
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            # The page has headings of its own above these.
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
    html = _markdown.renderer.render(tokens, _markdown.options, {})
    return Rendered(visible(front), mark_safe(html))  # noqa: S308 - built from escaped text by the parser


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the source with what was found in it, or a gap of `skipped` lines."""

    number: int
    text: str = ""
    findings: Sequence[Any] = field(default_factory=tuple)
    skipped: int = 0


def source_lines(text: str, findings: Mapping[int, Sequence[Any]]) -> list[Line]:
    """The source by line. Of long ones only the beginning, and the surroundings of what was found.

    Args:
        findings: by line, from 1.
    """
    lines = text.split("\n")
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    if len(lines) <= WHOLE_MAX_LINES:
        wanted = set(range(1, len(lines) + 1))
    else:
        wanted = set(range(1, 101))
        for number in sorted(findings)[:100]:
            wanted |= set(range(number - CONTEXT_LINES, number + CONTEXT_LINES + 1))
    shown: list[Line] = []
    last = 0
    for number in sorted(number for number in wanted if 1 <= number <= len(lines)):
        if number > last + 1:
            shown.append(Line(0, skipped=number - last - 1))
        shown.append(Line(number, _cut(lines[number - 1]), findings.get(number, ())))
        last = number
    if last < len(lines):
        shown.append(Line(0, skipped=len(lines) - last))
    return shown


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a comparison: `same`, `gone`, `new`, or `gap` between two places that differ."""

    kind: str
    before: int | None
    after: int | None
    text: str


def compared(before: str, after: str) -> list[Change] | None:
    """What differs, line by line, with a few lines around; None when it is too long to be compared."""
    old, new = before.split("\n"), after.split("\n")
    if max(len(old), len(new)) > DIFF_MAX_LINES:
        return None
    found: list[Change] = []
    groups = difflib.SequenceMatcher(a=old, b=new).get_grouped_opcodes(CONTEXT_LINES)
    for index, group in enumerate(groups):
        if index:
            found.append(Change("gap", None, None, ""))
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                found += [
                    Change("same", old_from + step + 1, new_from + step + 1, _cut(old[old_from + step]))
                    for step in range(old_to - old_from)
                ]
                continue
            found += [Change("gone", at + 1, None, _cut(old[at])) for at in range(old_from, old_to)]
            found += [Change("new", None, at + 1, _cut(new[at])) for at in range(new_from, new_to)]
    return found


def _cut(line: str) -> str:
    line = visible(line.rstrip("\r"))
    return f"{line[:LINE_MAX]}…" if len(line) > LINE_MAX else line
