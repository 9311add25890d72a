"""`opencrane NOUN edit NAME`: an object's document in an editor, and what has changed sent back."""

import difflib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli import texts, yamls
from cli.client import Answer, path
from cli.documents import Document, all_scopes, document, look, parsed, show_diff
from cli.errors import CliError, Exit, UsageError
from cli.nouns.tenants import MEMBERSHIPS
from cli.session import Session
from cli.spec import Kind

_HINT = """\
# {title}. Save and close to send; what you take away is cleared.
# An empty file, or one without a change, changes nothing.
"""


def edit(session: Session, kind: Kind, called: str) -> None:
    """Have an object's document edited, and send what has changed.

    Raises:
        CliError: the editor failed, or what came out of it was given up; the text is kept then.
    """
    if not session.can_ask and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        raise UsageError(
            "there is no terminal for an editor", hint="opencrane apply -f FILE, or set EDITOR to a program"
        )
    seen = _required_answer(session, kind, called)
    before = document(kind, seen.data)
    title = f"{kind.noun}/{texts.clean(called)}"
    text = yamls.dump(before)
    with tempfile.TemporaryDirectory(prefix="opencrane-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / f"{kind.noun}.yaml"
        problem: list[str] = []
        failure: CliError | None = None
        while True:
            head = "".join(f"# {line}\n" for line in problem) + _HINT.format(title=title)
            file.write_text(head + text, encoding="utf-8")
            _run_editor(file)
            edited = _without_comments(file.read_text(encoding="utf-8", errors="replace"))
            if not edited.strip() or edited == text:
                if failure is not None:
                    _keep(session, text)
                    raise failure
                session.out.note(f"{title} unchanged")
                return
            text = edited
            try:
                wanted = _edited(kind, text, before)
                body = _changes(kind, before, wanted)
                after = {**before, "metadata": {"name": wanted.name}, "spec": dict(wanted.spec)}
                if not body or not show_diff(session.out, before, after, title):
                    session.out.note(f"{title} unchanged")
                    return
                if kind is MEMBERSHIPS:
                    body = all_scopes(seen, body)
                place = path(kind.one, **{kind.key: seen.data[kind.key]})
                headers = {"If-Match": seen.etag} if seen.etag else {}
                session.client.request("PUT", place, body=body, headers=headers)
            except CliError as exc:
                if exc.status in (Exit.DENIED, Exit.NOT_FOUND):
                    _keep(session, text)
                    raise
                failure, problem = exc, [line for line in exc.lines() if not line.startswith("Next: ")]
                if exc.code == "PRECONDITION_FAILED":
                    seen = _required_answer(session, kind, called)
                    theirs = document(kind, seen.data)
                    problem += [
                        "What has changed meanwhile, and what your text would take back:",
                        *_lines(before, theirs),
                    ]
                    before = theirs
                continue
            session.out.line(f"{title} edited")
            return


def _required_answer(session: Session, kind: Kind, called: str) -> Answer:
    seen = look(session, kind, called)
    if seen is None:
        raise CliError(f"there is no {kind.title} {called}", status=Exit.NOT_FOUND, hint=f"opencrane {kind.noun} list")
    return seen


def _edited(kind: Kind, text: str, before: Mapping[str, Any]) -> Document:
    values = list(yamls.documents(text, "the text"))
    if len(values) != 1:
        raise UsageError("the text has to hold one document")
    wanted = parsed(values[0], "the text")
    if wanted.kind is not kind:
        raise UsageError(f"kind has to stay {kind.document}")
    if wanted.name != before["metadata"]["name"] and "name" not in kind.writable:
        raise UsageError(f"a {kind.title} cannot be renamed")
    return wanted


def _changes(kind: Kind, before: Mapping[str, Any], wanted: Document) -> dict[str, Any]:
    old = before["spec"]
    body = {field: value for field, value in wanted.spec.items() if field not in old or old[field] != value}
    body |= {field: None for field in old if field not in wanted.spec}
    if wanted.name != before["metadata"]["name"]:
        body["name"] = wanted.name
    return body


def _run_editor(file: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        # S603: the editor is the user's own choice.
        status = subprocess.run([*shlex.split(editor), str(file)], check=False).returncode  # noqa: S603
    except (OSError, ValueError) as exc:
        raise CliError(f"cannot run the editor {editor}: {exc}", hint="set EDITOR") from exc
    if status != 0:
        raise CliError(f"the editor {editor} ended with status {status}; nothing was changed")


def _without_comments(text: str) -> str:
    """The text without the lines that we have put on top."""
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return "\n".join(lines)


def _lines(before: Any, after: Any) -> list[str]:
    old, new = yamls.dump(before).splitlines(), yamls.dump(after).splitlines()
    return [line for line in difflib.unified_diff(old, new, lineterm="", n=0) if line[:2] not in ("--", "++", "@@")]


def _keep(session: Session, text: str) -> None:
    """Leave what somebody has written where they find it again."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="opencrane-", suffix=".yaml", delete=False, encoding="utf-8"
    ) as file:  # mode 0600
        file.write(text)
    session.out.note(f"Your text is in {file.name}")
