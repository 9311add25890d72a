"""The tables of commands against what the API has, what the documents say, and what a start may load."""

import ast
import html
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cli import __version__, nouns
from cli.frame import GLOBAL, HELP, SHOWING, load
from cli.spec import Arg, Flag, Noun, Verb

ROOT = Path(__file__).resolve().parents[2]
# Operations that no command is for, and why.
EXCLUDED = {
    "GET /auth/callback": "a browser comes back here from the OpenID provider",
    "GET /auth/login": "a browser begins here to sign in",
    "GET /auth/device/activate": "the page on which a person approves a command line",
    "POST /auth/logout": "ends a session; a command line has a token, which `logout` revokes",
    "POST /auth/pod-token": "for people with a session, refused to tokens",
    "GET /openapi.json": "for programs; `opencrane api GET /openapi.json` prints it",
}
# Structures that would make poor flags, and second ways to say the same: a file gives them.
BY_FILE = {
    "awarenessGrants", "configOverrides", "contentBase64", "credentials", "domainPolicy", "grants", "promotions",
    "solverConfig",
}  # fmt: skip
# What arguments say, flags that read files, and commands by themselves.
OTHERWISE = {
    "GET /auth/device/token": {"deviceCode"},
    "GET /skills/catalog/{id}": {"content"},
    "GET /tenants/{name}/access": {"payload", "type"},
    "POST /awareness/rollout/promote": {"wave"},
    "POST /cluster-tenants/repair": {"dryRun", "names"},
    "POST /policies/repair": {"dryRun", "names"},
    "POST /skills/catalog": {"name", "content"},
    "POST /tenants/repair": {"dryRun", "names"},
    "POST /tenants/{name}/access": {"payload", "type"},
    "POST /webhooks": {"name", "secret"},
    "POST /webhooks/{id}/replay": {"onlyFailed"},
    "PUT /ai-budget/accounts/{userId}": {"monthlyLimitUsd"},
    "PUT /ai-budget/global": {"monthlyLimitUsd"},
    "PUT /platform/dns": {"apiToken"},
    "PUT /providers/keys/{provider}": {"apiKey"},
    "PUT /skills/catalog/{id}": {"content"},
    "PUT /webhooks/{id}": {"secret"},
}


@cache
def document() -> Any:
    return json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))


def operations() -> dict[str, Any]:
    """`GET /tenants/{name}` -> the operation."""
    return {
        f"{method.upper()} {path.removeprefix('/api/v1')}": operation
        for path, item in document()["paths"].items()
        for method, operation in item.items()
    }


def resolved(schema: Any) -> Any:
    while "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def verbs_of(spec: Noun | Verb, words: str) -> Iterator[tuple[str, Verb]]:
    if isinstance(spec, Verb):
        yield words, spec
    else:
        for each in spec.verbs:
            yield from verbs_of(each, f"{words} {each.name}")


@cache
def commands() -> dict[str, Verb]:
    """Every command: `mcp-servers credentials create` -> its table."""
    return {words: verb for entry in nouns.ENTRIES for words, verb in verbs_of(load(entry), entry.name)}


def users(operation: str) -> list[Verb]:
    return [verb for verb in commands().values() if operation in verb.does]


def test_every_operation_has_a_command_or_a_reason() -> None:
    served = operations()
    used = {operation for verb in commands().values() for operation in verb.does}
    assert used <= set(served), "commands use operations that there are not"
    assert set(EXCLUDED) <= set(served)
    assert set(served) - used == set(EXCLUDED), "give it a command, or a reason in EXCLUDED"


def flags_to(operation: str) -> dict[str, list[Flag]]:
    """Field or parameter -> the flags that fill it in, of all commands that use the operation."""
    found: dict[str, list[Flag]] = {}
    for verb in users(operation):
        for flag in verb.params:
            if isinstance(flag, Flag) and flag.to:
                found.setdefault(flag.to, []).append(flag)
    return found


def alternatives(schema: Any) -> list[Any]:
    """A schema and those that it offers to choose from."""
    schema = resolved(schema)
    return [schema, *(resolved(each) for key in ("oneOf", "anyOf") for each in schema.get(key, ()))]


