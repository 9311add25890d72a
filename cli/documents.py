"""Objects as YAML documents, as Kubernetes has them: apply, diff and export.

A document says what its fields are to be; fields that it leaves out stay as they are, null clears one. Documents of
kinds that the cluster knows too look the same to kubectl.
"""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import texts, yamls
from cli.client import Answer, path
from cli.comparing import same
from cli.errors import CliError, Exit, UsageError
from cli.nouns.access import GROUP, MCP_SERVER, POLICY
from cli.nouns.money import ACCOUNT
from cli.nouns.operations import WEBHOOK
from cli.nouns.platform import CLUSTER_TENANT
from cli.nouns.skills import SKILL, SOURCE
from cli.nouns.tenants import MEMBERSHIPS, TENANT
from cli.output import Output
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Params, Verb
from cli.verbs import find, where

API_VERSION = "opencrane.io/v1alpha1"
# In the order in which they are made: what is referred to comes first.
KINDS = (CLUSTER_TENANT, POLICY, TENANT, MEMBERSHIPS, GROUP, SOURCE, MCP_SERVER, SKILL, ACCOUNT, WEBHOOK)
_BY_DOCUMENT = {kind.document: kind for kind in KINDS}
_AT_ONCE = 8


# --- Documents --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    """One object as somebody wants it.

    Attributes:
        spec: the fields that it names, as the API has them.
        source: file and number, for errors.
    """

    kind: Kind
    name: str
    spec: Mapping[str, Any]
    source: str

    @property
    def called(self) -> str:
        """By what the object is found: of a skill, name and version."""
        return f"{self.name}@{self.spec['version']}" if self.kind is SKILL else self.name

    @property
    def title(self) -> str:
        return f"{self.kind.noun}/{texts.clean(self.called)}"

    def body(self, *, creating: bool) -> dict[str, Any]:
        """What is sent."""
        body = dict(self.spec)
        if creating or (self.kind.key == "id" and "name" in self.kind.writable):
            body["name"] = self.name
        return body


def parsed(value: Any, source: str) -> Document:
    """A document from what YAML has.

    Raises:
        UsageError: it is none; the message says what is wrong with it.
    """
    if not isinstance(value, dict):
        raise UsageError(f"{source}: a document is an object with kind, metadata and spec")
    version, word = value.get("apiVersion", API_VERSION), value.get("kind")
    if version != API_VERSION:
        raise UsageError(f"{source}: apiVersion is {texts.plain(version)}, but has to be {API_VERSION}")
    kind = _BY_DOCUMENT.get(word) if isinstance(word, str) else None
    if kind is None:
        raise UsageError(f"{source}: kind is {texts.plain(word)}, but has to be one of {', '.join(_BY_DOCUMENT)}")
    metadata, spec = value.get("metadata"), value.get("spec") or {}
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name.strip():
        problem = "is missing" if name is None else "has to be text: put it in quotes"
        raise UsageError(f"{source}: metadata.name {problem}")
    if not isinstance(spec, dict):
        raise UsageError(f"{source}: spec has to be an object")
    # What the cluster adds is no business of a document.
    strange = [key for key in value if key not in ("apiVersion", "kind", "metadata", "spec", "status")]
    strange += [f"spec.{field}" for field in spec if field not in _fields(kind)]
    if strange:
        raise UsageError(
            f"{source}: {kind.document} has no {', '.join(map(str, strange))}",
            hint=f"spec may have {', '.join(_fields(kind))}",
        )
    if kind is SKILL and not isinstance(spec.get("version"), str):
        raise UsageError(f"{source}: spec.version is missing (in quotes, if it looks like a number)")
    if isinstance(spec.get("resources"), dict):
        spec = spec | {"resources": _quantities(spec["resources"])}
    return Document(kind, name.strip(), spec, source)


def _quantities(value: Mapping[str, Any]) -> dict[str, Any]:
    """Quantities as the API gives them back: Kubernetes takes `cpu: 2` for `"2"`, and so does the API."""
    made = {}
    for key, each in value.items():
        is_number = (
            isinstance(each, (int, float)) and not isinstance(each, bool) and key in ("cpu", "memory", "storage")
        )
        made[key] = _quantities(each) if isinstance(each, dict) else str(each) if is_number else each
    return made


def _fields(kind: Kind) -> tuple[str, ...]:
    return tuple(field for field in kind.writable if field != "name")


def document(kind: Kind, live: Mapping[str, Any]) -> dict[str, Any]:
    """An object as a document that `apply` would find nothing to change about."""
    spec = {}
    for field in _fields(kind):
        value = _written(kind, field, live)
        if value is not None and value != {} and not (value == [] and field in ("grants", "promotions", "credentials")):
            spec[field] = value
    name = live[kind.by] if kind is not MEMBERSHIPS else live["name"]
    return {"apiVersion": API_VERSION, "kind": kind.document, "metadata": {"name": name}, "spec": spec}


def _written(kind: Kind, field: str, live: Mapping[str, Any]) -> Any:
    """A field of an answer as one would write it."""
    value = live.get(kind.nested.get(field, field))
    if field == "content" and live.get("contentBase64") is not None:
        return None
    if field in ("grants", "promotions", "credentials") and isinstance(value, list):
        return [_entry(kind, field, each, live) for each in value]
    if isinstance(value, dict) and field in ("domains", "mcpServers", "mcpPolicy", "tenantSelector", "compute"):
        # An empty selector picks everybody: it says something.
        kept = {key: each for key, each in value.items() if each not in (None, [], {}) and each is not False}
        return kept or (value if field == "tenantSelector" else None)
    if isinstance(value, dict):
        return _without_nulls(value)
    return value


def _without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(each) if isinstance(each, dict) else each for key, each in value.items() if each is not None
    }


def _entry(kind: Kind, field: str, entry: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    if field != "grants":
        return {key: each for key, each in entry.items() if key not in ("id", "createdAt") and each is not None}
    made = {"payloadId": entry["payloadId"]} if kind is GROUP else {}
    if kind is not GROUP or (entry["subjectType"], entry["subjectName"]) != ("group", live["name"]):
        made |= {"subjectType": entry["subjectType"], "subjectName": entry["subjectName"]}
    made |= {"access": entry["access"], "scope": entry["scope"]}
    return made | {key: entry[key] for key in ("priority", "note") if entry.get(key)}


# --- What there is ----------------------------------------------------------------------------------------------------


def look(session: Session, kind: Kind, called: str) -> Answer | None:
    """An object as it is now; None where there is none."""
    try:
        if kind is ACCOUNT:  # There is a list alone.
            return Answer(200, find(session, kind, called), {})
        answer = session.client.get(where(session, kind, called))
    except CliError as exc:
        if exc.status is Exit.NOT_FOUND:
            return None
        raise
    return Answer(200, answer.data | {"name": called}, {}) if kind is MEMBERSHIPS else answer


def _differs(document_: Document, live: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document that are otherwise than the object has them."""
    return {
        field: value
        for field, value in document_.spec.items()
        if not same(field, value, live.get(document_.kind.nested.get(field, field)))
    }


