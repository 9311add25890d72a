"""Typer's commands and groups, made from the tables of `spec`: parsing, help, completion.

Typer turns values into types with pydantic, which takes longer to import than all the rest; ours are read by functions
of `values` instead. Groups import a noun's module when one of its commands is asked for.
"""

import importlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typer._click.core import Command as Command_
from typer._click.core import Context
from typer._click.exceptions import BadParameter, MissingParameter
from typer._click.shell_completion import CompletionItem
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption, _TyperParameter

from cli import values
from cli.config import Settings
from cli.errors import ReaderGoneError
from cli.output import FORMATS
from cli.spec import Arg, Flag, Noun, Verb

PROGRAM = "opencrane"
# Taken by every command, before or after its name.
SHOWING = (
    Flag("-o, --output", "How to show it.", choices=FORMATS, metavar="FORMAT"),
    Flag("--no-headers", "Tables without their first line.", switch=True),
)
HELP = Flag("-h, --help", "This text.", switch=True)
GLOBAL = (
    Flag(
        "--context",
        "The context to use, of those that `opencrane context list` shows.",
        metavar="NAME",
        names="context",
    ),
    Flag("--server", "The server's address, in place of a context.", metavar="URL"),
    Flag("--ca-file", "Certificates (PEM) to trust instead of the system's.", metavar="FILE"),
    Flag("--insecure-http", "Speak plain HTTP to another machine all the same.", switch=True),
    Flag("--timeout", "How long to wait for an answer.", metavar="SECONDS", read=values.seconds),
    Flag("--no-color", "No colours, as with NO_COLOR set.", switch=True),
    Flag("-v, --verbose", "Tell each request on standard error.", switch=True),
)


class _Reading(_TyperParameter):
    """What our options and arguments have in common: reading their values without pydantic."""

    spec: Any

    def process_value(self, ctx: Context, value: Any) -> Any:
        value = self._value(ctx, value)
        return self.callback(ctx, self, value) if self.callback is not None else value

    def _value(self, ctx: Context, value: Any) -> Any:
        spec = self.spec
        is_list = self.multiple or self.nargs == -1
        if value is None or (is_list and not value):
            if spec.required and not ctx.resilient_parsing:
                raise MissingParameter(ctx=ctx, param=self)
            return [] if is_list else value
        if isinstance(value, bool):
            return value
        try:
            read = [self._read(each) for each in value] if is_list else self._read(value)
        except ValueError as exc:
            raise BadParameter(f"{exc}.", ctx=ctx, param=self) from exc
        return read

    def _read(self, text: Any) -> Any:
        if not isinstance(text, str):
            return text  # a default
        if self.spec.choices and text not in self.spec.choices:
            raise ValueError(f"{text} is none of {', '.join(self.spec.choices)}")
        return self.spec.read(text)

    def get_missing_message(self, ctx: Context | None) -> str | None:
        return f"One of {', '.join(self.spec.choices)}." if self.spec.choices else ""

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        if self.spec.choices:
            return [CompletionItem(each) for each in self.spec.choices if each.startswith(incomplete)]
        if self.spec.names:
            from cli.complete import names

            return [CompletionItem(each) for each in names(ctx.find_root().obj, self.spec.names, incomplete)]
        return []


class _Helped(Command_):
    """`-h, --help`, made of our own option: Typer's would import pydantic whenever a command inside is called."""

    def get_help_option(self, ctx: Context) -> "TyperOption | None":
        if self._help_option is None:
            self._help_option = Option(HELP, callback=_show_help)
            self._help_option.is_eager = True
        return self._help_option


