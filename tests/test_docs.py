"""The documents against the code: links, settings, error codes, metrics, and the commands that are shown."""

import ast
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.urls import Resolver404, resolve

from opencrane.errors import DomainError

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# What production runs; the rest is for development.
PRODUCT = (
    "opencrane", "cluster", "accounts", "tenants", "policies", "mcpservers", "skills", "budgets", "awareness",
    "operations", "workloads",
)  # fmt: skip
# Read by Django or by a shell, and fixed by the image.
NOT_SETTINGS = {"DJANGO_SETTINGS_MODULE"}
READERS = {
    "text", "secret", "required_secret", "boolean", "integer", "choice", "words", "url", "workloads", "networks",
    "encryption_keys", "named_urls", "pairs", "get", "setdefault",
}  # fmt: skip


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def sources() -> tuple[tuple[Path, str], ...]:
    """Every module of the product, tests and migrations aside."""
    found = []
    for app in PRODUCT:
        for path in sorted((ROOT / app).rglob("*.py")):
            if not {"tests", "migrations"} & set(path.parts):
                found.append((path, path.read_text(encoding="utf-8")))
    return tuple(found)


# --- Links -----------------------------------------------------------------------------------------------------------


def links(document: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    yield from re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), f"{document.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{document.name}: {link}"


def test_every_document_can_be_found_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        reached.add(document)
        targets = [(document.parent / link.partition("#")[0]).resolve() for link in links(document) if ".md" in link]
        waiting += [target for target in targets if target.suffix == ".md" and target not in reached]
    assert reached >= {path for path in DOCUMENTS if path.parent.name == "docs"}


# --- Settings --------------------------------------------------------------------------------------------------------


def variables_read() -> set[str]:
    """Every environment variable that the product reads, wherever it does."""
    found = set()
    for _, source in sources():
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name("env") | ast.Attribute(attr="environ"), attr=reader),
                    args=[ast.Constant(value=str(name)), *_],
                ) if reader in READERS:
                    found.add(name)
                case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name))):
                    found.add(name)
    return found - NOT_SETTINGS


def documented_variables() -> list[str]:
    return re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", text_of("docs/configuration.md"), re.MULTILINE)


def test_every_setting_is_documented_once_and_exists() -> None:
    documented = documented_variables()
    assert sorted(documented) == sorted(set(documented))
    assert set(documented) == variables_read()


def test_documented_defaults_are_those_of_the_code() -> None:
    """Numbers, and bounds, as far as they are literals."""
    table = dict(
        re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]+) \| [^|]+ \|", text_of("docs/configuration.md"), re.MULTILINE)
    )
    defaults = dict(
        re.findall(r"^\| `([A-Z0-9_]+)` \| [^|]+ \| ([^|]+) \|", text_of("docs/configuration.md"), re.MULTILINE)
    )
    checked = 0
    for node in ast.walk(ast.parse(text_of("opencrane/settings.py"))):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="integer"), args=[ast.Constant(value=str(name)), ast.Constant(default)]
            ):
                bounds = {each.arg: ast.unparse(each.value).replace("_", "") for each in node.keywords}
                assert defaults[name] == ast.unparse(ast.Constant(default))
                least, most = bounds["minimum"], bounds.get("maximum")
                assert table[name] == (f"{least} or more" if most is None else f"{least}\N{EN DASH}{most}")
                checked += 1
    assert checked >= 5


def test_settings_named_elsewhere_exist() -> None:
    known = variables_read() | {"OPENCRANE_PYTHON", "OPENCRANE_VENV", "OPENCRANE_TEST_PROCESSES"}
    known |= set(re.findall(r'"(OPENCRANE_[A-Z_]+)"', text_of("cli/config.py")))
    for document in DOCUMENTS:
        for name in re.findall(r"\b(?:OPENCRANE|COGNEE|TENANT_CR)_[A-Z_]+", document.read_text(encoding="utf-8")):
            assert name in known, f"{document.name}: {name}"


def test_compose_sets_only_what_is_read() -> None:
    own = re.findall(
        r"^\s+(OPENCRANE_\w+|DATABASE_URL|REDIS_URL|KUBECONFIG|NAMESPACE):", text_of("docker-compose.yml"), re.M
    )
    assert own
    assert set(own) <= variables_read()


# --- Errors and metrics ----------------------------------------------------------------------------------------------


def all_errors() -> set[type[DomainError]]:
    for path, source in sources():
        if "DomainError" in source or path.name == "errors.py":
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found: set[type[DomainError]] = set()
    waiting: list[type[DomainError]] = [DomainError]
    while waiting:
        cls = waiting.pop()
        if cls is DomainError or cls.__module__.split(".")[0] in PRODUCT:
            found.add(cls)
        waiting += cls.__subclasses__()
    return {cls for cls in found if ".tests" not in cls.__module__}


