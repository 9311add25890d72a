"""Who may use what: policies, groups, MCP servers, session scopes, access tokens."""

from typing import Any

from cli import values
from cli.errors import UsageError
from cli.nouns.drift import drift_verb, repair_verb
from cli.nouns.grants import change, grant_verb, revoke_verb
from cli.output import Column, at, column, wide
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Noun, Params, Verb
from cli.verbs import (
    FILE,
    IF_MATCH,
    SEARCH,
    YES,
    create_verb,
    delete_verb,
    edit_verb,
    from_file,
    get_verb,
    given,
    inner_list_verb,
    list_verb,
    name_arg,
    update_verb,
    wait_verb,
    where,
    written,
)

SCOPES = ("org", "department", "project", "personal")

# --- Policies ---------------------------------------------------------------------------------------------------------


def _selects(row: Any) -> str:
    selector = row["tenantSelector"]
    if selector is None:
        return "by name only"
    parts = [f"team={selector['matchTeam']}"] if selector.get("matchTeam") else []
    parts += [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    return ", ".join(parts) or "everybody"


POLICY = Kind(
    noun="policies",
    title="policy",
    many="policies",
    path="/policies",
    document="AccessPolicy",
    columns=(
        column("NAME", "name"),
        column("FOR", _selects),
        column("DOMAINS", lambda row: len(row["domains"]), "count"),
        column("EGRESS RULES", lambda row: len(row["egressRules"]), "count"),
        column("SYNC", lambda row: at(row, "sync.state") or row["sync"], "state"),
        column("AGE", "createdAt", "age"),
        wide("ALLOWED DOMAINS", "domains"),
        wide("DESCRIPTION", "description"),
    ),
    writable=("description", "tenantSelector", "domains", "egressRules", "mcpServers"),
    nested={"domains": "domainPolicy"},
    describe=lambda out, policy: out.fields(policy, skip=("domains",)),
)

POLICY_FIELDS = (
    Flag("--description", "What it is for.", to="description"),
    Flag("--match-team", "For tenants of this team.", to="tenantSelector.matchTeam", metavar="TEAM"),
    Flag(
        "--match-label",
        "For tenants with this label.",
        to="tenantSelector.matchLabels",
        metavar="KEY=VALUE",
        many=True,
        read=values.pair,
        fold=dict,
    ),
    Flag(
        "--allow-domain",
        "A domain to reach: example.com, *.example.com.",
        to="domains.allow",
        metavar="DOMAIN",
        many=True,
    ),
    Flag("--deny-domain", "A domain not to reach.", to="domains.deny", metavar="DOMAIN", many=True),
    Flag(
        "--default-deny",
        "Whether domains that are not allowed are denied.",
        to="domains.defaultDeny",
        negatable=True,
        clearable=False,
    ),
    Flag(
        "--egress",
        "A network to reach: 10.0.0.0/8:443,8443/TCP.",
        to="egressRules",
        metavar="RULE",
        many=True,
        read=values.egress,
    ),
    Flag(
        "--mcp-allow",
        "An MCP server to leave them; without any, all.",
        to="mcpServers.allow",
        metavar="NAME",
        many=True,
        names="mcp-servers",
    ),
    Flag(
        "--mcp-deny",
        "An MCP server to take from them.",
        to="mcpServers.deny",
        metavar="NAME",
        many=True,
        names="mcp-servers",
    ),
)

REACHED = Kind(
    noun="tenants",
    title="tenant",
    path="",
    columns=(
        column("NAME", "name"),
        column("DISPLAY NAME", "displayName"),
        column("TEAM", "team"),
        column("VIA", "via"),
    ),
)


POLICIES = Noun(
    "policies",
    "Access policies: where tenants may connect to, and which MCP servers they may call.",
    (
        list_verb(
            POLICY,
            SEARCH,
            empty="Make one: opencrane policies create web --match-team search --allow-domain example.com",
        ),
        get_verb(POLICY),
        create_verb(
            POLICY,
            *POLICY_FIELDS,
            about="Without --match-team and --match-label it is for tenants that name it.",
            examples=(
                "policies create web --match-team search --allow-domain '*.example.com' --default-deny",
                "policies create lab --egress 10.20.0.0/16:443 --mcp-deny github",
            ),
        ),
        update_verb(
            POLICY,
            *POLICY_FIELDS,
            about="What is not named stays as it is; a list that is named replaces the old one.",
        ),
        edit_verb(POLICY),
        delete_verb(
            POLICY,
            IF_MATCH,
            consequence="Its tenants fall back to other policies. One that a tenant names cannot be deleted.",
        ),
        inner_list_verb("tenants", POLICY, REACHED, "/tenants", help="List the tenants that a policy is for."),
        wait_verb(POLICY, {"sync": "sync.state"}),
        drift_verb(POLICY),
        repair_verb(POLICY),
    ),
)

# --- Groups -----------------------------------------------------------------------------------------------------------

GROUP = Kind(
    noun="groups",
    title="group",
    path="/groups",
    key="id",
    document="Group",
    columns=(
        column("NAME", "name"),
        column("SCOPE", "scope"),
        column("MEMBERS", "memberCount", "count"),
        column("GRANTS", lambda row: len(row["grants"]), "count"),
        column("AGE", "createdAt", "age"),
        wide("DESCRIPTION", "description"),
        wide("ID", "id"),
    ),
    writable=("name", "scope", "description", "members", "grants"),
    describe=lambda out, group: out.fields(group, skip=("awarenessGrants",)),
)
GROUP_FIELDS = (
    Flag("--scope", "Its scope.", to="scope", choices=SCOPES, metavar="SCOPE"),
    Flag("--description", "What it is for.", to="description"),
    Flag("--member", "A tenant's name or an e-mail address.", to="members", metavar="MEMBER", many=True),
)
RENAME = Flag("--rename", "Its new name.", to="name", metavar="NAME", clearable=False)


def _members(session: Session, params: Params, *, add: bool) -> None:
    wanted = list(dict.fromkeys(params["member"]))
    same = {each.lower() if "@" in each else each for each in wanted}

    def make(members: list[str]) -> list[str] | None:
        made = (
            [*members, *(each for each in wanted if each not in members)]
            if add
            else [each for each in members if each not in same]
        )
        return None if made == members else made

    answer = change(session, GROUP, params["name"], "members", make)
    done = "unchanged" if answer is None else f"{'added' if add else 'removed'} {', '.join(wanted)}"
    written(session, GROUP, params["name"], done, answer)


_MEMBER = Arg("MEMBER", "Tenants' names or e-mail addresses.", many=True, names="tenants")

GROUPS = Noun(
    "groups",
    "Groups of tenants and people, and what they are granted.",
    (
        list_verb(
            GROUP,
            SEARCH,
            Flag("--scope", "Only of this scope.", to="scope", choices=SCOPES, metavar="SCOPE"),
            Flag("--member", "Only those with this member.", to="member", metavar="MEMBER"),
        ),
        get_verb(GROUP),
        create_verb(GROUP, *GROUP_FIELDS, examples=("groups create platform --member anna --member ben@example.com",)),
        update_verb(GROUP, RENAME, *GROUP_FIELDS),
        edit_verb(GROUP),
        delete_verb(GROUP, IF_MATCH, consequence="Every grant that names it goes as well."),
        Verb(
            "add",
            "Add members to a group.",
            lambda session, params: _members(session, params, add=True),
            (name_arg(GROUP), _MEMBER),
            ("PUT /groups/{id}", "GET /groups/{id}"),
            examples=("groups add platform anna ben@example.com",),
        ),
        Verb(
            "remove",
            "Take members out of a group.",
            lambda session, params: _members(session, params, add=False),
            (name_arg(GROUP), _MEMBER),
            ("PUT /groups/{id}", "GET /groups/{id}"),
        ),
        grant_verb(GROUP, SCOPES, payload=True),
        revoke_verb(GROUP),
    ),
)

# --- MCP servers ------------------------------------------------------------------------------------------------------

TRANSPORTS = ("streamable-http", "sse", "websocket")
SERVER_STATES = ("active", "degraded", "draft")
HEALTH = ("healthy", "unhealthy", "unknown")

MCP_SERVER = Kind(
    noun="mcp-servers",
    title="MCP server",
    path="/mcp-servers",
    key="id",
    document="McpServer",
    columns=(
        column("NAME", "name"),
        column("STATUS", "status", "state"),
        column("HEALTH", "health", "state"),
        column("TOOLS", "probe.toolCount", "count"),
        column("TRANSPORT", "transport"),
        column("GRANTS", lambda row: len(row["grants"]), "count"),
        column("AGE", "createdAt", "age"),
        wide("ENDPOINT", "endpoint"),
        wide("SCOPE", "scope"),
        wide("PROBED", "probe.lastAt", "age"),
        wide("ID", "id"),
    ),
    writable=(
        "name",
        "endpoint",
        "transport",
        "description",
        "scope",
        "status",
        "capabilities",
        "sourceId",
        "grants",
        "credentials",
    ),
)
MCP_FIELDS = (
    Flag("--endpoint", "Its address: http(s), or ws(s) for websocket.", to="endpoint", metavar="URL", clearable=False),
    Flag(
        "--transport", "How it is spoken to.", to="transport", choices=TRANSPORTS, metavar="TRANSPORT", clearable=False
    ),
    Flag("--description", "What it is for.", to="description"),
    Flag("--scope", "Its scope.", to="scope", choices=SCOPES, metavar="SCOPE"),
    Flag("--status", "Active ones are probed and handed out.", to="status", choices=SERVER_STATES, metavar="STATUS"),
    Flag("--capability", "Something it can do.", to="capabilities", many=True),
    Flag("--source", "The id of what it was imported from.", to="sourceId", metavar="ID"),
)
CREDENTIAL = Kind(
    noun="credentials",
    title="credential",
    path="",
    key="id",
    columns=(
        column("NAME", "displayName"),
        column("MODE", "brokeringMode"),
        column("SECRET REFERENCE", "secretRef"),
        column("AGE", "createdAt", "age"),
        column("ID", "id"),
    ),
    label=lambda row: str(row["id"]),
)
PROBE = Kind(
    noun="probes",
    title="probe",
    path="",
    columns=(
        column("AT", "at", "age"),
        column("RESULT", lambda row: "ok" if row["ok"] else "failed", "state"),
        column("LATENCY (MS)", "latencyMs"),
        column("TOOLS", "toolCount", "count"),
        column("ERROR", "error"),
    ),
    label=lambda row: str(row["at"]),
)
_CREDENTIAL_FIELDS = (
    Flag("--name", "Name for people.", to="displayName", required=True),
    Flag(
        "--mode",
        "static hands out one secret, obo exchanges the user's token (RFC 8693).",
        to="brokeringMode",
        choices=("static", "obo"),
        metavar="MODE",
    ),
    Flag(
        "--secret-ref",
        "Where the secret is: secret-name, or namespace/secret-name#key. Never the secret.",
        to="secretRef",
        metavar="REFERENCE",
    ),
)


def _credential_place(session: Session, params: Params) -> str:
    return where(session, MCP_SERVER, params["server"], "/credentials")


def _list_credentials(session: Session, params: Params) -> None:
    rows = session.client.get(_credential_place(session, params)).data
    session.out.rows([rows], CREDENTIAL.columns, CREDENTIAL.label, empty="No credentials.")


def _add_credential(session: Session, params: Params) -> None:
    body = given(params, _CREDENTIAL_FIELDS)
    answer = session.client.request("POST", _credential_place(session, params), body=body).data
    written(session, CREDENTIAL, str(answer["id"]), "created", answer)


def _delete_credential(session: Session, params: Params) -> None:
    from cli.client import path
    from cli.errors import CliError, Exit

    place, wanted = _credential_place(session, params), params["credential"]
    found = [each for each in session.client.get(place).data if wanted in (each["id"], each["displayName"])]
    if len(found) != 1:
        problem = "several credentials are" if found else "no credential is"
        raise CliError(
            f"{problem} called {wanted}",
            status=Exit.USAGE if found else Exit.NOT_FOUND,
            hint=f"opencrane mcp-servers credentials list {params['server']}",
        )
    name = found[0]["displayName"]
    session.confirm(f"Delete credential {name} of MCP server {params['server']}?", yes=params["yes"])
    answer = session.client.request("DELETE", place + path("/{id}", id=found[0]["id"])).data
    written(session, CREDENTIAL, name, "deleted", answer)


_SERVER = Arg("SERVER", "The MCP server's name or id.", names="mcp-servers")
CREDENTIALS = Noun(
    "credentials",
    "References to what an MCP server is called with; never the secrets themselves.",
    (
        Verb(
            "list",
            "List an MCP server's credentials.",
            _list_credentials,
            (_SERVER,),
            ("GET /mcp-servers/{id}/credentials",),
        ),
        Verb(
            "create",
            "Give an MCP server a credential.",
            _add_credential,
            (_SERVER, *_CREDENTIAL_FIELDS),
            ("POST /mcp-servers/{id}/credentials",),
            examples=("mcp-servers credentials create github --name bot --secret-ref mcp/github-bot#token",),
        ),
        Verb(
            "delete",
            "Take a credential away, after asking.",
            _delete_credential,
            (_SERVER, Arg("CREDENTIAL", "Its name or id."), YES),
            ("DELETE /mcp-servers/{id}/credentials/{credentialId}", "GET /mcp-servers/{id}/credentials"),
        ),
    ),
)


def _probe(session: Session, params: Params) -> None:
    for name in params["name"]:
        place = where(session, MCP_SERVER, name)
        before = at(session.client.get(place).data, "probe.lastAt") if params["wait"] else None
        answer = session.client.request("POST", f"{place}/probe").data
        if params["wait"]:
            _await_probe(session, name, place, before, params["for_at_most"])
        else:
            written(session, MCP_SERVER, name, "probe queued", answer)


def _await_probe(session: Session, name: str, place: str, before: Any, seconds: float) -> None:
    found = session.until(
        lambda: session.client.get(place).data,
        lambda server: at(server, "probe.lastAt") != before,
        what=f"mcp-servers/{name} has not been probed",
        seconds=seconds,
    )
    why = at(found, "probe.error")
    written(session, MCP_SERVER, name, f"{found['health']}{f': {why}' if why else ''}", found)


MCP_SERVERS = Noun(
    "mcp-servers",
    "MCP servers: what agents may call, who may call it, and whether it answers.",
    (
        list_verb(
            MCP_SERVER,
            SEARCH,
            Flag("--status", "Only with this status.", to="status", choices=SERVER_STATES, metavar="STATUS"),
            Flag("--health", "Only with this health.", to="health", choices=HEALTH, metavar="HEALTH"),
            Flag("--transport", "Only with this transport.", to="transport", choices=TRANSPORTS, metavar="TRANSPORT"),
            Flag("--scope", "Only of this scope.", to="scope", choices=SCOPES, metavar="SCOPE"),
        ),
        get_verb(MCP_SERVER),
        create_verb(
            MCP_SERVER,
            *MCP_FIELDS,
            examples=(
                "mcp-servers create github --endpoint https://mcp.example.com/github --transport streamable-http",
            ),
        ),
        update_verb(MCP_SERVER, RENAME, *MCP_FIELDS, examples=("mcp-servers update github --status active",)),
        edit_verb(MCP_SERVER),
        delete_verb(MCP_SERVER, IF_MATCH, consequence="Its grants go as well."),
        grant_verb(MCP_SERVER, SCOPES),
        revoke_verb(MCP_SERVER),
        Verb(
            "probe",
            "Ask an MCP server for its tools, now.",
            _probe,
            (
                name_arg(MCP_SERVER, many=True),
                Flag("--wait", "Wait for the result.", switch=True),
                Flag("--for-at-most", "How long to wait.", metavar="TIME", read=values.seconds, default="1m"),
            ),
            ("POST /mcp-servers/{id}/probe", "GET /mcp-servers/{id}"),
        ),
        inner_list_verb(
            "probes",
            MCP_SERVER,
            PROBE,
            "/probes",
            help="List past probes, newest first.",
            limit=Flag(
                "-l, --limit", "How many to show at most; 0 for all.", metavar="N", read=values.count, default=20
            ),
        ),
        CREDENTIALS,
        wait_verb(MCP_SERVER, {"health": "health", "status": "status"}),
    ),
)

# --- Session scopes ---------------------------------------------------------------------------------------------------

_SESSION = Kind(noun="sessions", title="session", path="/sessions", columns=(), key="sessionKey")
_SESSION_KEY = Arg("SESSION", "The session's key.")
_SCOPE_FIELDS = (
    Flag("--principal", "A tenant's name, or a person's e-mail address.", to="principal", metavar="NAME"),
    Flag(
        "--scope",
        "A dataset in its scope: project:atlas.",
        to="scopes",
        metavar="SCOPE:DATASET",
        many=True,
        read=values.selector,
    ),
)


def _session(session: Session, params: Params) -> str:
    from cli.client import path

    return path("/sessions/{key}/scope", key=params["session"])


def _get_session(session: Session, params: Params) -> None:
    session.out.thing(session.client.get(_session(session, params)).data, params["session"])


def _set_session(session: Session, params: Params) -> None:
    body = from_file(session, params["file"]) | given(params, _SCOPE_FIELDS)
    if not body.get("principal") or not body.get("scopes"):
        raise UsageError("a session's scope needs --principal and at least one --scope")
    answer = session.client.request("PUT", _session(session, params), body=body).data
    session.out.thing(answer, params["session"])
    if answer["rejected"] and session.out.is_for_people:
        rejected = ", ".join(f"{each['scope']}:{each['payloadId']}" for each in answer["rejected"])
        session.out.note(f"Not granted to {answer['principal']}, and left out: {rejected}.")


def _clear_session(session: Session, params: Params) -> None:
    session.confirm(f"Take session {params['session']} all that it may see?", yes=params["yes"])
    answer = session.client.request("DELETE", _session(session, params)).data
    written(session, _SESSION, params["session"], "cleared", answer)


SESSIONS = Noun(
    "sessions",
    "What single sessions of an agent may see.",
    (
        Verb("get", "Show a session's scope.", _get_session, (_SESSION_KEY,), ("GET /sessions/{sessionKey}/scope",)),
        Verb(
            "set",
            "Let a session see what is both asked for and granted.",
            _set_session,
            (_SESSION_KEY, *_SCOPE_FIELDS, FILE),
            ("PUT /sessions/{sessionKey}/scope",),
            examples=("sessions set 7f3a --principal anna --scope project:atlas",),
        ),
        Verb(
            "clear",
            "Take all from a session, after asking.",
            _clear_session,
            (_SESSION_KEY, YES),
            ("DELETE /sessions/{sessionKey}/scope",),
        ),
    ),
)

# --- Access tokens ----------------------------------------------------------------------------------------------------

ROLES = ("member", "viewer", "operator", "admin")
TOKEN = Kind(
    noun="tokens",
    title="access token",
    path="/access-tokens",
    key="id",
    columns=(
        column("NAME", "name"),
        column("ROLE", "role"),
        column("STATUS", "status", "state"),
        column("CREATED BY", "createdBy"),
        column("EXPIRES", "expiresAt", "age"),
        column("LAST USED", "lastUsedAt", "age"),
        column("ID", "id"),
        Column("PREFIX", "prefix", wide=True),
        wide("OWNER", "owner"),
        wide("AGE", "createdAt", "age"),
    ),
    label=lambda row: str(row["id"]),
)
_TOKEN_FIELDS = (
    Flag("--role", "What it may do; never more than you.", to="role", choices=ROLES, metavar="ROLE"),
    Flag("--owner", "Whose it is, as a label.", to="owner"),
    Flag(
        "--expires",
        "When it ends: 90d, or a time. Never, if absent.",
        to="expiresAt",
        metavar="TIME",
        read=values.future,
    ),
)


def _token_made(session: Session, params: Params, answer: Any, name: str) -> None:
    shown = session.out
    if shown.is_for_people:
        # Alone on standard output, so that TOKEN=$(…) has it and nothing else.
        shown.note(f"Access token {name}, role {answer['role']}, id {answer['id']}. It is shown only now:")
        shown.line(str(answer["plainTextToken"]))
    else:
        shown.thing(answer, str(answer["id"]))


TOKENS = Noun(
    "tokens",
    "Access tokens for programs: your own, or everybody's for administrators.",
    (
        list_verb(
            TOKEN,
            SEARCH,
            Flag("--role", "Only with this role.", to="role", choices=ROLES, metavar="ROLE"),
            Flag(
                "--status",
                "Only in this state; without it, those that are not revoked.",
                to="status",
                choices=("active", "expired", "revoked"),
                metavar="STATUS",
            ),
        ),
        create_verb(
            TOKEN,
            *_TOKEN_FIELDS,
            done=_token_made,
            about="Prints the token on standard output and nothing else there. It cannot be had again.",
            examples=(
                "tokens create ci --role operator --expires 90d",
                "tokens create nightly --role viewer --expires 1d > token.txt",
            ),
        ),
        delete_verb(
            TOKEN,
            name="revoke",
            done="revoked",
            help="Revoke access tokens, after asking.",
            consequence="Whatever carries it is refused from then on.",
        ),
    ),
)
