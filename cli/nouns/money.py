"""What may be spent, what was, and the keys that it is spent with."""

from typing import Any

from cli import values
from cli.output import column, wide
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Noun, Params, Verb
from cli.verbs import NO_WAIT, SEARCH, YES, delete_verb, find, given, list_verb, written

# --- Budgets ----------------------------------------------------------------------------------------------------------

ACCOUNT = Kind(
    noun="budgets",
    title="budget",
    path="/ai-budget/accounts",
    key="userId",
    by="userId",
    document="AccountBudget",
    columns=(
        column("ACCOUNT", "userId"),
        column("SPENT USD", "currentSpendUsd", "money"),
        column("LIMIT USD", "monthlyLimitUsd", "money"),
        column("STATE", "budgetAlertState", "state"),
        wide("SET", "updatedAt", "age"),
    ),
    writable=("monthlyLimitUsd",),
    label=lambda row: str(row["userId"]),
)
_ACCOUNT = Arg("ACCOUNT", "A person's e-mail address.", names="budgets")
_AMOUNT = Arg("USD", "US dollars for a calendar month (UTC); 0 is no ceiling.", read=values.money)


def _get(session: Session, params: Params) -> None:
    account = params["account"]
    answer = find(session, ACCOUNT, account) if account else session.client.get("/ai-budget/global").data
    session.out.thing(answer, account or "global")


def _set(session: Session, params: Params) -> None:
    from cli.client import path

    place = path("/ai-budget/accounts/{userId}", userId=params["account"])
    answer = session.client.request("PUT", place, body={"monthlyLimitUsd": params["usd"]}).data
    written(session, ACCOUNT, params["account"], f"set to {params['usd']:,.2f} USD a month", answer)


def _set_global(session: Session, params: Params) -> None:
    answer = session.client.request("PUT", "/ai-budget/global", body={"monthlyLimitUsd": params["usd"]}).data
    written(session, ACCOUNT, "global", f"set to {params['usd']:,.2f} USD a month", answer)


_DELETE = delete_verb(ACCOUNT, consequence="What was spent stays in the ledger.")

BUDGETS = Noun(
    "budgets",
    "What people and everybody may spend in a calendar month (UTC). They warn; a tenant's own budget stops.",
    (
        list_verb(
            ACCOUNT,
            SEARCH,
            Flag("--state", "Only in this state.", to="state", choices=("ok", "warning", "exceeded"), metavar="STATE"),
            help="List accounts with a budget.",
        ),
        Verb(
            "get",
            "Show an account's budget, or everybody's.",
            _get,
            (
                Arg(
                    "ACCOUNT",
                    "A person's e-mail address; everybody together, if absent.",
                    names="budgets",
                    required=False,
                ),
            ),
            ("GET /ai-budget/global", "GET /ai-budget/accounts"),
        ),
        Verb(
            "set",
            "Set an account's budget, or make it one.",
            _set,
            (_ACCOUNT, _AMOUNT),
            ("PUT /ai-budget/accounts/{userId}",),
            examples=("budgets set anna@example.com 120",),
        ),
        Verb(
            "set-global", "Set what everybody may spend together.", _set_global, (_AMOUNT,), ("PUT /ai-budget/global",)
        ),
        _DELETE,
    ),
)

# --- Usage ------------------------------------------------------------------------------------------------------------

LEDGER = Kind(
    noun="usage",
    title="usage",
    many="usage",
    path="/token-usage",
    columns=(
        column("RECORDED", "recordedAt", "age"),
        column("TENANT", "tenant"),
        column("MODEL", "model"),
        column("INPUT", "inputTokens", "count"),
        column("OUTPUT", "outputTokens", "count"),
        column("COST USD", "totalCostUsd", "money"),
        wide("ORIGIN", "origin"),
        wide("REQUEST", "requestId"),
    ),
    key="id",
    label=lambda row: str(row["requestId"]),
)
SINCE = Flag(
    "--since", "From this time on: 24h, 2026-05-01, 2026-05-01T12:00:00Z.", to="since", metavar="TIME", read=values.past
)
UNTIL = Flag("--until", "Before this time.", to="until", metavar="TIME", read=values.past)
FORMAT = Flag("--format", "JSON lines, by default, or CSV.", to="format", choices=("jsonl", "csv"), metavar="FORMAT")
TO = Flag("--to", "The file to write; standard output, if absent.", metavar="FILE")
_FILTERS = (
    Flag("--tenant", "Only this tenant's.", to="tenant", metavar="NAME", names="tenants"),
    Flag(
        "--tenant-id", "Only that of the tenant with this id, whoever had its name before.", to="tenantId", metavar="ID"
    ),
    Flag("--model", "Only of this model.", to="model", metavar="NAME"),
    SINCE,
    UNTIL,
    Flag("--unattributed", "Only usage of tenants that are not known.", to="unattributed", switch=True),
)


def _export(session: Session, params: Params) -> None:
    from cli.nouns.operations import export

    export(session, params, "/token-usage/export", given(params, (*_FILTERS, FORMAT)))


def _spend(session: Session, params: Params) -> None:
    from cli.client import path

    answer = session.client.get(path("/ai-budget/{tenant}/spend", tenant=params["tenant"])).data
    session.out.thing(answer, str(answer["tenant"]))


_TENANT_ARG = Arg("TENANT", "The tenant's name.", names="tenants")
_LATEST = Flag("-l, --limit", "How many to show at most; 0 for all.", metavar="N", read=values.count, default=100)