def test_every_error_code_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([A-Z_]+)` \|", text_of("docs/api.md"), re.MULTILINE)
    documented = {(int(status), code) for status, code in rows}
    assert len(documented) == len(rows)
    assert documented == {(cls.http_status, cls.code) for cls in all_errors()}


def metrics_in_code() -> set[str]:
    """Every metric that a process of the product exports."""
    found = set()
    for _, source in sources():
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(func=ast.Name(kind), args=[ast.Constant(value=str(name)), *_]) if name.startswith(
                    "opencrane_"
                ):
                    found.add(f"{name}_total" if kind in {"CounterMetricFamily", "Counter"} else name)
    return found


def test_every_metric_is_documented_and_exists() -> None:
    row = re.compile(r"^\| `(opencrane_\w+?)(?:\{[a-z,]+\})?` \|", re.MULTILINE)
    documented = [name for file in ("operations", "operator") for name in row.findall(text_of(f"docs/{file}.md"))]
    assert sorted(documented) == sorted(metrics_in_code())


def test_alerts_and_dashboard_use_metrics_that_there_are() -> None:
    rules = yaml.safe_load(text_of("deploy/monitoring/prometheus-rules.yaml"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    panels = json.loads(text_of("deploy/monitoring/grafana-dashboard.json"))["panels"]
    queries = [rule["expr"] for rule in alerts] + [
        each["expr"] for panel in panels for each in panel.get("targets", ())
    ]
    known = metrics_in_code()
    used = {name for query in queries for name in re.findall(r"opencrane_\w+", query)}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) if name not in known else name for name in used} <= known
    # Labels stand in the documents, beside the metric or in its meaning.
    documents = text_of("docs/operations.md") + text_of("docs/operator.md")
    for query in queries:
        for name, matchers in re.findall(r"(opencrane_\w+)\{([^}]*)\}", query):
            (row,) = re.findall(rf"^\| `{re.sub('_(bucket|count)$', '', name)}\b.*$", documents, re.MULTILINE)
            for label in re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers):
                assert re.search(rf"\b{label}\b", row), f"{name} has no {label}"
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert set(rule["annotations"]) == {"summary", "description"}
        for heading in re.findall(r'Runbook, "([^"]+)"', rule["annotations"]["description"]):
            assert heading.lower() in re.sub(r"[*`]", "", documents).lower(), heading


# --- Commands and addresses ------------------------------------------------------------------------------------------


def test_the_readme_shows_the_two_commands() -> None:
    assert re.search(r"^\./dev up\b", text_of("README.md"), re.MULTILINE)
    assert re.search(r"^\./dev test\b", text_of("README.md"), re.MULTILINE)


def test_dev_commands_that_are_shown_exist() -> None:
    from devstack import launch

    usage = launch.USAGE
    commands = set(re.findall(r"^  ([a-z]+) ", usage, re.MULTILINE))
    for document in DOCUMENTS:
        for shown in re.findall(r"\./dev ([a-z]+)", document.read_text(encoding="utf-8")):
            assert shown in commands, f"{document.name}: ./dev {shown}"
    for command in commands:
        assert f"`./dev {command}" in text_of("docs/development.md"), command


def test_management_commands_that_are_shown_exist() -> None:
    commands = get_commands()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\n", " ")
        for name, rest in re.findall(r"manage\.py ([a-z_]+)((?: --?[a-z-]+(?: [A-Z]\w*)?)*)", text):
            assert name in commands, f"{document.name}: manage.py {name}"
            app = commands[name]
            command = load_command_class(app, name)
            options = {
                option
                for action in command.create_parser("manage.py", name)._actions
                for option in action.option_strings
            }
            for option in shlex.split(rest):
                assert not option.startswith("-") or option in options, f"{document.name}: manage.py {name} {option}"


def test_addresses_that_are_shown_are_served() -> None:
    text = text_of("docs/api.md") + text_of("docs/tenants.md")
    shown = {match.rstrip(".") for match in re.findall(r"(?:GET|POST|PUT|DELETE)\s+(/[a-zA-Z/{}.-]+)", text)}
    assert len(shown) >= 10
    for path in sorted(shown):
        filled = re.sub(r"\{[^}]*\}", "0f0e0d0c-0b0a-4908-8706-050403020100", path)
        try:
            resolve(f"/api/v1{filled}")
        except Resolver404:
            pytest.fail(f"{path} is not served")


def test_files_and_folders_that_are_named_exist() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:tests|deploy|devstack|cluster|tenants|bench|docs)/[\w./-]*)`", text):
            if name != "bench/results":
                assert (ROOT / name).exists(), f"{document.name}: {name}"
    for path in re.findall(r"`(cluster|tenants)\.(\w+)\.(\w+)`", text_of("docs/development.md")):
        assert hasattr(importlib.import_module(f"{path[0]}.{path[1]}"), path[2])
