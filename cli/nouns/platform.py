"""What tenants live on: cluster tenants, DNS, and drift of all kinds together."""

from typing import Any

from cli import values
from cli.errors import Exit, UsageError
from cli.nouns.access import POLICY
from cli.nouns.drift import EXIT_CODE, describe_drift, drift_verb, repair_verb
from cli.nouns.money import SINCE, UNTIL
from cli.nouns.operations import history
from cli.nouns.tenants import TENANT
from cli.output import Output, column, wide
from cli.session import Session
from cli.spec import Flag, Kind, Noun, Params, Verb
from cli.verbs import (
    FILE,
    IF_MATCH,
    REASON,
    SEARCH,
    YES,
    act_verb,
    create_verb,
    delete_verb,
    edit_verb,
    from_file,
    get_verb,
    given,
    list_verb,
    show_verb,
    update_verb,
    wait_verb,
    written,
)

TIERS = ("shared", "dedicatedNodes", "dedicatedCluster")
PHASES = ("pending", "provisioning", "ready", "failed")
CLUSTER_TENANT = Kind(
    noun="cluster-tenants",
    title="cluster tenant",
    path="/cluster-tenants",
    document="ClusterTenant",
    columns=(
        column("NAME", "name"),
        column("DISPLAY NAME", "displayName"),
        column("TIER", "isolationTier"),
        column("PHASE", "status.phase", "state"),
        column("SYNC", "sync.state", "state"),
        column("AGE", "createdAt", "age"),
        wide("NAMESPACE", "status.boundNamespace"),
        wide("DOMAIN", "baseDomain"),
        wide("MESSAGE", "status.message"),
    ),
    writable=("displayName", "baseDomain", "isolationTier", "compute", "resources"),
)
_QUOTA = "resources.quota"
CLUSTER_FIELDS = (
    Flag("--display-name", "Name for people.", to="displayName", clearable=False),
    Flag("--base-domain", "Domain of its tenants' addresses.", to="baseDomain", metavar="DOMAIN"),
    Flag("--tier", "How far it is kept apart.", to="isolationTier", choices=TIERS, metavar="TIER", clearable=False),
    Flag(
        "--compute",
        "Whose nodes it runs on.",
        to="compute.mode",
        choices=("shared", "dedicated"),
        metavar="MODE",
        clearable=False,
    ),
    Flag("--node-pool", "Which nodes, for dedicated ones.", to="compute.nodePool", metavar="NAME"),
    Flag("--cpu", "Quota of CPU.", to=f"{_QUOTA}.cpu", metavar="QUANTITY"),
    Flag("--memory", "Quota of memory.", to=f"{_QUOTA}.memory", metavar="QUANTITY"),
    Flag("--pods", "Quota of pods.", to=f"{_QUOTA}.pods", metavar="N", read=values.count),
    Flag("--storage", "Quota of storage.", to=f"{_QUOTA}.storage", metavar="QUANTITY"),
    Flag("--gpu", "Quota of GPUs.", to=f"{_QUOTA}.gpu", metavar="N", read=values.count),
)


def _defaults(session: Session, params: Params, body: dict[str, Any]) -> None:
    """What the API wants and hardly anybody means otherwise."""
    body.setdefault("displayName", body["name"])
    body.setdefault("isolationTier", "shared")
    body.setdefault("compute", {}).setdefault("mode", "shared")
    body.setdefault("resources", {}).setdefault("quota", {})


def _describe_capacity(out: Output, capacity: Any) -> None:
    measures = [
        each | {"percentText": None if each["percent"] is None else f"{each['percent']:.0f} %"}
        for each in capacity["measures"]
    ]
    out.table(
        measures,
        (
            column("MEASURE", "name"),
            column("REQUESTED", "requested"),
            column("QUOTA", "quota"),
            column("USED", "percentText"),
            column("STATE", lambda row: "exceeded" if row["over"] else "ok", "state"),
        ),
    )
    out.note(f"{capacity['tenants']:,} tenants, of which {capacity['unspecified']:,} name no CPU or no memory.")


