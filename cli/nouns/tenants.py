"""Tenants, and what belongs to one of them."""

from typing import Any

from cli import texts, values
from cli.errors import CliError, Exit, UsageError
from cli.nouns.drift import drift_verb, repair_verb
from cli.output import Output, at, column, wide
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Noun, Params, Verb
from cli.verbs import (
    IF_MATCH,
    REASON,
    SEARCH,
    WAIT_SECONDS,
    YES,
    act_verb,
    create_verb,
    delete_verb,
    edit_verb,
    from_file,
    get_verb,
    given,
    list_verb,
    name_arg,
    show_verb,
    update_verb,
    wait_verb,
    where,
    written,
)

SYNC_STATES = ("deleting", "drifted", "failing", "synced", "waiting")
PAYLOADS = ("awareness", "mcp-server", "skill-bundle")


def _sync(row: Any) -> Any:
    # A list says the state alone, one tenant all about it.
    return at(row, "sync.state") or row.get("sync")


TENANT = Kind(
    noun="tenants",
    title="tenant",
    path="/tenants",
    document="Tenant",
    columns=(
        column("NAME", "name"),
        column("DISPLAY NAME", "displayName"),
        column("TEAM", "team"),
        column("PHASE", "phase", "state"),
        column("SYNC", _sync, "state"),
        column("AGE", "createdAt", "age"),
        wide("EMAIL", "email"),
        wide("HOST", "ingressHost"),
    ),
    writable=(
        "displayName",
        "email",
        "team",
        "monthlyBudgetUsd",
        "resources",
        "skillAllowlist",
        "policyRef",
        "clusterTenantRef",
        "mcpPolicy",
        "configOverrides",
        "openclawVersion",
        "openclawImage",
        "awarenessWave",
        "suspended",
    ),
)

FIELDS = (
    Flag("--display-name", "Name for people.", to="displayName", clearable=False),
    Flag(
        "--email", "The person's address; spend and pod tokens go by it.", to="email", metavar="EMAIL", clearable=False
    ),
    Flag("--team", "A team, as a Kubernetes label value.", to="team"),
    Flag(
        "--budget", "US dollars a month; LiteLLM enforces it.", to="monthlyBudgetUsd", metavar="USD", read=values.money
    ),
    Flag("--cpu", "CPU of the pod: 500m, 2.", to="resources.cpu", metavar="QUANTITY"),
    Flag("--memory", "Memory of the pod: 2Gi.", to="resources.memory", metavar="QUANTITY"),
    Flag(
        "--skill",
        "A skill it may have; without any, all that it is entitled to.",
        to="skillAllowlist",
        metavar="NAME",
        many=True,
    ),
    Flag("--policy", "The access policy that it names.", to="policyRef", metavar="NAME", names="policies"),
    Flag(
        "--cluster-tenant",
        "The cluster tenant that it lives in.",
        to="clusterTenantRef",
        metavar="NAME",
        names="cluster-tenants",
    ),
    Flag(
        "--mcp-allow",
        "An MCP server to leave it; without any, all that it is granted.",
        to="mcpPolicy.allow",
        metavar="NAME",
        many=True,
        names="mcp-servers",
    ),
    Flag(
        "--mcp-deny",
        "An MCP server to take from it.",
        to="mcpPolicy.deny",
        metavar="NAME",
        many=True,
        names="mcp-servers",
    ),
    Flag("--openclaw-version", "Version of OpenClaw.", to="openclawVersion", metavar="TAG"),
    Flag("--image", "Image of OpenClaw.", to="openclawImage", metavar="IMAGE"),
    Flag("--wave", "The wave in which it follows rollouts.", to="awarenessWave", metavar="NAME"),
)
SUSPENDED = Flag("--suspended", "Whether it rests.", to="suspended", negatable=True, clearable=False)
ADOPT = Flag(
    "--adopt-retained",
    "Take over what a deleted tenant of that name has left. For administrators.",
    to="adoptRetained",
    switch=True,
)
WAIT = Flag("--wait", "Wait until it runs.", switch=True)


def _created(session: Session, params: Params, answer: Any, name: str) -> None:
    written(session, TENANT, name, "created", answer)
    if params["wait"]:
        _settle(session, name, params["for_at_most"])


def _settle(session: Session, name: str, seconds: float) -> None:
    """Wait until a tenant runs; say why when it does not."""
    from cli.client import path

    place = path(TENANT.one, name=name)
    try:
        session.until(
            lambda: session.client.get(place).data,
            lambda row: row["phase"] in ("Running", "Suspended"),
            what=f"tenants/{name} is not running",
            seconds=seconds,
        )
    except CliError as exc:
        message = at(session.client.get(place).data, "status.message")
        raise CliError(
            exc.message, detail=str(message or ""), status=exc.status, hint=f"opencrane tenants get {name}"
        ) from exc
    session.out.note(f"tenants/{name} is running")


