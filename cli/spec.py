"""How commands are written down: as tables, from which `frame` makes what parses, helps and completes.

A noun is what commands are about, a verb is one command. Each says which operations of the API it uses; a test holds
these against openapi.json, so that nothing there is out of reach and no flag names what is not there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli import values
from cli.output import Column, Output

if TYPE_CHECKING:
    from cli.session import Session

Params = Mapping[str, Any]
Run = Callable[["Session", Params], None]


@dataclass(frozen=True)
class Arg:
    """A positional argument.

    Attributes:
        name: as help shows it, in capitals: `NAME`. The value is under the same name in small letters.
        names: the noun whose names complete it.
        many: whether one or more are taken.
    """

    name: str
    help: str = ""
    names: str = ""
    many: bool = False
    required: bool = True
    read: Callable[[str], Any] = values.text
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.name.lower().replace("-", "_")


@dataclass(frozen=True)
class Flag:
    """An option.

    Attributes:
        flags: `--team`, or with a short one, `-q, --search`. The value is under the long one's name.
        to: where the value goes: a field of the body (dotted), or a query parameter.
        metavar: what help calls the value.
        read: turns text into the value.
        many: whether it may be given more than once; the value is a list.
        switch: `--flag` without a value.
        negatable: `--flag` and `--no-flag`.
        names: the noun whose names complete it.
        fold: makes one value of those of a repeated flag, which are a list otherwise.
        clearable: whether `--clear` may name it when something is changed.
    """

    flags: str
    help: str
    to: str = ""
    metavar: str = "TEXT"
    read: Callable[[str], Any] = values.text
    choices: tuple[str, ...] = ()
    many: bool = False
    required: bool = False
    switch: bool = False
    negatable: bool = False
    names: str = ""
    default: Any = None
    hidden: bool = False
    fold: Callable[[list[Any]], Any] | None = None
    clearable: bool = True

    @property
    def declarations(self) -> list[str]:
        return self.flags.split(", ")

    @property
    def key(self) -> str:
        return self.declarations[-1].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        help: a sentence; `about` says more.
        does: the operations it uses, `GET /tenants/{name}`; those first that it is for.
        shows: whether it has a result that can be shown in several ways.
        examples: command lines without the program's name.
    """

    name: str
    help: str
    run: Run
    params: tuple[Arg | Flag, ...] = ()
    does: tuple[str, ...] = ()
    about: str = ""
    examples: tuple[str, ...] = ()
    hidden: bool = False
    shows: bool = True


@dataclass(frozen=True)
class Noun:
    """What commands are about.

    Attributes:
        default: the verb that is meant when none is named, for instance `audit --follow`.
    """

    name: str
    help: str
    verbs: "tuple[Verb | Noun, ...]"
    about: str = ""
    default: str = ""

    def verb(self, name: str) -> "Verb | Noun | None":
        return next((each for each in self.verbs if each.name == name), None)


@dataclass(frozen=True)
class Kind:
    """A kind of object that can be listed, got, made, changed and deleted.

    Attributes:
        noun: `mcp-servers`.
        title: one of them in a sentence: `MCP server`.
        path: of the collection.
        key: by what the API addresses one: `name`, or `id`.
        filter: the list's parameter that narrows it down to a name.
        by: the key of the filter's exact counterpart in a row.
        columns: of tables.
        many: several of them in a sentence, where an s is not enough.
        suffix: what stands after the name in the path of one.
        document: what a YAML document calls it; empty where there are none.
        writable: fields that a document's spec has, in order.
        label: what people call one by; its name, unless said otherwise.
        nested: where an answer has an object that is written under another name.
        find: the row of what somebody calls by a name, where that takes more than a look for the name.
    """

    noun: str
    title: str
    path: str
    columns: tuple[Column, ...]
    key: str = "name"
    filter: str = "q"
    by: str = "name"
    many: str = ""
    document: str = ""
    suffix: str = ""
    writable: tuple[str, ...] = ()
    label: Callable[[Any], str] = field(default=lambda row: str(row["name"]))
    nested: Mapping[str, str] = field(default_factory=dict)
    find: "Callable[[Session, str], Any] | None" = None
    describe: "Callable[[Output, Any], None] | None" = None

    @property
    def plural(self) -> str:
        return self.many or f"{self.title}s"

    @property
    def one(self) -> str:
        """The path of one object, with `{name}` or `{id}`."""
        return f"{self.path}/{{{self.key}}}{self.suffix}"
