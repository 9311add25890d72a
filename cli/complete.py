"""Completion: scripts for shells, and names from the server while somebody types."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cli.config import Settings, Store, target
from cli.errors import CliError
from cli.session import Session
from cli.spec import Arg, Params, Verb

SHELLS = ("bash", "zsh", "fish")
# Somebody waits with a finger on the key.
SECONDS = 2.0
MANY = 200

# Noun -> path, the parameter that narrows it down, and what a row is called by.
_SOURCES: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "tenants": ("/tenants", "q", lambda row: row["name"]),
    "policies": ("/policies", "q", lambda row: row["name"]),
    "cluster-tenants": ("/cluster-tenants", "q", lambda row: row["name"]),
    "groups": ("/groups", "q", lambda row: row["name"]),
    "mcp-servers": ("/mcp-servers", "q", lambda row: row["name"]),
    "sources": ("/third-party-sources", "q", lambda row: row["name"]),
    "webhooks": ("/webhooks", "q", lambda row: row["name"]),
    "skills": ("/skills/catalog", "q", lambda row: f"{row['name']}@{row['version']}"),
    "jobs": ("/jobs", "", lambda row: row["id"]),
    "tokens": ("/access-tokens", "q", lambda row: row["name"]),
    "budgets": ("/ai-budget/accounts", "q", lambda row: row["userId"]),
    "provider-keys": ("/providers/keys", "", lambda row: row["provider"]),
    "retained-data": ("/retained-data", "", lambda row: row["tenant"]),
}


def names(settings: Settings | None, noun: str, incomplete: str) -> list[str]:
    """Names that begin like this; none where the server is away, nobody is signed in, or anything else is wrong."""
    settings = settings if isinstance(settings, Settings) else Settings()
    try:
        if noun == "context":
            return [name for name in Store().contexts if name.startswith(incomplete)]
        source = _SOURCES.get(noun)
        if source is None or not target(settings).token:
            return []
        place, filter_name, called = source
        query: dict[str, Any] = {"limit": MANY} if noun != "provider-keys" else {}
        if filter_name and incomplete:
            query[filter_name] = incomplete.partition("@")[0] if noun == "skills" else incomplete
        with Session(replace(settings, timeout=SECONDS)) as session:
            answer = session.client.send("GET", place, query=query)
        found = [called(row) for row in answer.json()] if answer.is_success else []
    except (CliError, ValueError, KeyError, TypeError):
        return []
    return sorted(name for name in dict.fromkeys(found) if name.startswith(incomplete))


def init() -> None:
    """Make Typer know the shells."""
    from typer._completion_classes import completion_init

    completion_init()


_REGISTERS = "compdef _opencrane_completion opencrane"
# A file of `fpath` is read at the first completion, which it has to answer as well (zshcompsys(1), "Autoloaded files").
_ZSH_END = f"""\
if [[ ${{zsh_eval_context[-1]}} == loadautofunc ]]; then
  _opencrane_completion "$@"
else
  {_REGISTERS}
fi"""


def _completion(session: Session, params: Params) -> None:
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="opencrane", complete_var="_OPENCRANE_COMPLETE", shell=params["shell"])
    if params["shell"] == "zsh":
        script = script.replace(_REGISTERS, _ZSH_END)
    sys.stdout.write(f"{script}\n")


COMPLETION = Verb(
    "completion",
    "Print the script that completes commands, flags and names in a shell.",
    _completion,
    (Arg("SHELL", choices=SHELLS),),
    about="Names come from the server of the current context, which is asked while you type.",
    examples=(
        "completion bash > ~/.local/share/bash-completion/completions/opencrane",
        'completion zsh > "${fpath[1]}/_opencrane"',
        "completion fish > ~/.config/fish/completions/opencrane.fish",
    ),
    shows=False,
)