# --- Changing ---------------------------------------------------------------------------------------------------------


def _create(session: Session, wanted: Document) -> str:
    kind, body = wanted.kind, wanted.body(creating=True)
    if kind is MEMBERSHIPS:
        raise CliError(f"there is no tenant {wanted.name}", status=Exit.NOT_FOUND)
    if kind is ACCOUNT:
        body.pop("name")
        session.client.request("PUT", path(kind.one, userId=wanted.name), body=body)
        return "created"
    if kind is SKILL and body.get("status") == "published":
        # Nothing is published unscanned; the next apply publishes it.
        body.pop("status")
    session.client.request("POST", kind.path, body={key: each for key, each in body.items() if each is not None})
    return "created"


def _update(session: Session, wanted: Document, seen: Answer, changed: Mapping[str, Any]) -> str:
    kind = wanted.kind
    body = dict(changed)
    if kind is MEMBERSHIPS:
        body = all_scopes(seen, body)
    place = path(kind.one, **{kind.key: seen.data[kind.key]})
    headers = {"If-Match": seen.etag} if seen.etag else {}
    session.client.request("PUT", place, body=body, headers=headers)
    if not seen.etag:
        return "configured"
    # The server may know two ways to write the same: what has kept its generation was the same.
    after = session.client.get(place).etag.partition(".")[0]
    return "unchanged" if after == seen.etag.partition(".")[0] else "configured"


