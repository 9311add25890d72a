"""Operations: audit trail, jobs, metrics, webhooks."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

from cli import texts, values
from cli.errors import CliError, Exit, UsageError
from cli.nouns.access import RENAME
from cli.nouns.money import FORMAT, SINCE, TO, UNTIL
from cli.output import Output, column, wide
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Noun, Params, Verb
from cli.verbs import (
    IF_MATCH,
    NO_WAIT,
    SEARCH,
    WATCH_SECONDS,
    YES,
    act_verb,
    create_verb,
    delete_verb,
    edit_verb,
    get_verb,
    given,
    inner_list_verb,
    list_verb,
    name_arg,
    update_verb,
    where,
    written,
)

# --- Audit ------------------------------------------------------------------------------------------------------------

ENTRY = Kind(
    noun="audit",
    title="entry",
    many="entries",
    path="/audit",
    key="id",
    columns=(
        column("TIME", "timestamp", "age"),
        column("ACTOR", "actor.name"),
        column("ACTION", "action"),
        column("RESOURCE", "resource"),
        column("MESSAGE", "message"),
        wide("ADDRESS", "address"),
        wide("REQUEST", "requestId"),
        wide("ID", "id"),
    ),
    label=lambda row: str(row["id"]),
)
_AUDIT_FILTERS = (
    Flag("--tenant", "Only what concerns this tenant.", to="tenant", metavar="NAME", names="tenants"),
    Flag("--tenant-id", "Only the tenant with this id, whoever had its name before.", to="tenantId", metavar="ID"),
    Flag("--action", "An action, or `tenant.*` for all that begin so.", to="action", metavar="ACTION"),
    Flag("--resource", "`Tenant/anna`, or `Tenant/*`.", to="resource", metavar="RESOURCE"),
    Flag("--actor", "Only what this one did.", to="actor", metavar="NAME"),
    Flag("--request", "Everything that one request did.", to="requestId", metavar="ID"),
    SEARCH,
    SINCE,
    UNTIL,
)
_FOLLOW = Flag("-F, --follow", "Go on, and show what comes in; the oldest first then.", switch=True)
# As old as an entry may be that shows only now: its transaction took that long.
_OVERLAP = datetime.timedelta(seconds=30)
_LAST = Flag("-l, --limit", "How many to show at most; 0 for all.", metavar="N", read=values.count, default=100)

_AUDIT_LIST = list_verb(ENTRY, *_AUDIT_FILTERS, items="data", limit=_LAST)


def _audit(session: Session, params: Params) -> None:
    if not params["follow"]:
        _AUDIT_LIST.run(session, params)
        return
    if params["until"]:
        raise UsageError("--follow has no end; leave --until out")
    query = given(params, _AUDIT_FILTERS)
    pages = session.client.pages("/audit", query, limit=params["limit"] or 100, items="data")
    seen: dict[str, datetime.datetime] = {}
    _show_new(session, [row for page, _ in pages for row in page], seen, is_first=True)
    while True:
        time.sleep(WATCH_SECONDS)
        newest = max(seen.values(), default=datetime.datetime.now(datetime.UTC))
        since = (newest - _OVERLAP).isoformat().replace("+00:00", "Z")
        try:
            pages = session.client.pages("/audit", query | {"since": since}, items="data")
            rows = [row for page, _ in pages for row in page]
        except CliError as exc:
            if exc.status is not Exit.UNAVAILABLE:
                raise
            session.out.note(f"opencrane: {exc.message}; trying again")
            continue
        _show_new(session, rows, seen, is_first=False)
        for entry_id in [each for each, moment in seen.items() if moment < newest - 2 * _OVERLAP]:
            del seen[entry_id]


def _show_new(session: Session, rows: list[Any], seen: dict[str, datetime.datetime], *, is_first: bool) -> None:
    new = [row for row in reversed(rows) if row["id"] not in seen]
    for row in new:
        seen[row["id"]] = texts.moment(row["timestamp"]) or datetime.datetime.now(datetime.UTC)
    out = session.out
    if out.format == "json":
        # A list that never ends is no JSON; lines are.
        for row in new:
            out.line(json.dumps(row, ensure_ascii=False))
    elif out.format == "yaml":
        for row in new:
            out.line("---")
            out.data(row)
    elif new:
        out.rows([new], ENTRY.columns, ENTRY.label)
    out.stdout.flush()
    out.has_headers = out.has_headers and is_first and not new


def export(session: Session, params: Params, place: str, query: dict[str, Any]) -> None:
    """Have an export made by a job, and fetch its file."""
    from cli.jobs import follow, started

    to = params["to"]
    if to and to != "-" and not Path(to).expanduser().parent.is_dir():
        raise UsageError(f"cannot write {to}: there is no such folder")
    answer = session.client.request("POST", place, query=query).data
    job_id = str(answer.get("jobId") or answer["id"])
    if params["no_wait"]:
        started(session, job_id, answer)
        session.out.note(f"Then: opencrane jobs file {job_id} --to FILE")
        return
    follow(session, job_id, what="exporting")
    fetch(session, job_id, to)


def fetch(session: Session, job_id: str, to: str | None) -> None:
    """The file that a job has made, to a file or to standard output."""
    from cli.client import path

    place = path("/jobs/{id}/file", id=job_id)
    session.out.stdout.flush()
    if not to or to == "-":
        session.client.download(place, session.out.stdout.buffer)
        session.out.stdout.buffer.flush()
        return
    target = Path(to).expanduser()
    partial = target.with_name(f".{target.name}.part")
    try:
        with partial.open("wb") as file:
            session.client.download(place, file)
        partial.replace(target)
    except OSError as exc:
        raise UsageError(f"cannot write {to}: {exc.strerror}") from exc
    finally:
        partial.unlink(missing_ok=True)
    session.out.note(f"{texts.size(target.stat().st_size)} in {to}")


def _export_audit(session: Session, params: Params) -> None:
    export(session, params, "/audit/export", given(params, (*_AUDIT_FILTERS, FORMAT)))


AUDIT = Noun(
    "audit",
    "The audit trail: what was done, by whom, when. Without a command it lists.",
    (
        Verb(
            "list",
            "List entries, newest first.",
            _audit,
            (*_AUDIT_FILTERS, _LAST, _FOLLOW),
            ("GET /audit",),
            examples=("audit --tenant anna", "audit --action 'tenant.*' --since 24h -o json", "audit --follow"),
        ),
        Verb(
            "export",
            "Write entries to a file.",
            _export_audit,
            (*_AUDIT_FILTERS, FORMAT, TO, NO_WAIT),
            ("POST /audit/export", "GET /jobs/{id}", "GET /jobs/{id}/file"),
            examples=("audit export --since 30d --format csv --to audit.csv",),
        ),
    ),
    default="list",
)

# --- Jobs -------------------------------------------------------------------------------------------------------------


def _done(row: Any) -> str:
    return f"{row['done']:,} of {row['total']:,}" if row["total"] is not None else f"{row['done']:,}"


JOB_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
JOB = Kind(
    noun="jobs",
    title="job",
    path="/jobs",
    key="id",
    columns=(
        column("ID", "id"),
        column("KIND", "kind"),
        column("STATUS", "status", "state"),
        column("DONE", _done),
        column("BY", "createdBy"),
        column("AGE", "createdAt", "age"),
        wide("STARTED", "startedAt", "age"),
        wide("FINISHED", "finishedAt", "age"),
        wide("ERROR", "error"),
    ),
    label=lambda row: str(row["id"]),
)
JOB_ARG = Arg("JOB", "The job's id.", names="jobs")
_OUTCOME = Flag("--outcome", "Only items with this outcome, for instance failed.", to="outcome", metavar="OUTCOME")


def _describe_job(out: Output, job: Any) -> None:
    out.fields(job, skip=("items", "result"))
    if job["result"]:
        shown = {name: value for name, value in job["result"].items() if not isinstance(value, (list, dict))}
        if shown:
            out.line("Result:")
            out.fields(shown, 2)
    if job["items"]:
        out.line()
        columns = (column("ITEM", "key"), column("OUTCOME", "outcome", "state"), column("MESSAGE", "message"))
        out.table(job["items"], columns)


def _get_job(session: Session, params: Params) -> None:
    from cli.client import path

    place, query = path(JOB.one, id=params["job"]), given(params, (_OUTCOME,))
    job: Any = None
    items: list[Any] = []
    for rows, body in session.client.pages(place, query, limit=params["limit"], items="items"):
        job = job or body
        items += rows
    session.out.thing(job | {"items": items}, str(job["id"]), _describe_job)


def _watch_job(session: Session, params: Params) -> None:
    from cli.jobs import follow

    job = follow(session, params["job"])
    session.out.thing(
        job, str(job["id"]), lambda out, each: out.line(f"jobs/{each['id']} {each['status']}: {_done(each)}")
    )


def _post_job(action: str, done: str) -> Any:
    def run(session: Session, params: Params) -> None:
        from cli.client import path

        answer = session.client.request("POST", path(JOB.one, id=params["job"]) + action).data
        if action == "/retry":
            from cli.jobs import started

            started(session, str(answer["id"]), answer)
        else:
            written(session, JOB, params["job"], done, answer)

    return run


JOBS = Noun(
    "jobs",
    "Work that outlasts a request: repairs, syncs, exports, bulk actions.",
    (
        list_verb(
            JOB,
            Flag("--status", "Only in this state.", to="status", choices=JOB_STATES, metavar="STATUS"),
            Flag("--kind", "Only of this kind.", to="kind", metavar="KIND"),
            help="List jobs, newest first.",
            limit=_LAST,
        ),
        Verb(
            "get",
            "Show a job with its items.",
            _get_job,
            (
                JOB_ARG,
                _OUTCOME,
                Flag("-l, --limit", "How many items at most; 0 for all.", metavar="N", read=values.count, default=100),
            ),
            ("GET /jobs/{id}",),
        ),
        Verb("watch", "Follow a job to its end; fails if it does.", _watch_job, (JOB_ARG,), ("GET /jobs/{id}",)),
        Verb("cancel", "Cancel a job.", _post_job("/cancel", "cancelling"), (JOB_ARG,), ("POST /jobs/{id}/cancel",)),
        Verb(
            "retry",
            "Start a job again, for its failed items if it has any.",
            _post_job("/retry", ""),
            (JOB_ARG,),
            ("POST /jobs/{id}/retry",),
        ),
        Verb(
            "file",
            "Fetch the file that an export has made.",
            lambda session, params: fetch(session, params["job"], params["to"]),
            (JOB_ARG, TO),
            ("GET /jobs/{id}/file",),
            shows=False,
        ),
    ),
)

# --- Metrics ----------------------------------------------------------------------------------------------------------

POINT = Kind(
    noun="metrics",
    title="sample",
    path="/metrics/server/history",
    columns=(
        column("AT", "at", "age"),
        column("CPU %", "cpuPercent"),
        column("MEMORY", "memoryUsedBytes", "size"),
        column("OF", "memoryTotalBytes", "size"),
        column("STORAGE", "storageUsedBytes", "size"),
        column("OF", "storageTotalBytes", "size"),
        column("ACTIVE TENANTS", "activeTenants", "count"),
    ),
    label=lambda row: str(row["at"]),
)


def history(session: Session, kind: Kind, params: Params) -> None:
    """Samples of a span of time."""
    rows = session.client.get(kind.path, given(params, (SINCE, UNTIL))).data
    session.out.rows([rows], kind.columns, kind.label, empty="No samples.")


METRICS = Noun(
    "metrics",
    "How the machine is: CPU, memory, storage, active tenants.",
    (
        Verb(
            "server",
            "Show the newest sample.",
            lambda session, _: session.out.thing(session.client.get("/metrics/server").data, "server"),
            (),
            ("GET /metrics/server",),
        ),
        Verb(
            "history",
            "List samples.",
            lambda session, params: history(session, POINT, params),
            (SINCE, UNTIL),
            ("GET /metrics/server/history",),
            examples=("metrics history --since 1h",),
        ),
    ),
)

# --- Webhooks ---------------------------------------------------------------------------------------------------------

EVENTS = ("budget.threshold_crossed", "drift.threshold_crossed", "job.failed", "probe.failed", "rollout.changed")
WEBHOOK = Kind(
    noun="webhooks",
    title="webhook",
    path="/webhooks",
    key="id",
    document="Webhook",
    columns=(
        column("NAME", "name"),
        column("URL", "url"),
        column("EVENTS", "events"),
        column("ENABLED", "enabled"),
        column("PENDING", "pendingCount", "count"),
        column("FAILED", "failedCount", "count"),
        wide("FAILING SINCE", "failingSince", "age"),
        wide("AGE", "createdAt", "age"),
        wide("ID", "id"),
    ),
    writable=("name", "url", "events", "description", "enabled"),
)
_SECRET_FILE = Flag(
    "--secret-file", "The file with what requests are signed with; made by the server, if absent.", metavar="FILE"
)
WEBHOOK_FIELDS = (
    Flag("--url", "Who is told: http or https.", to="url", metavar="URL", clearable=False),
    Flag("--event", "What about.", to="events", choices=EVENTS, many=True, metavar="EVENT", clearable=False),
    Flag("--description", "What it is for.", to="description"),
    Flag("--enabled", "Whether anything is sent.", to="enabled", negatable=True, clearable=False),
)


def _with_secret(session: Session, params: Params, body: dict[str, Any]) -> None:
    if params["secret_file"]:
        body["secret"] = session.secret("signing secret", params["secret_file"])


def _webhook_made(session: Session, params: Params, answer: Any, name: str) -> None:
    secret = answer.get("secret")
    if not session.out.is_for_people or not secret:
        written(session, WEBHOOK, name, "created", answer)
        return
    session.out.note(f"webhooks/{name} created. Its signing secret is shown only now:")
    session.out.line(str(secret))


def _new_secret(session: Session, params: Params) -> None:
    name = params["name"]
    session.confirm(f"Make a new signing secret for webhook {name}? The old one is no longer used.", yes=params["yes"])
    answer = session.client.request("POST", where(session, WEBHOOK, name, "/secret")).data
    if session.out.is_for_people:
        session.out.note("It is shown only now:")
    session.out.thing(answer, str(answer["id"]), lambda out, each: out.line(str(each["secret"])))


DELIVERY = Kind(
    noun="deliveries",
    title="delivery",
    many="deliveries",
    path="",
    key="id",
    columns=(
        column("ID", "id"),
        column("EVENT", "event"),
        column("STATUS", "status", "state"),
        column("ATTEMPTS", "attempts", "count"),
        column("ANSWER", "responseStatus"),
        column("AGE", "createdAt", "age"),
        wide("NEXT ATTEMPT", "nextAttemptAt", "age"),
        wide("ERROR", "error"),
    ),
    label=lambda row: str(row["id"]),
)
_REPLAY = (
    SINCE,
    UNTIL,
    Flag("--all", "Also what got through.", switch=True),
)


def _resend(session: Session, params: Params) -> None:
    from cli.client import path

    place = where(session, WEBHOOK, params["name"]) + path("/deliveries/{id}/resend", id=params["delivery"])
    answer = session.client.request("POST", place).data
    written(session, DELIVERY, str(answer["id"]), str(answer["status"]), answer)


def _replay(session: Session, params: Params) -> None:
    body = given(params, _REPLAY) | {"onlyFailed": not params["all"]}
    place = where(session, WEBHOOK, params["name"], "/replay")
    answer = session.client.request("POST", place, body=body).data
    written(session, WEBHOOK, params["name"], f"replaying {texts.counted(answer['count'], 'event')}", answer)


WEBHOOKS = Noun(
    "webhooks",
    "Addresses that are told when certain things happen, signed as Standard Webhooks has it.",
    (
        list_verb(
            WEBHOOK,
            SEARCH,
            Flag("--event", "Only those subscribed to it.", to="event", choices=EVENTS, metavar="EVENT"),
            Flag("--enabled", "Only those that are enabled, or are not.", to="enabled", negatable=True),
        ),
        get_verb(WEBHOOK),
        create_verb(
            WEBHOOK,
            *WEBHOOK_FIELDS,
            before=_with_secret,
            extra=(_SECRET_FILE,),
            done=_webhook_made,
            about="Prints the signing secret on standard output if the server has made it.",
            examples=("webhooks create pager --url https://hooks.example.com/crane --event job.failed",),
        ),
        update_verb(WEBHOOK, RENAME, *WEBHOOK_FIELDS, before=_with_secret, extra=(_SECRET_FILE,)),
        edit_verb(WEBHOOK),
        delete_verb(WEBHOOK, IF_MATCH, consequence="What waits to be delivered is dropped."),
        act_verb("test", WEBHOOK, "/test", done="test event queued", help="Send a test event."),
        inner_list_verb(
            "deliveries",
            WEBHOOK,
            DELIVERY,
            "/deliveries",
            Flag("--event", "Only of this event.", to="event", choices=(*EVENTS, "webhook.test"), metavar="EVENT"),
            Flag(
                "--status",
                "Only in this state.",
                to="status",
                choices=("pending", "delivered", "failed"),
                metavar="STATUS",
            ),
            help="List deliveries, newest first.",
            limit=_LAST,
        ),
        Verb(
            "resend",
            "Send an event once more.",
            _resend,
            (name_arg(WEBHOOK), Arg("DELIVERY", "The delivery's id.")),
            ("POST /webhooks/{id}/deliveries/{deliveryId}/resend",),
        ),
        Verb(
            "replay",
            "Send again what failed, or all, of a span of time.",
            _replay,
            (name_arg(WEBHOOK), *_REPLAY),
            ("POST /webhooks/{id}/replay",),
            examples=("webhooks replay pager --since 6h",),
        ),
        Verb(
            "secret",
            "Make a new signing secret, after asking.",
            _new_secret,
            (name_arg(WEBHOOK), YES),
            ("POST /webhooks/{id}/secret",),
        ),
    ),
)