def _resume(session: Session, params: Params) -> None:
    _act(session, params, "resume", "resumed")
    if params["wait"]:
        for name in params["name"]:
            _settle(session, name, params["for_at_most"])


def _suspend(session: Session, params: Params) -> None:
    _act(session, params, "suspend", "suspended")


def _act(session: Session, params: Params, action: str, done: str) -> None:
    from cli.session import each

    headers = {"If-Match": params["if_match"]} if params["if_match"] else {}

    def act(name: str) -> None:
        body = given(params, (REASON,)) or None
        place = where(session, TENANT, name, f"/{action}")
        written(session, TENANT, name, done, session.client.request("POST", place, body=body, headers=headers).data)

    each(session, params["name"], act)


TENANTS = Noun(
    "tenants",
    "One person's agent each: a custom resource in the cluster and a row, kept in step.",
    (
        list_verb(
            TENANT,
            SEARCH,
            Flag("--team", "Only this team's.", to="team"),
            Flag(
                "--phase",
                "Only in this phase.",
                to="phase",
                choices=("Pending", "Running", "Suspended", "Error"),
                metavar="PHASE",
            ),
            Flag("--sync", "Only in this state of sync.", to="sync", choices=SYNC_STATES, metavar="STATE"),
            Flag("--policy", "Only those that name this policy.", to="policyRef", metavar="NAME", names="policies"),
            Flag(
                "--cluster-tenant",
                "Only those in this cluster tenant.",
                to="clusterTenantRef",
                metavar="NAME",
                names="cluster-tenants",
            ),
            Flag("--email", "Only this person's.", to="email", metavar="EMAIL"),
            examples=(
                "tenants list --team search -o wide",
                "tenants list --phase Error -o name",
                "tenants list --watch",
            ),
            empty="Make one: opencrane tenants create anna --display-name Anna --email anna@example.com",
        ),
        get_verb(TENANT, examples=("tenants get anna", "tenants get anna ben -o yaml")),
        create_verb(
            TENANT,
            *FIELDS,
            SUSPENDED,
            ADOPT,
            extra=(WAIT, WAIT_SECONDS),
            done=_created,
            about="Answered when the cluster has confirmed it.",
            examples=(
                "tenants create anna --display-name Anna --email anna@example.com --team search --budget 50",
                "tenants create anna -f anna.yaml --wait",
            ),
        ),
        update_verb(
            TENANT,
            *FIELDS,
            SUSPENDED,
            examples=("tenants update anna --budget 80 --memory 4Gi", "tenants update anna --clear policy"),
        ),
        edit_verb(TENANT),
        delete_verb(
            TENANT,
            Flag("--purge", "Its volume and encryption key go as well, for good.", to="purge", switch=True),
            REASON,
            IF_MATCH,
            consequence="The pod stops, the LiteLLM key is revoked, grants that name it go.",
            kept="Its volume stays, as retained data.",
            purged="Its volume and encryption key go as well, for good.",
            examples=(
                "tenants delete anna",
                "tenants list --team search -o name | xargs opencrane tenants delete --yes",
            ),
        ),
        Verb(
            "suspend",
            "Stop tenants' workloads; their data stays.",
            _suspend,
            (name_arg(TENANT, many=True), REASON, IF_MATCH),
            ("POST /tenants/{name}/suspend",),
            examples=('tenants suspend anna --reason "on leave until June"',),
        ),
        Verb(
            "resume",
            "Start suspended tenants again.",
            _resume,
            (name_arg(TENANT, many=True), REASON, WAIT, WAIT_SECONDS, IF_MATCH),
            ("POST /tenants/{name}/resume",),
        ),
        act_verb(
            "sync",
            TENANT,
            "/sync",
            done="synced",
            help="Apply the row to the cluster again, now.",
            about="Also the way back for a resource that somebody has deleted in the cluster.",
        ),
        wait_verb(
            TENANT,
            {"phase": "phase", "sync": "sync.state"},
            ("tenants wait anna --until phase=Running", "tenants wait anna --until deleted --for-at-most 1m"),
        ),
        drift_verb(TENANT),
        repair_verb(TENANT),
    ),
)


# --- Datasets ---------------------------------------------------------------------------------------------------------