def all_scopes(seen: Answer, changed: Mapping[str, Any]) -> dict[str, Any]:
    """The body for datasets: all four lists, always, none of them null."""
    return {scope: changed.get(scope, seen.data[scope]) or [] for scope in ("org", *MEMBERSHIPS.writable)}


def _read(session: Session, sources: Sequence[str]) -> list[Document]:
    """The documents of files, folders and standard input, in the order in which they are to be made."""
    found: list[Document] = []
    for source in sources:
        for name, text in _texts(session, source):
            for number, value in enumerate(yamls.documents(text, name), 1):
                values = value["items"] if isinstance(value, dict) and value.get("kind") == "List" else [value]
                found += [parsed(each, f"{name}, document {number}") for each in values]
    if not found:
        raise UsageError(f"there is no document in {', '.join(sources)}")
    twice = [title for title, count in Counter(each.title for each in found).items() if count > 1]
    if twice:
        raise UsageError(f"{', '.join(twice)} stands there more than once")
    return sorted(found, key=lambda each: KINDS.index(each.kind))


def _texts(session: Session, source: str) -> Iterator[tuple[str, str]]:
    place = Path(source).expanduser()
    if source != "-" and place.is_dir():
        files = sorted(file for pattern in ("*.yaml", "*.yml", "*.json") for file in place.rglob(pattern))
        if not files:
            raise UsageError(f"{source} has no .yaml, .yml or .json files")
        for file in files:
            yield str(file), session.text(str(file))
    else:
        yield ("standard input" if source == "-" else source), session.text(source)


# --- Apply and diff ---------------------------------------------------------------------------------------------------


def _apply(session: Session, params: Params) -> None:
    documents = _read(session, params["file"])
    out, failure = session.out, None
    results: list[dict[str, str]] = []
    for wanted in documents:
        try:
            done = _applied(session, wanted, dry_run=params["dry_run"])
        except CliError as exc:
            if len(documents) == 1 or (exc.status in (Exit.USAGE, Exit.DENIED) and not results):
                raise
            failure, done = exc, "failed"
            out.error([f"{wanted.title}: {exc.lines()[0]}", *exc.lines()[1:]])
        results.append({"kind": wanted.kind.document, "name": wanted.called, "action": done})
        if out.is_for_people and done != "failed":
            out.line(f"{wanted.title} {out.tone(done)}{' (dry run)' if params['dry_run'] else ''}")
            out.stdout.flush()
        elif out.format == "name" and done not in ("unchanged", "failed"):
            out.line(wanted.title)
    if out.format in ("json", "yaml"):
        out.data(results)
    if failure is not None:
        count = sum(each["action"] == "failed" for each in results)
        raise CliError(f"{count} of {texts.counted(len(results), 'object')} failed", status=failure.status)


def _applied(session: Session, wanted: Document, *, dry_run: bool) -> str:
    seen = look(session, wanted.kind, wanted.called)
    if seen is None:
        return "created" if dry_run else _create(session, wanted)
    changed = _differs(wanted, seen.data)
    if not changed:
        return "unchanged"
    return "configured" if dry_run else _update(session, wanted, seen, changed)


def _diff(session: Session, params: Params) -> None:
    is_different = False
    for wanted in _read(session, params["file"]):
        seen = look(session, wanted.kind, wanted.called)
        before = document(wanted.kind, seen.data) if seen else {}
        if seen is None:
            after: dict[str, Any] = {**_head(wanted), "spec": dict(wanted.spec)}
        else:
            changed = _differs(wanted, seen.data)
            after = {**before, "spec": _ordered(wanted.kind, before["spec"] | changed)}
        is_different |= show_diff(session.out, before, after, wanted.title)
    if is_different:
        raise SystemExit(Exit.DIFFERENT)


def _head(wanted: Document) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": wanted.kind.document, "metadata": {"name": wanted.name}}