USAGE = Noun(
    "usage",
    "The token ledger, and what a tenant has spent this month.",
    (
        list_verb(
            LEDGER,
            *_FILTERS,
            help="List usage, newest first.",
            limit=_LATEST,
            examples=("usage list --tenant anna --since 7d",),
        ),
        Verb(
            "export",
            "Write the ledger, or a part of it, to a file.",
            _export,
            (*_FILTERS, FORMAT, TO, NO_WAIT),
            ("POST /token-usage/export", "GET /jobs/{id}", "GET /jobs/{id}/file"),
            examples=("usage export --since 2026-05-01 --until 2026-06-01 --format csv --to may.csv",),
        ),
        Verb(
            "spend",
            "What a tenant has spent this month.",
            _spend,
            (_TENANT_ARG,),
            ("GET /ai-budget/{tenantName}/spend",),
        ),
    ),
)

# --- LiteLLM keys -----------------------------------------------------------------------------------------------------

_GRACE = Flag(
    "--grace",
    "How long the old key goes on working: 1h. The server's setting, if absent.",
    to="graceSeconds",
    metavar="TIME",
    read=values.span,
)


def _key(action: str, method: str, done: str, ask: str = "") -> Any:
    def run(session: Session, params: Params) -> None:
        from cli.client import path

        name = params["tenant"]
        place = path("/ai-budget/{tenant}/litellm-key", tenant=name) + action
        if ask:
            session.confirm(ask.format(name=name), yes=params["yes"])
        answer = session.client.request(method, place, body=given(params, (_GRACE,)) or None).data
        if done:
            written(session, KEY, name, done, answer)
        else:
            session.out.thing(answer, name)

    return run


KEY = Kind(noun="keys", title="key", path="/ai-budget", columns=(), key="tenantName")
_PLACE = "/ai-budget/{tenantName}/litellm-key"
KEYS = Noun(
    "keys",
    "Tenants' LiteLLM keys: about them, never the keys themselves.",
    (
        Verb("get", "Show what is known of a tenant's key.", _key("", "GET", ""), (_TENANT_ARG,), (f"GET {_PLACE}",)),
        Verb(
            "rotate",
            "Have a new key issued; the old one works on for a while.",
            _key("/rotate", "POST", "rotating"),
            (_TENANT_ARG, _GRACE),
            (f"POST {_PLACE}/rotate",),
            examples=("keys rotate anna --grace 1h",),
        ),
        Verb(
            "revoke",
            "Have a key dead at once, after asking.",
            _key(
                "/revoke",
                "POST",
                "revoked",
                "Revoke the LiteLLM key of {name}? No new one is issued until somebody rotates.",
            ),
            (_TENANT_ARG, YES),
            (f"POST {_PLACE}/revoke",),
        ),
        Verb(
            "sync",
            "Have LiteLLM and the Secret brought in line, now.",
            _key("/sync", "POST", "syncing"),
            (_TENANT_ARG,),
            (f"POST {_PLACE}/sync",),
        ),
    ),
)

# --- Provider keys ----------------------------------------------------------------------------------------------------

PROVIDER = Kind(
    noun="provider-keys",
    title="provider key",
    path="/providers/keys",
    key="provider",
    columns=(
        column("PROVIDER", "provider"),
        column("CONFIGURED", "configured"),
        column("SET", "updatedAt", "age"),
    ),
    label=lambda row: str(row["provider"]),
)
_PROVIDER = Arg("PROVIDER", "The provider's name, for instance anthropic.", names="provider-keys")


def _list_providers(session: Session, params: Params) -> None:
    rows = session.client.get(PROVIDER.path).data
    session.out.rows([rows], PROVIDER.columns, PROVIDER.label)


def _set_provider(session: Session, params: Params) -> None:
    from cli.client import path

    place = path(PROVIDER.one, provider=params["provider"])
    key = session.secret("API key", params["key_file"] or "")
    answer = session.client.request("PUT", place, body={"apiKey": key}).data
    written(session, PROVIDER, params["provider"], "set", answer)


def _test_provider(session: Session, params: Params) -> None:
    from cli.client import path
    from cli.errors import CliError

    answer = session.client.request("POST", path(f"{PROVIDER.one}/test", provider=params["provider"])).data
    session.out.thing(answer, str(answer["provider"]))
    if answer["passed"] is False:
        raise CliError(f"{params['provider']} does not take the key")


PROVIDER_KEYS = Noun(
    "provider-keys",
    "Keys of model providers, kept sealed and never given back. For administrators.",
    (
        Verb("list", "List providers, with and without a key.", _list_providers, (), ("GET /providers/keys",)),
        Verb(
            "set",
            "Keep a provider's key, in the place of the one before.",
            _set_provider,
            (
                _PROVIDER,
                Flag(
                    "--key-file", "The file that holds it; - for standard input. Asked for, if absent.", metavar="FILE"
                ),
            ),
            ("PUT /providers/keys/{provider}",),
            about="The key is never taken from the command line, where others could read it.",
            examples=("provider-keys set anthropic < key.txt",),
        ),
        delete_verb(PROVIDER, consequence="Models of that provider stop answering."),
        Verb(
            "test",
            "Ask a provider whether it takes the key.",
            _test_provider,
            (_PROVIDER,),
            ("POST /providers/keys/{provider}/test",),
        ),
    ),
)