_SCOPES = ("team", "project", "personal")
_DATASET_FLAGS = (
    Flag("--org", "The organisation's dataset: only `default`, always there.", to="org", metavar="NAME", many=True),
    Flag("--team", "A dataset of a team.", to="team", metavar="NAME", many=True),
    Flag("--project", "A dataset of a project.", to="project", metavar="NAME", many=True),
    Flag("--personal", "A personal dataset.", to="personal", metavar="NAME", many=True),
)
_CLEAR = Flag("--clear", "Leave none of this scope.", choices=_SCOPES, many=True, metavar="SCOPE")


def _set_datasets(session: Session, params: Params) -> None:
    name = params["name"]
    place = where(session, TENANT, name, "/datasets")
    wanted = from_file(session, params["file"]) | given(params, _DATASET_FLAGS)
    wanted |= {scope: [] for scope in params["clear"]}
    if not wanted:
        raise UsageError("nothing to set", hint=f"opencrane {session.words} --help")
    # The API wants all four lists; those that nobody names stay.
    answer = session.client.request("PUT", place, body=session.client.get(place).data | wanted).data
    session.out.thing(answer, name)


MEMBERSHIPS = Kind(
    noun="datasets",
    title="tenant",
    path="/tenants",
    suffix="/datasets",
    document="Datasets",
    columns=(),
    writable=("team", "project", "personal"),
)

DATASETS = Noun(
    "datasets",
    "Which awareness datasets tenants are members of.",
    (
        show_verb("get", TENANT, "/datasets", help="Show a tenant's datasets."),
        edit_verb(MEMBERSHIPS),
        Verb(
            "set",
            "Set a tenant's datasets, scope by scope.",
            _set_datasets,
            (
                name_arg(TENANT),
                *_DATASET_FLAGS,
                _CLEAR,
                Flag("-f, --file", "YAML or JSON with the lists, or - for standard input.", metavar="FILE"),
            ),
            ("PUT /tenants/{name}/datasets", "GET /tenants/{name}/datasets"),
            about="Scopes that are not named stay as they are.",
            examples=(
                "datasets set anna --team search --project atlas --project borealis",
                "datasets set anna --clear personal",
            ),
        ),
    ),
)


# --- Effective contract -----------------------------------------------------------------------------------------------


def _describe_contract(out: Output, contract: Any) -> None:
    out.fields(
        {
            "tenant": contract["tenant"]["name"],
            "team": contract["tenant"].get("team"),
            "policyRef": contract["tenant"].get("policyRef"),
            "contractVersion": contract["contractVersion"],
            "contractId": contract["contractId"],
            "wave": contract["awareness"].get("wave"),
            "shadow": contract["awareness"].get("shadow"),
        }
    )
    for title, rows, columns in (
        (
            "MCP servers",
            contract["mcp"]["servers"],
            (
                column("NAME", "name"),
                column("TRANSPORT", "transport"),
                column("ENDPOINT", "endpoint"),
                wide("ID", "id"),
            ),
        ),
        (
            "Skills",
            contract["skills"]["entitled"],
            (column("NAME", "name"), column("VERSION", "version"), column("SCOPE", "scope"), wide("DIGEST", "digest")),
        ),
        (
            "Awareness grants",
            contract["awareness"]["grants"],
            (column("DATASET", "payloadId"), column("ACCESS", "access", "state"), column("SCOPE", "scope")),
        ),
    ):
        out.line()
        out.line(f"{title} ({len(rows)})")
        out.table(rows, columns)


CONTRACT = Noun(
    "contract",
    "What tenants may see and call right now, compiled from policies, grants and rollout.",
    (
        show_verb(
            "get",
            TENANT,
            "/effective-contract",
            help="Show a tenant's effective contract.",
            describe=_describe_contract,
            examples=("contract get anna", "contract get anna -o json"),
        ),
    ),
)


# --- Why --------------------------------------------------------------------------------------------------------------

_WHAT_IF = (
    Flag("--grant", "As if there were this grant too.", to="grant.access", choices=("allow", "deny"), metavar="ACCESS"),
    Flag(
        "--to",
        "Whom that grant is for: group:NAME, tenant:NAME, user:EMAIL; the tenant, if absent.",
        metavar="SUBJECT",
        read=values.subject,
    ),
    Flag("--priority", "That grant's priority.", to="grant.priority", metavar="N", read=values.integer),
    Flag(
        "--scope",
        "That grant's scope.",
        to="grant.scope",
        choices=("org", "department", "project", "personal"),
        metavar="SCOPE",
    ),
    Flag("--without", "As if there were no grant of this id.", to="without", metavar="ID", many=True),
)