CLUSTER_TENANTS = Noun(
    "cluster-tenants",
    "Customers: the unit of isolation, with a namespace, a quota and a domain.",
    (
        list_verb(
            CLUSTER_TENANT,
            SEARCH,
            Flag("--phase", "Only in this phase.", to="phase", choices=PHASES, metavar="PHASE"),
            Flag("--tier", "Only of this tier.", to="tier", choices=TIERS, metavar="TIER"),
        ),
        get_verb(CLUSTER_TENANT),
        create_verb(
            CLUSTER_TENANT,
            *CLUSTER_FIELDS,
            before=_defaults,
            about="Tier and compute are shared unless said otherwise. Its place is made in the background.",
            examples=("cluster-tenants create acme --display-name Acme --cpu 40 --memory 160Gi --pods 200",),
        ),
        update_verb(CLUSTER_TENANT, *CLUSTER_FIELDS),
        edit_verb(CLUSTER_TENANT),
        delete_verb(
            CLUSTER_TENANT,
            Flag("--purge", "The namespace goes too, and everything in it, for good.", to="purge", switch=True),
            REASON,
            IF_MATCH,
            consequence="Its place is taken apart.",
            kept="The namespace and what is in it stay.",
            purged="The namespace goes too, and everything in it, for good.",
        ),
        show_verb("status", CLUSTER_TENANT, "/status", help="Show how far its place is."),
        show_verb(
            "capacity",
            CLUSTER_TENANT,
            "/capacity",
            help="The quota against what its tenants ask for.",
            describe=_describe_capacity,
        ),
        act_verb("sync", CLUSTER_TENANT, "/sync", done="synced", help="Apply the row again, and look at its place."),
        wait_verb(CLUSTER_TENANT, {"phase": "status.phase", "sync": "sync.state"}),
        drift_verb(CLUSTER_TENANT),
        repair_verb(CLUSTER_TENANT),
    ),
)

# --- Drift ------------------------------------------------------------------------------------------------------------

_KINDS = {kind.noun: kind for kind in (TENANT, POLICY, CLUSTER_TENANT)}
_KIND = Flag("--kind", "Only of this kind.", choices=tuple(_KINDS), many=True, metavar="KIND")
DRIFT_POINT = Kind(
    noun="drift",
    title="sample",
    path="/metrics/projection-drift/history",
    columns=(
        column("AT", "at", "age"),
        column("KIND", "kind"),
        column("DRIFTED", "driftCount", "count"),
        column("PENDING", "pendingCount", "count"),
        column("LAG (S)", "maxProjectionLagSeconds"),
    ),
    label=lambda row: str(row["at"]),
)


def _drift(session: Session, params: Params) -> None:
    wanted = params["kind"] or list(_KINDS)
    reports = {noun: session.client.get(f"{_KINDS[noun].path}/drift").data for noun in dict.fromkeys(wanted)}
    out = session.out
    if out.format == "name":
        for noun, report in reports.items():
            out.rows(
                [[{"name": f"{noun}/{row['name']}"} for row in report["mismatches"]]], (), lambda row: str(row["name"])
            )
    elif out.is_for_people:
        for report in reports.values():
            describe_drift(out, report)
    else:
        out.data(reports)
    if params["exit_code"] and any(report["mismatches"] for report in reports.values()):
        raise SystemExit(Exit.DIFFERENT)


def _status(session: Session, params: Params) -> None:
    query = {"refresh": True} if params["refresh"] else {}
    answer = session.client.get("/metrics/projection-drift", query).data
    session.out.thing(answer, "drift", _describe_status)