def _show_help(ctx: Context, param: Any, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        sys.stdout.write(f"{ctx.get_help()}\n")
        ctx.exit()


class Option(_Reading, TyperOption):
    """An option made from a Flag."""

    def __init__(self, spec: Flag, callback: Callable[..., Any] | None = None) -> None:
        self.spec = spec
        declarations = spec.declarations
        if spec.negatable:
            declarations = [f"{declarations[-1]}/--no-{declarations[-1].removeprefix('--')}"]
        super().__init__(
            # What every command takes is kept apart from a command's own: an argument may be called SERVER, too.
            param_decls=[spec.key if callback is None else f"global_{spec.key}", *declarations],
            type_descriptor=None,  # type: ignore[arg-type]  # only what we override reads it
            default=spec.default,
            required=spec.required,
            multiple=spec.many,
            is_flag=spec.switch or spec.negatable,
            metavar=spec.metavar,
            help=spec.help,
            hidden=spec.hidden,
            callback=callback,
            expose_value=callback is None,
        )


class Argument(_Reading, TyperArgument):
    """An argument made from an Arg."""

    multiple = False

    def __init__(self, spec: Arg) -> None:
        self.spec = spec
        super().__init__(
            param_decls=[spec.key],
            type_descriptor=None,  # type: ignore[arg-type]  # only what we override reads it
            required=spec.required,
            nargs=-1 if spec.many else 1,
            metavar=spec.name,
            help=spec.help,
        )

    def _usage_display_name(self) -> str:
        name = f"{self.spec.name}..." if self.spec.many else self.spec.name
        return name if self.spec.required else f"[{name}]"


def _keep(ctx: Context, param: Any, value: Any) -> Any:
    """A global option, wherever it stands: the innermost that says something decides."""
    if value not in (None, [], "", False) and isinstance(ctx.obj, Settings):
        setattr(ctx.obj, param.spec.key, value)
    return value


def _options(flags: Iterable[Flag]) -> list[Option]:
    return [Option(flag, callback=_keep) for flag in flags]


class Command(_Helped, TyperCommand):
    """A verb."""

    def __init__(self, verb: Verb, words: str) -> None:
        self.verb = verb
        self.words = words
        params: list[Any] = [Argument(each) if isinstance(each, Arg) else Option(each) for each in verb.params]
        shared = (*SHOWING, *GLOBAL) if verb.shows else GLOBAL
        taken = {name for each in verb.params if isinstance(each, Flag) for name in each.declarations}
        params += _options(flag for flag in shared if not taken.intersection(flag.declarations))
        super().__init__(
            verb.name,
            params=params,
            help=verb.help,
            hidden=verb.hidden,
            rich_markup_mode=None,
        )

    def invoke(self, ctx: Context) -> None:
        from cli.session import Session

        with Session(ctx.obj, self.words) as session:
            try:
                self.verb.run(session, ctx.params)
            except BrokenPipeError as exc:
                raise ReaderGoneError from exc

    def format_help(self, ctx: Context, formatter: Any) -> None:
        page = _Page(formatter)
        page.text(self.verb.help)
        for paragraph in filter(None, self.verb.about.split("\n\n")):
            page.text(paragraph)
        pieces = [piece for param in self.params for piece in param.get_usage_pieces(ctx)]
        page.section("Usage", [(" ".join([PROGRAM, self.words, *pieces, "[flags]"]), "")])
        arguments = [each for each in self.verb.params if isinstance(each, Arg) and each.help]
        page.section("Arguments", [(each.name, _help_of(each)) for each in arguments])
        flags = [each for each in self.verb.params if isinstance(each, Flag) and not each.hidden]
        page.section("Flags", _flag_rows([*flags, *(SHOWING if self.verb.shows else ())]))
        page.section("Global flags", [(", ".join(flag.flags.split(", ")[-1] for flag in GLOBAL), "")])
        page.section("Examples", [(f"$ {PROGRAM} {example}", "") for example in self.verb.examples])


@dataclass(frozen=True)
class Entry:
    """A command or group of commands, without its module.

    Attributes:
        module: of the package, where `attribute` is a Noun or a Verb.
        section: of the program's help.
    """

    name: str
    help: str
    module: str
    attribute: str
    section: str
    aliases: tuple[str, ...] = ()


class Group(_Helped, TyperGroup):
    """A noun, or the program itself."""

    def __init__(self, name: str, text: str, words: str = "", about: str = "", default: str = "") -> None:
        super().__init__(
            name=name,
            help=text,
            params=_options((*SHOWING, *GLOBAL)),
            rich_markup_mode=None,
            subcommand_metavar="COMMAND",
        )
        self.words = words
        self.about = about
        self.default = default

    def rows(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Section -> commands with their sentence."""
        raise NotImplementedError

    def list_commands(self, ctx: Context) -> list[str]:
        return [name for rows in self.rows().values() for name, _ in rows]

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if self.default and (not args or (args[0].startswith("-") and args[0] not in ("-h", "--help"))):
            args = [self.default, *args]
        elif not args and not ctx.resilient_parsing:
            args = ["--help"]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Context, formatter: Any) -> None:
        page = _Page(formatter)
        page.text(self.help or "")
        for paragraph in filter(None, self.about.split("\n\n")):
            page.text(paragraph)
        page.section("Usage", [(" ".join(filter(None, [PROGRAM, self.words, "COMMAND", "[flags]"])), "")])
        for section, rows in self.rows().items():
            page.section(section, rows)
        page.section("Global flags", _flag_rows((*SHOWING, *GLOBAL)))
        page.text(f"`{' '.join(filter(None, [PROGRAM, self.words, 'COMMAND']))} --help` says more about a command.")


class NounGroup(Group):
    """The commands about one noun."""

    def __init__(self, noun: Noun, words: str) -> None:
        super().__init__(noun.name, noun.help, words, noun.about, noun.default)
        self.noun = noun
        self.commands = dict.fromkeys(each.name for each in noun.verbs)  # type: ignore[assignment]  # for suggestions

    def rows(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        return {"Commands": [(each.name, each.help) for each in self.noun.verbs if not getattr(each, "hidden", False)]}

    def get_command(self, ctx: Context, cmd_name: str) -> Any:
        found = self.noun.verb(cmd_name)
        return made(found, f"{self.words} {cmd_name}") if found else None


class Program(Group):
    """`opencrane` itself."""

    def __init__(self, text: str, entries: Sequence[Entry], about: str) -> None:
        super().__init__(PROGRAM, text, about=about)
        self.entries = entries
        self._by_name = {name: each for each in entries for name in (each.name, *each.aliases)}
        self.commands = dict.fromkeys(self._by_name)  # type: ignore[assignment]  # for suggestions
        self.params.append(Option(Flag("--version", "The program's version.", switch=True), callback=_version))

    def rows(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        sections: dict[str, list[tuple[str, str]]] = {}
        for each in self.entries:
            sections.setdefault(each.section, []).append((each.name, each.help))
        return sections

    def get_command(self, ctx: Context, cmd_name: str) -> Any:
        entry = self._by_name.get(cmd_name)
        return made(load(entry), entry.name) if entry else None


def load(entry: Entry) -> Noun | Verb:
    """The tables of an entry."""
    found: Noun | Verb = getattr(importlib.import_module(f"cli.{entry.module}"), entry.attribute)
    return found


def made(spec: Noun | Verb, words: str) -> Command | NounGroup:
    """The command or group of a table."""
    return NounGroup(spec, words) if isinstance(spec, Noun) else Command(spec, words)


def _version(ctx: Context, param: Any, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        from cli import __version__

        sys.stdout.write(f"{PROGRAM} {__version__}\n")
        ctx.exit()


class _Page:
    """Help as lines: no boxes, nothing that a pager or a pipe would stumble over."""

    def __init__(self, formatter: Any) -> None:
        self._write = formatter.write
        self._width = min(110, max(60, shutil.get_terminal_size((100, 24)).columns if os.isatty(1) else 100))
        self._is_begun = False

    def text(self, text: str) -> None:
        self._gap()
        self._write("\n".join(textwrap.wrap(" ".join(text.split()), self._width)) + "\n")

    def section(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        if not rows:
            return
        self._gap()
        self._write(f"{title}:\n")
        room = min(max(len(name) for name, _ in rows), 34)
        for name, text in rows:
            lines = textwrap.wrap(text, max(30, self._width - room - 5)) or [""]
            if len(name) > room and text:
                self._write(f"  {name}\n")
                name = ""  # noqa: PLW2901 - the text goes below it
            self._write(f"  {name:<{room}}   {lines[0]}".rstrip() + "\n")
            for line in lines[1:]:
                self._write(f"  {'':<{room}}   {line}\n")

    def _gap(self) -> None:
        if self._is_begun:
            self._write("\n")
        self._is_begun = True


def _flag_rows(flags: Iterable[Flag]) -> list[tuple[str, str]]:
    rows = []
    for flag in flags:
        names = flag.flags if flag.flags.startswith("-") and flag.flags[1] != "-" else f"    {flag.flags}"
        if flag.negatable:
            names += f", --no-{flag.declarations[-1].removeprefix('--')}"
        elif not flag.switch:
            names += f" {flag.metavar}"
        rows.append((names, _help_of(flag)))
    return rows


def _help_of(spec: Arg | Flag) -> str:
    parts = [spec.help]
    if spec.choices:
        parts.append(f"One of {', '.join(spec.choices)}.")
    if isinstance(spec, Flag) and spec.many:
        parts.append("May be repeated.")
    if isinstance(spec, Flag) and spec.required:
        parts.append("Required.")
    if isinstance(spec, Flag) and spec.default not in (None, False, ""):
        parts.append(f"({spec.default} unless said otherwise.)")
    return " ".join(filter(None, parts))
