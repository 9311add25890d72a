"""The verbs that most nouns have: list, get, create, update, delete, and actions on one object or several."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from cli import values
from cli.errors import CliError, Exit, UsageError
from cli.output import Output
from cli.session import Session, each
from cli.spec import Arg, Flag, Kind, Params, Verb

WATCH_SECONDS = 2.0

SEARCH = Flag("-q, --search", "Only those that contain this.", to="q")
LIMIT = Flag("-l, --limit", "How many to show at most; 0 for all.", metavar="N", read=values.count, default=0)
WATCH = Flag("-w, --watch", "Go on, and show what is new or has changed.", switch=True)
YES = Flag("-y, --yes", "Do not ask.", switch=True)
REASON = Flag("--reason", "Why; goes into the audit trail.", to="reason")
FILE = Flag(
    "-f, --file", "YAML or JSON with the fields, or - for standard input. Flags go before what it says.", metavar="FILE"
)
IF_MATCH = Flag("--if-match", "Only if its ETag is still this one.", metavar="ETAG")
WAIT_SECONDS = Flag("--for-at-most", "How long to wait.", metavar="TIME", read=values.seconds, default="5m")
NO_WAIT = Flag("--no-wait", "Print the job's id at once, if it becomes a job.", switch=True)


# --- Finding ----------------------------------------------------------------------------------------------------------


def is_uuid(text: str) -> bool:
    """Whether it is an id."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def find(session: Session, kind: Kind, text: str) -> Any:
    """The list's row of what somebody calls by this name.

    Raises:
        CliError: there is none, or several.
    """
    if kind.find is not None:
        return kind.find(session, text)
    rows = [
        row
        for page, _ in session.client.pages(kind.path, {kind.filter: text})
        for row in page
        if str(row[kind.by]).lower() == text.lower()
    ]
    exact = [row for row in rows if row[kind.by] == text] or rows
    if not exact:
        raise CliError(f"there is no {kind.title} {text}", status=Exit.NOT_FOUND, hint=f"opencrane {kind.noun} list")
    if len(exact) > 1:
        ids = ", ".join(str(row["id"]) for row in exact[:10])
        raise CliError(f"several {kind.plural} are called {text}", detail=f"Their ids: {ids}.", status=Exit.USAGE)
    return exact[0]


def key(session: Session, kind: Kind, text: str) -> str:
    """By what the API addresses an object that somebody calls by name or id."""
    if kind.key != "id" or is_uuid(text):
        return text
    return str(find(session, kind, text)[kind.key])


def where(session: Session, kind: Kind, text: str, suffix: str = "") -> str:
    """The path of an object that somebody calls by name or id."""
    from cli.client import path

    return path(kind.one, **{kind.key: key(session, kind, text)}) + suffix


# --- Bodies -----------------------------------------------------------------------------------------------------------