def _describe_status(out: Output, answer: Any) -> None:
    kinds = {name: value for name, value in answer.items() if isinstance(value, dict)}
    out.fields({name: value for name, value in answer.items() if name not in kinds})
    out.line()
    out.table(
        [{"kind": name} | value for name, value in kinds.items()],
        (
            column("KIND", "kind"),
            column("DRIFTED", "driftCount", "count"),
            column("IN CLUSTER", "sourceCount", "count"),
            column("ROWS", "projectionCount", "count"),
            column("PENDING", "pendingCount", "count"),
            column("LAG (S)", "maxProjectionLagSeconds"),
            column("EVALUATED", "evaluatedAt", "age"),
            column("ERROR", "error"),
        ),
    )


DRIFT = Noun(
    "drift",
    "Where the cluster and the rows disagree.",
    (
        Verb(
            "list",
            "Compare every resource with its row, now.",
            _drift,
            (_KIND, EXIT_CODE),
            ("GET /tenants/drift", "GET /policies/drift", "GET /cluster-tenants/drift"),
            about="opencrane tenants repair, policies repair and cluster-tenants repair let the cluster win.",
            examples=("drift list -o wide", "drift list --kind tenants --exit-code"),
        ),
        Verb(
            "status",
            "Show what was found when last looked, every five minutes.",
            _status,
            (Flag("--refresh", "Look now.", to="refresh", switch=True),),
            ("GET /metrics/projection-drift",),
        ),
        Verb(
            "history",
            "List what was found over time.",
            lambda session, params: history(session, DRIFT_POINT, params),
            (SINCE, UNTIL),
            ("GET /metrics/projection-drift/history",),
        ),
    ),
)

# --- DNS --------------------------------------------------------------------------------------------------------------

ISSUER = Kind(noun="dns", title="issuer", path="/platform/dns", columns=())
_DNS_FIELDS = (
    Flag(
        "--provider",
        "The DNS provider: cloudflare, digitalocean, or another that cert-manager knows.",
        to="provider",
        metavar="NAME",
    ),
    Flag("--zone", "The zone.", to="zone", metavar="DOMAIN"),
    Flag("--email", "Whom the authority writes to.", to="email", metavar="EMAIL"),
    Flag("--acme-server", "The authority; Let's Encrypt, if absent.", to="server", metavar="URL"),
    Flag("--issuer", "The issuer's name.", to="issuerName", metavar="NAME"),
)
_API_TOKEN = Flag("--api-token-file", "The file with the provider's token; - for standard input.", metavar="FILE")


def _get_dns(session: Session, params: Params) -> None:
    answer = session.client.get("/platform/dns", {"issuerName": params["issuer"]}).data
    session.out.thing(answer, str(answer["issuerName"]))


def _set_dns(session: Session, params: Params) -> None:
    body = from_file(session, params["file"]) | given(params, _DNS_FIELDS)
    if params["api_token_file"]:
        body["apiToken"] = session.secret("API token", params["api_token_file"])
    if not body:
        raise UsageError("nothing to set", hint=f"opencrane {session.words} --help")
    name = body.get("issuerName") or "the default issuer"
    session.confirm(
        f"Configure {name} for {body.get('zone', 'its zone')} by {body.get('provider', 'its provider')}?",
        yes=params["yes"],
    )
    answer = session.client.request("PUT", "/platform/dns", body=body).data
    written(session, ISSUER, str(answer["issuerName"]), str(answer["status"]), answer)


DNS = Noun(
    "dns",
    "The platform's DNS issuer, by which tenants get certificates. For administrators.",
    (
        Verb(
            "get",
            "Show the issuer.",
            _get_dns,
            (Flag("--issuer", "Which one; the default one, if absent.", to="issuerName", metavar="NAME"),),
            ("GET /platform/dns",),
        ),
        Verb(
            "set",
            "Configure the issuer, after asking.",
            _set_dns,
            (*_DNS_FIELDS, _API_TOKEN, FILE, YES),
            ("PUT /platform/dns",),
            about="Providers other than cloudflare and digitalocean take solverConfig, by --file.",
            examples=(
                "dns set --provider cloudflare --zone example.com --email ops@example.com --api-token-file token.txt",
            ),
        ),
    ),
)