def _ordered(kind: Kind, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {field: spec[field] for field in kind.writable if field in spec and spec[field] is not None}


def show_diff(out: Output, before: Any, after: Any, title: str) -> bool:
    """Print how two documents differ, as `diff -u` does; tells whether they do."""
    lines = list(
        difflib.unified_diff(
            yamls.dump(before).splitlines() if before else [], yamls.dump(after).splitlines() if after else [],
            f"{title} (server)", f"{title} (wanted)", lineterm="",
        )
    )  # fmt: skip
    tones = {"+": "32", "-": "31", "@": "36"}
    for line in lines:
        shown, tone = texts.clean(line), tones.get(line[:1])
        out.line(f"\033[{tone}m{shown}\033[0m" if tone and out.is_coloured else shown)
    return bool(lines)


_FILES = Flag(
    "-f, --file", "A file of YAML or JSON documents, a folder of such files, or - for standard input.", metavar="FILE",
    many=True, required=True,
)  # fmt: skip
_KNOWN = ", ".join(kind.document for kind in KINDS)

APPLY = Verb(
    "apply",
    "Make objects what YAML documents say they are.",
    _apply,
    (_FILES, Flag("--dry-run", "Only say what would be done.", switch=True)),
    about="Makes what is not there and changes what is otherwise; fields that a document leaves out stay as they are,"
    " null clears one, lists and objects are replaced whole. What others refer to comes first, whatever the order in"
    f" the file.\n\nKinds: {_KNOWN}.",
    examples=(
        "apply -f tenants.yaml",
        "export tenants policies | opencrane apply -f - --server https://other.example.com",
    ),
)
DIFF = Verb(
    "diff",
    "Show what apply would change. Exits with 7 when there is something.",
    _diff,
    (_FILES,),
    shows=False,
    examples=("diff -f tenants.yaml",),
)

# --- Export -----------------------------------------------------------------------------------------------------------


def _export(session: Session, params: Params) -> None:
    wanted = params["what"] or [kind.noun for kind in KINDS]
    is_first = True
    for text in wanted:
        noun, slash, name = text.partition("/")
        kind = next((kind for kind in KINDS if noun in (kind.noun, kind.document)), None)
        if kind is None:
            raise UsageError(f"{noun} cannot be exported; {', '.join(kind.noun for kind in KINDS)} can")
        for live in [_required(session, kind, name)] if slash else _all(session, kind):
            made = document(kind, live)
            if session.out.format == "json":
                session.out.line(yamls.as_json(made))
            else:
                session.out.stdout.write(("" if is_first else "---\n") + yamls.dump(made))
            is_first = False


def _required(session: Session, kind: Kind, name: str) -> Any:
    seen = look(session, kind, name)
    if seen is None:
        raise CliError(f"there is no {kind.title} {name}", status=Exit.NOT_FOUND)
    return seen.data


def _all(session: Session, kind: Kind) -> Iterator[Any]:
    """Every object of a kind, whole: lists leave out what is long."""
    for rows, _ in session.client.pages(kind.path, {}):
        if kind is ACCOUNT:
            yield from rows
            continue
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for row, seen in zip(rows, pool.map(lambda row: _again(session, kind, row), rows), strict=True):
                if seen is not None and not (kind is WEBHOOK and row.get("builtIn")):
                    yield seen


def _again(session: Session, kind: Kind, row: Any) -> Any:
    seen = look(session, kind, str(row[kind.key]))
    return seen and seen.data  # None, when it has gone meanwhile


EXPORT = Verb(
    "export",
    "Print objects as YAML documents that apply takes.",
    _export,
    (
        Arg(
            "WHAT", "Nouns, or single objects: tenants, tenants/anna, policies. Everything, if absent.", many=True,
            required=False,
        ),
        Flag("-o, --output", "One document after the other.", choices=("yaml", "json"), metavar="FORMAT"),
    ),
    about="Secrets are in none of them. Grants name groups and tenants by name, so that documents fit another server.",
    examples=("export tenants policies > fleet.yaml", "export mcp-servers/github"),
    shows=False,
)  # fmt: skip