def field(schema: Any, dotted: str) -> Any:
    """A field's schema, inside of nullable ones and alternatives."""
    for key in dotted.split("."):
        options = alternatives(schema)
        schema = next((each["properties"][key] for each in options if key in each.get("properties", {})), None)
        if schema is None:
            return None
    return schema


def body_of(operation: Any) -> Any:
    content = operation.get("requestBody", {}).get("content", {})
    return resolved(content["application/json"]["schema"]) if content else {}


def choices_of(schema: Any) -> set[str]:
    schema = resolved(schema)
    found = set(schema.get("enum", ()))
    for key in ("oneOf", "anyOf", "allOf"):
        for each in schema.get(key, ()):
            found |= choices_of(each)
    if "items" in schema:
        found |= choices_of(schema["items"])
    return {each for each in found if each is not None}


def is_nullable(schema: Any) -> bool:
    schema = resolved(schema)
    return (
        "null" in schema.get("type", ())
        or None in schema.get("enum", ())
        or any(is_nullable(each) for key in ("oneOf", "anyOf") for each in schema.get(key, ()))
    )


def test_flags_and_fields_fit() -> None:
    """No parameter or field of the API is out of reach, no flag fills in what there is not, choices are the API's."""
    for name, operation in operations().items():
        if name in EXCLUDED:
            continue
        body = body_of(operation)
        parameters = {each["name"]: each["schema"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        tops = {dotted.partition(".")[0] for dotted in flags_to(name)}
        missing = {*parameters, *body.get("properties", ())} - tops - {"limit", "cursor"}
        otherwise = OTHERWISE.get(name, {"name"} if name.startswith("POST") else set())
        assert missing - BY_FILE <= otherwise, f"{name}: no flag fills it in"
        writes = [verb for verb in users(name) if verb.does[0] == name]
        flags = [flag for verb in writes for flag in verb.params if isinstance(flag, Flag)]
        if missing & BY_FILE and name.startswith("P"):
            assert any("--file" in flag.flags for flag in flags), f"{name}: no file"
        for flag in (each for each in flags if each.to):
            schema = parameters.get(flag.to) or field(body, flag.to)
            label = f"{name} {flag.flags}"
            if schema is None:
                assert len(writes[0].does) > 1, f"{label}: there is no {flag.to}"
            elif choices_of(schema):
                assert set(flag.choices) == choices_of(schema), label


def test_what_may_be_cleared_is_what_the_api_takes_null_for() -> None:
    for words, verb in commands().items():
        clear = next((each for each in verb.params if isinstance(each, Flag) and each.flags == "--clear"), None)
        if clear is None or words == "datasets set":
            continue
        body = body_of(operations()[verb.does[0]])
        for flag in verb.params:
            if isinstance(flag, Flag) and flag.to and not flag.negatable:
                parent, _, last = flag.to.rpartition(".")
                # What is inside of an object is cleared by leaving it out.
                objects = [body] if not parent else alternatives(field(body, parent))
                required = any(last in each.get("required", ()) for each in objects)
                may_be = not required if parent else is_nullable(field(body, flag.to))
                assert (flag.key.replace("_", "-") in clear.choices) == may_be, f"{words} {flag.flags}"


def test_documents_have_the_fields_that_can_be_written() -> None:
    from cli.documents import KINDS

    for kind in KINDS:
        writable = set(kind.writable) - {"name"}
        for method, path in (("POST", kind.path), ("PUT", kind.one)):
            operation = operations().get(f"{method} {path}")
            if operation is None or (kind.suffix and method == "POST"):
                continue
            fields = set(body_of(operation)["properties"])
            left_out = {"name", "adoptRetained", "awarenessGrants", "domainPolicy", "secret", "digest", "org"}
            assert writable <= fields, kind.noun
            assert fields - writable <= left_out, kind.noun


def test_commands_are_put_together_well() -> None:
    shared = {name for flag in (*GLOBAL, *SHOWING, HELP) for name in flag.declarations}
    for words, verb in commands().items():
        keys = [each.key for each in verb.params]
        assert len(keys) == len(set(keys)), f"{words}: two parameters have one name"
        taken = [name for each in verb.params if isinstance(each, Flag) for name in each.declarations]
        assert len(taken) == len(set(taken)), words
        assert set(taken) & shared <= {"-o", "--output"}, f"{words}: a flag hides one that every command takes"
        for text in (verb.help, *(each.help for each in verb.params if each.help)):
            assert text.endswith("."), f"{words}: {text}"
            assert text[0].isupper() or not text[0].isalpha() or text[0] == "s", f"{words}: {text}"
        arguments = [each.required for each in verb.params if isinstance(each, Arg)]
        assert arguments == sorted(arguments, reverse=True), f"{words}: what may be left out comes last"


def examples() -> list[str]:
    """Every command line that help and documents show, without the program's name."""
    shown = [example for verb in commands().values() for example in verb.examples]
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            joined = block.replace("\\\n", " ")
            shown += re.findall(r"(?:^|[/(]|[|;&] )opencrane ([^\n|]*)", joined, re.MULTILINE)
        # In running text, only what looks like a whole command.
        shown += re.findall(r"`opencrane ([a-z][^`]*)`", path.read_text(encoding="utf-8"))
    for path in (ROOT / "templates").rglob("*.html"):
        text = html.unescape(path.read_text(encoding="utf-8"))
        shown += re.findall(r"{% block cli %}(.+?){% endblock %}", text)
        shown += [f"{words} NAME" for words in re.findall(r'{% copy_cli "([^"]+)"', text)]
        shown += re.findall(r'(?:data-copy-text="|id="teach-cli">|\$TOKEN )opencrane ([a-z][^"<{]*)', text)
    return shown


def test_commands_that_are_shown_parse() -> None:
    import shlex

    from cli.config import Settings
    from cli.main import program

    assert len(examples()) > 100
    for example in examples():
        line = re.split(r" [|><] ?|\)$| #", example)[0]
        words = [word for word in shlex.split(line) if word not in ("…", "...")]
        if not words or any(word.isupper() and word in ("COMMAND",) for word in words):
            continue
        context = program().make_context("opencrane", [*words, "--help"], resilient_parsing=True, obj=Settings())
        args = [*context._protected_args, *context.args]
        group: Any = context.command
        while args and hasattr(group, "get_command"):
            if group.default and args[0].startswith("-"):
                args = [group.default, *args]
            child = group.get_command(context, args[0])
            assert child is not None, f"there is no {example}"
            group, args = child, args[1:]
        if hasattr(group, "get_command"):
            continue
        known = {name for param in group.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
        for word in args:
            option = word.partition("=")[0]
            assert not option.startswith("--") or option in known, f"opencrane {example}: no {option}"


def test_the_document_has_every_command() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| (.+) \|$", text, re.MULTILINE)
    documented = {name: re.findall(r"`([a-z -]+)`", verbs) for name, verbs, _ in rows}
    for entry in nouns.ENTRIES:
        spec = load(entry)
        wanted = [words.removeprefix(f"{entry.name} ") for words, _ in verbs_of(spec, entry.name)]
        assert documented.get(entry.name) == (wanted if isinstance(spec, Noun) else []), entry.name
    assert set(documented) == {entry.name for entry in nouns.ENTRIES}


def test_the_document_has_every_exit_status() -> None:
    from cli.errors import Exit

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [each.value for each in Exit]


def test_help_loads_little() -> None:
    """Starting has to be quick: what is slow to import is only imported by what needs it."""
    code = (
        "import sys; from cli.main import main; main(sys.argv[1:]);"
        "print('MODULES', *(name for name in sys.modules), file=sys.stderr)"
    )
    heavy = {"httpx", "yaml", "rich", "pydantic", "django", "ssl", "click", "json.tool", "cli.client", "cli.documents"}
    for argv in (["--help"], ["tenants", "--help"], ["tenants", "list", "--help"], ["--version"]):
        run = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, check=True)
        loaded = set(run.stderr.partition("MODULES")[2].split())
        assert run.stdout
        assert not loaded & heavy, argv
        assert ("cli.nouns.tenants" in loaded) == ("tenants" in argv)


def test_it_can_be_installed_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert project["scripts"] == {"opencrane": "cli.main:run"}
    wanted = {re.split(r"[<>=~!]", each)[0] for each in project["dependencies"]}
    imported = set()
    for path in (ROOT / "cli").rglob("*.py"):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            imported |= {name.partition(".")[0] for name in names}
    foreign = imported - set(sys.stdlib_module_names) - {"cli"}
    assert {{"yaml": "pyyaml"}.get(name, name) for name in foreign} == wanted