def assign(body: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a nested field; objects on the way are made."""
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = body.get(parent)
        if not isinstance(inner, dict):
            inner = body[parent] = {}
        body = inner
    body[last] = value


def given(params: Params, flags: Sequence[Arg | Flag]) -> dict[str, Any]:
    """The fields that flags name, as the API has them."""
    body: dict[str, Any] = {}
    for flag in flags:
        if isinstance(flag, Flag) and flag.to:
            value = params.get(flag.key)
            if value is not None and value != []:
                assign(body, flag.to, flag.fold(value) if flag.fold else value)
    return body


def merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One body over another, objects field by field."""
    made = dict(base)
    for name, value in over.items():
        present = made.get(name)
        made[name] = merged(present, value) if isinstance(value, dict) and isinstance(present, dict) else value
    return made


def from_file(session: Session, source: str | None, kind: Kind | None = None) -> dict[str, Any]:
    """The body that a file has: the API's fields, or one document as `apply` takes it."""
    if not source:
        return {}
    from cli import yamls

    found = list(yamls.documents(session.text(source), source))
    if len(found) != 1 or not isinstance(found[0], dict):
        raise UsageError(f"{source} has to hold one object", hint="opencrane apply -f takes several")
    body = found[0]
    if kind is not None and kind.document and "kind" in body:
        from cli.documents import parsed

        document = parsed(body, source)
        if document.kind is not kind:
            raise UsageError(f"{source} is a {document.kind.title}, no {kind.title}")
        return document.body(creating=True)
    return dict(body)


def clear_flag(flags: Sequence[Flag]) -> Flag:
    """`--clear`, for those of the flags that it may name."""
    names = tuple(flag.key.replace("_", "-") for flag in flags if flag.clearable and flag.to)
    return Flag("--clear", "Take away what it is set to.", choices=names, many=True, metavar="FIELD")


def cleared(params: Params, flags: Sequence[Flag]) -> dict[str, Any]:
    """Nulls for what `--clear` names."""
    body: dict[str, Any] = {}
    for flag in flags:
        if flag.key.replace("_", "-") in (params.get("clear") or []):
            assign(body, flag.to, None)
    return body


# --- Lists and objects ------------------------------------------------------------------------------------------------


def list_verb(
    kind: Kind,
    *filters: Flag,
    help: str = "",
    items: str = "",
    limit: Flag = LIMIT,
    examples: tuple[str, ...] = (),
    empty: str = "",
    after: Callable[[Output, Any], None] | None = None,
) -> Verb:
    """`list`: every object, or those that filters leave.

    Args:
        items: the key of the rows where the list is wrapped in an object.
        after: tells people what else the last body has.
    """

    def run(session: Session, params: Params) -> None:
        query = given(params, filters)

        def pages() -> Iterator[Sequence[Any]]:
            body: Any = None
            for rows, body in session.client.pages(kind.path, query, limit=params["limit"], items=items):  # noqa: B007
                yield rows
            if after is not None and session.out.is_for_people:
                after(session.out, body)

        nothing = f"No {kind.plural}{' like that' if query else ''}."
        session.out.rows(pages(), kind.columns, kind.label, empty=f"{nothing} {'' if query else empty}".strip())
        if params.get("watch"):
            watch(session, kind, lambda: [row for page in pages_again(session, kind, query, items) for row in page])

    return Verb(
        "list", help or f"List {kind.plural}.", run, (*filters, limit, WATCH), (f"GET {kind.path}",), examples=examples
    )


def pages_again(session: Session, kind: Kind, query: Mapping[str, Any], items: str) -> Iterator[Sequence[Any]]:
    """The list's rows, all of them."""
    for rows, _ in session.client.pages(kind.path, query, items=items):
        yield rows


def watch(session: Session, kind: Kind, look: Callable[[], list[Any]], first: list[Any] | None = None) -> None:
    """Show what is new or has changed until somebody interrupts. A server that is away meanwhile is waited for."""
    identity = "id" if kind.key == "id" else "name"
    known = {row.get(identity): row for row in (look() if first is None else first)}
    session.out.has_headers = False
    while True:
        time.sleep(WATCH_SECONDS)
        try:
            seen = look()
        except CliError as exc:
            if exc.status is not Exit.UNAVAILABLE:
                raise
            session.out.note(f"opencrane: {exc.message}; trying again")
            continue
        changed = [row for row in seen if known.get(row.get(identity)) != row]
        if changed:
            session.out.rows([changed], kind.columns, kind.label)
        known = {row.get(identity): row for row in seen}


def get_verb(kind: Kind, *flags: Flag, help: str = "", examples: tuple[str, ...] = (), about: str = "") -> Verb:
    """`get`: one object with all that is known of it, or several as a table."""

    def run(session: Session, params: Params) -> None:
        query = given(params, flags)
        found: list[Any] = []
        failure = None
        names = params[argument.key]
        try:
            each(session, names, lambda name: found.append(session.client.get(where(session, kind, name), query).data))
        except CliError as exc:
            if not found:
                raise
            failure = exc  # what there is is shown first
        if len(names) == 1:
            session.out.thing(found[0], kind.label(found[0]), kind.describe)
        else:
            session.out.rows([found], kind.columns, kind.label)
        if failure is not None:
            raise failure
        if params.get("watch"):
            paths = [where(session, kind, name) for name in names]
            watch(session, kind, lambda: [session.client.get(each_path, query).data for each_path in paths], found)

    argument = name_arg(kind, many=True)
    return Verb(
        "get",
        help or f"Show {_an(kind.title)}.",
        run,
        (argument, *flags, WATCH),
        (f"GET {kind.one}",),
        about,
        examples,
    )


def create_verb(
    kind: Kind,
    *flags: Flag,
    help: str = "",
    about: str = "",
    examples: tuple[str, ...] = (),
    before: Callable[[Session, Params, dict[str, Any]], None] | None = None,
    done: Callable[[Session, Params, Any, str], None] | None = None,
    extra: tuple[Flag, ...] = (),
) -> Verb:
    """`create`: from flags, from a file, or from both.

    Args:
        before: changes the body once more.
        done: tells what has come of it, instead of `tenants/anna created`.
        extra: flags that are no fields.
    """

    def run(session: Session, params: Params) -> None:
        body = merged(from_file(session, params["file"], kind), given(params, flags))
        if params["name"]:
            body["name"] = params["name"]
        if not body.get("name"):
            raise UsageError(f"what is the {kind.title} to be called?", hint=f"opencrane {kind.noun} create NAME")
        if before is not None:
            before(session, params, body)
        answer = session.client.request("POST", kind.path, body=body).data
        if done is not None:
            done(session, params, answer, str(body["name"]))
        else:
            written(session, kind, str(body["name"]), "created", answer)

    params: tuple[Arg | Flag, ...] = (Arg("NAME", "What it is called.", required=False), *flags, *extra, FILE)
    return Verb("create", help or f"Make {_an(kind.title)}.", run, params, (f"POST {kind.path}",), about, examples)


def update_verb(
    kind: Kind,
    *flags: Flag,
    help: str = "",
    about: str = "",
    examples: tuple[str, ...] = (),
    before: Callable[[Session, Params, dict[str, Any]], None] | None = None,
    extra: tuple[Flag, ...] = (),
) -> Verb:
    """`update`: changes what flags or a file name, and nothing else."""
    clear = clear_flag(flags)

    def run(session: Session, params: Params) -> None:
        body = merged(from_file(session, params["file"], kind), given(params, flags))
        body = merged(body, cleared(params, flags))
        if before is not None:
            before(session, params, body)
        if not params["file"] and not body:
            raise UsageError("nothing to change", hint=f"opencrane {session.words} --help shows what can be")
        if kind.key == "name":
            body.pop("name", None)
        name = params[argument.key]
        place = where(session, kind, name)
        etag = params["if_match"] or _complete(session, kind, place, body, flags)
        headers = {"If-Match": etag} if etag else {}
        answer = session.client.request("PUT", place, body=body, headers=headers).data
        written(session, kind, name, "updated", answer)

    argument = name_arg(kind)
    return Verb(
        "update",
        help or f"Change {_an(kind.title)}.",
        run,
        (argument, *flags, *extra, *((clear,) if clear.choices else ()), FILE, IF_MATCH),
        (f"PUT {kind.one}",),
        about or "What is not named stays as it is.",
        examples,
    )


def _complete(session: Session, kind: Kind, place: str, body: dict[str, Any], flags: Sequence[Flag]) -> str:
    """Fill up nested objects, which the API replaces whole, by what they hold: a flag changes one field.

    Returns:
        The ETag of what was read; empty when nothing had to be.
    """
    nested = {flag.to.partition(".")[0] for flag in flags if "." in flag.to}
    wanted = [field for field in nested if isinstance(body.get(field), dict)]
    if not wanted:
        return ""
    seen = session.client.get(place)
    for field in wanted:
        present = seen.data.get(kind.nested.get(field, field))
        body[field] = without_nulls(merged(present if isinstance(present, dict) else {}, body[field]))
    return seen.etag


def without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what is not set, at any depth."""
    return {
        key: without_nulls(each_value) if isinstance(each_value, Mapping) else each_value
        for key, each_value in value.items()
        if each_value is not None
    }


def delete_verb(
    kind: Kind,
    *flags: Flag,
    consequence: str = "",
    kept: str = "",
    purged: str = "",
    help: str = "",
    about: str = "",
    examples: tuple[str, ...] = (),
    name: str = "delete",
    done: str = "deleted",
) -> Verb:
    """`delete`: asks, naming what goes.

    Args:
        consequence: a sentence on what that means.
        kept, purged: what it means besides, without `--purge` and with it; with it the name has to be typed, since
            nothing brings it back.
    """

    def run(session: Session, params: Params) -> None:
        names = list(dict.fromkeys(params[argument.key]))
        paths = {each_name: where(session, kind, each_name) for each_name in names}
        is_grave = bool(params.get("purge"))
        title = kind.title if len(names) == 1 else kind.plural
        question = f"{name.capitalize()} {title} {', '.join(names)}? {consequence} {purged if is_grave else kept}"
        typed = (names[0] if len(names) == 1 else str(len(names))) if is_grave else ""
        session.confirm(question.strip(), yes=params["yes"], typed=typed)
        headers = {"If-Match": params["if_match"]} if params.get("if_match") else {}

        def act(each_name: str) -> None:
            answer = session.client.request("DELETE", paths[each_name], query=given(params, flags), headers=headers)
            written(session, kind, each_name, done, answer.data)

        each(session, names, act)

    argument = name_arg(kind, many=True)
    return Verb(
        name,
        help or f"Delete {kind.plural}, after asking.",
        run,
        (argument, *flags, YES),
        (f"DELETE {kind.one}",),
        about or f"{consequence} {kept}".strip(),
        examples,
    )


def act_verb(
    name: str,
    kind: Kind,
    suffix: str,
    *flags: Flag,
    done: str,
    help: str,
    about: str = "",
    ask: str = "",
    examples: tuple[str, ...] = (),
    show: Callable[[Session, Any], None] | None = None,
) -> Verb:
    """A POST to one object or several: suspend, resume, sync, scan, …

    Args:
        done: the state it comes to, for `tenants/anna suspended`.
        ask: a question with `{names}`; empty where nobody is asked.
        show: shows the answer instead.
    """

    def run(session: Session, params: Params) -> None:
        names = params[argument.key]
        if ask:
            session.confirm(ask.format(names=", ".join(names)), yes=params["yes"])
        body = given(params, flags)

        def act(each_name: str) -> None:
            answer = session.client.request("POST", where(session, kind, each_name, suffix), body=body or None).data
            if show is not None:
                show(session, answer)
            else:
                written(session, kind, each_name, done, answer)

        each(session, names, act)

    argument = name_arg(kind, many=True)
    return Verb(
        name, help, run, (argument, *flags, *((YES,) if ask else ())), (f"POST {kind.one}{suffix}",), about, examples
    )


def show_verb(
    name: str,
    kind: Kind,
    suffix: str,
    *flags: Flag,
    help: str,
    about: str = "",
    describe: Callable[[Output, Any], None] | None = None,
    examples: tuple[str, ...] = (),
) -> Verb:
    """A GET of something that belongs to one object."""

    def run(session: Session, params: Params) -> None:
        text = params[argument.key]
        answer = session.client.get(where(session, kind, text, suffix), given(params, flags)).data
        session.out.thing(answer, text, describe)

    argument = name_arg(kind)
    return Verb(name, help, run, (argument, *flags), (f"GET {kind.one}{suffix}",), about, examples)


def inner_list_verb(
    name: str, kind: Kind, inner: Kind, suffix: str, *flags: Flag, help: str, limit: Flag = LIMIT, paged: bool = True
) -> Verb:
    """A list of things that belong to one object."""

    def run(session: Session, params: Params) -> None:
        place = where(session, kind, params[argument.key], suffix)
        query = given(params, flags)
        if paged:
            pages = (rows for rows, _ in session.client.pages(place, query, limit=params["limit"]))
            session.out.rows(pages, inner.columns, inner.label, empty=f"No {inner.plural}.")
        else:
            rows = session.client.get(place, query).data
            session.out.rows([rows], inner.columns, inner.label, empty=f"No {inner.plural}.")

    argument = name_arg(kind)
    return Verb(name, help, run, (argument, *flags, *((limit,) if paged else ())), (f"GET {kind.one}{suffix}",))


def wait_verb(kind: Kind, states: Mapping[str, str], examples: tuple[str, ...] = ()) -> Verb:
    """`wait`: until an object has come to a state.

    Args:
        states: what may be waited for -> the dotted path of the field that says so; the value after `=` is its word.
    """

    def run(session: Session, params: Params) -> None:
        wanted: str = params["until"]
        name = params[argument.key]
        field, _, word = wanted.partition("=")
        dotted = states.get(field)
        if wanted != "deleted" and (dotted is None or not word):
            known = ", ".join([*(f"{each_field}=…" for each_field in states), "deleted"])
            raise UsageError(f"{wanted} cannot be waited for; what can: {known}")
        place = where(session, kind, name)

        def look() -> Any:
            try:
                return session.client.get(place).data
            except CliError as exc:
                if exc.status is Exit.NOT_FOUND and wanted == "deleted":
                    return None
                raise

        def is_there(seen: Any) -> bool:
            from cli.output import at

            return seen is None if dotted is None else str(at(seen, dotted)).lower() == word.lower()

        found = session.until(look, is_there, what=f"{kind.noun}/{name} {wanted}", seconds=params["for_at_most"])
        written(session, kind, name, wanted, found)

    argument = name_arg(kind)
    fields = ", ".join(f"{name}=STATE" for name in states)
    until = Flag("--until", f"What to wait for: {fields} or deleted.", metavar="STATE", required=True)
    return Verb(
        "wait",
        f"Wait until {_an(kind.title)} has come to a state.",
        run,
        (argument, until, WAIT_SECONDS),
        (f"GET {kind.one}",),
        examples=examples,
    )


def edit_verb(kind: Kind) -> Verb:
    """`edit`: the object's document in an editor."""

    def run(session: Session, params: Params) -> None:
        from cli.editing import edit

        edit(session, kind, params[argument.key])

    argument = name_arg(kind)
    about = (
        "Opens it as YAML in $VISUAL or $EDITOR, shows the difference, and sends it if nobody has changed it meanwhile."
        " A line that is taken away clears its field. What the server refuses comes back with its reason."
    )
    return Verb(
        "edit",
        f"Change {_an(kind.title)} in an editor.",
        run,
        (argument,),
        (f"PUT {kind.one}", f"GET {kind.one}"),
        about,
        shows=False,
    )


# --- Answers ----------------------------------------------------------------------------------------------------------


def written(session: Session, kind: Kind, name: str, done: str, answer: Any) -> None:
    """Tell what has become of an object: a line, or the API's answer."""
    out = session.out
    if out.is_for_people:
        from cli import texts

        out.line(f"{kind.noun}/{texts.clean(name)} {done}")
    elif out.format == "name":
        out.line(name)
    elif answer is not None:
        out.data(answer)


def name_arg(kind: Kind, *, many: bool = False) -> Arg:
    """The argument that names objects of a kind."""
    by = "name" if kind.key == "name" else "name or id"
    return Arg("NAME", f"The {kind.title}'s {by}{'; several are taken' if many else ''}.", names=kind.noun, many=many)


def _an(title: str) -> str:
    return f"{'an' if title[0].lower() in 'aeiou' or title.startswith('MCP') else 'a'} {title}"