def _why(session: Session, params: Params) -> None:
    name, kind, payload = params["tenant"], params["type"], params["what"]
    place = where(session, TENANT, name, "/access")
    body = from_file(session, params["file"]) | given(params, _WHAT_IF)
    if params["to"] and not params["grant"]:
        raise UsageError("--to says whom --grant is for; say --grant allow or --grant deny")
    if "grant" in body:
        body["grant"] |= params["to"] or {"subjectType": "tenant", "subjectName": name}
    if body:
        answer = session.client.request("POST", place, body=body | {"type": kind, "payload": payload}).data
    else:
        answer = session.client.get(place, {"type": kind, "payload": payload}).data
    session.out.thing(answer, str(answer["decision"]), _describe_access)
    if params["exit_code"] and answer["decision"] != "allow":
        raise SystemExit(Exit.DIFFERENT)


def _describe_access(out: Output, access: Any) -> None:
    would = "would be " if access["preview"] else ""
    verdict = "allowed" if access["decision"] == "allow" else "denied"
    sentence = f"{access['tenant']} {would or 'is '}{verdict} {access['type']} {access['payload']['name']}."
    out.line(out.tone(texts.clean(sentence), access["decision"]))
    out.line(texts.clean(access["reason"]))
    for cut in access["cuts"]:
        if cut not in access["reason"]:
            out.line(texts.clean(cut))
    if access["considered"]:
        out.line()
        out.table(
            access["considered"],
            (
                column("VERDICT", "verdict", "state"),
                column("ACCESS", "access", "state"),
                column(
                    "SUBJECT",
                    lambda row: ":".join(filter(None, (row["subjectType"], row["groupName"] or row["member"]))),
                ),
                column("PRIORITY", "priority"),
                column("WHY", "why"),
                wide("SCOPE", "scope"),
                wide("NOTE", "note"),
                wide("CREATED", "createdAt", "age"),
                wide("GRANT", "grantId"),
            ),
        )


WHY = Verb(
    "why",
    "Why a tenant may, or may not, use something: the grant that decides, and those it beats.",
    _why,
    (
        Arg("TENANT", "The tenant's name.", names="tenants"),
        Arg("TYPE", "Of what.", choices=PAYLOADS),
        Arg("WHAT", "An MCP server's name or id; a skill's name, name@version or id; a dataset's name."),
        *_WHAT_IF,
        Flag("-f, --file", "YAML or JSON with grant and without, or - for standard input.", metavar="FILE"),
        Flag("--exit-code", "Exit with 7 when it is denied.", switch=True),
    ),
    ("GET /tenants/{name}/access", "POST /tenants/{name}/access"),
    about="With --grant, --without or --file it looks at a change without making it.",
    examples=(
        "why anna mcp-server github",
        "why anna skill-bundle summarize@1.2.0",
        "why anna mcp-server github --grant deny --to group:contractors --priority 10",
    ),
)


# --- Retained data ----------------------------------------------------------------------------------------------------

RETAINED = Kind(
    noun="retained-data",
    title="retained volume",
    path="/retained-data",
    key="id",
    filter="tenant",
    by="tenant",
    columns=(
        column("TENANT", "tenant"),
        column("VOLUME CLAIM", "volumeClaim"),
        column("STATUS", "status", "state"),
        column("SINCE", "createdAt", "age"),
        column("ID", "id"),
        wide("NAMESPACE", "namespace"),
        wide("KEY SECRET", "keySecret"),
        wide("ERROR", "error"),
    ),
    label=lambda row: str(row["id"]),
)


def _delete_retained(session: Session, params: Params) -> None:
    from cli.client import path
    from cli.session import each
    from cli.verbs import key

    ids = {name: key(session, RETAINED, name) for name in params["name"]}
    one = next(iter(ids)) if len(ids) == 1 else str(len(ids))
    session.confirm(
        f"Delete for good what {', '.join(ids)} left: the volume and its encryption key?", yes=params["yes"], typed=one
    )

    def act(name: str) -> None:
        place = path("/retained-data/{id}", id=ids[name])
        answer = session.client.request("DELETE", place, query=given(params, (REASON,))).data
        written(session, RETAINED, name, "deleted", answer)

    each(session, params["name"], act)


RETAINED_DATA = Noun(
    "retained-data",
    "Volumes and encryption keys that deleted tenants have left.",
    (
        list_verb(RETAINED, Flag("--tenant", "Only what a tenant of this name left.", to="tenant", metavar="NAME")),
        Verb(
            "delete",
            "Delete a volume and its key for good, after asking.",
            _delete_retained,
            (Arg("NAME", "The tenant's name, or the id.", names="retained-data", many=True), REASON, YES),
            ("DELETE /retained-data/{data_id}",),
        ),
    ),
)
