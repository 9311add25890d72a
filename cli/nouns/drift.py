"""Drift and repair, which tenants, policies and cluster tenants have alike."""

from typing import Any

from cli import texts
from cli.errors import Exit
from cli.output import Output, column
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Params, Verb
from cli.verbs import NO_WAIT, YES

EXIT_CODE = Flag("--exit-code", "Exit with 7 when there is drift.", switch=True)


def describe_drift(out: Output, report: Any) -> None:
    """A report of mismatches; with `-o wide` value by value."""
    rows = report["mismatches"]
    if out.format == "wide":
        rows = [row | {"difference": each} for row in rows for each in row.get("differences") or [None]]
        columns: tuple[Any, ...] = (
            column("NAME", "name"),
            column("ISSUE", "issue", "state"),
            column("FIELD", "difference.field"),
            column("CLUSTER", "difference.cluster"),
            column("ROW", "difference.row"),
            column(
                "BY", lambda row: ", ".join((row.get("managers") or {}).get((row["difference"] or {}).get("field"), []))
            ),
        )
    else:
        columns = (column("NAME", "name"), column("ISSUE", "issue", "state"), column("FIELDS", "fields"))
    out.table(rows, columns)
    summary = report["summary"]
    pending = f", {summary['pendingCount']:,} being written" if summary["pendingCount"] else ""
    out.note(f"{report['resource']}: {summary['driftCount']:,} of {summary['sourceCount']:,} drifted{pending}.")


def describe_repair(out: Output, report: Any) -> None:
    """A report of what was repaired, or would be."""
    columns = (
        column("NAME", "name"),
        column("ACTION", "action", "state"),
        column("FIELDS", "fields"),
        column("REASON", "reason"),
    )
    out.table(report["entries"], columns)
    would = "would be repaired" if report["mode"] == "dry-run" else "repaired"
    out.note(f"{report['resource']}: {report['repairedCount']:,} {would}, {report['skippedCount']:,} skipped.")


def drift_verb(kind: Kind) -> Verb:
    """`drift`: compare every custom resource with its row, now."""

    def run(session: Session, params: Params) -> None:
        report = session.client.get(f"{kind.path}/drift").data
        show(session, report)
        if params["exit_code"] and report["mismatches"]:
            raise SystemExit(Exit.DIFFERENT)

    return Verb(
        "drift",
        f"Compare every {kind.title} in the cluster with its row, now.",
        run,
        (EXIT_CODE,),
        (f"GET {kind.path}/drift",),
        examples=(f"{kind.noun} drift -o wide",),
    )


def show(session: Session, report: Any) -> None:
    """A drift report; its names with `-o name`."""
    if session.out.format == "name":
        session.out.rows([report["mismatches"]], (), lambda row: str(row["name"]))
    else:
        session.out.thing(report, "", describe_drift)


def repair_verb(kind: Kind) -> Verb:
    """`repair`: the cluster wins."""

    def run(session: Session, params: Params) -> None:
        from cli.jobs import result

        body = {"names": params["name"]} if params["name"] else None
        what = f"comparing {kind.plural}"
        if params["dry_run"] or not params["yes"]:
            answer = session.client.request("POST", f"{kind.path}/repair", query={"dryRun": True}, body=body)
            report = result(session, answer, wait=not (params["no_wait"] and params["dry_run"]), what=what)
            if report is None or params["dry_run"]:
                _show(session, report)
                return
            if not report["repairedCount"]:
                _show(session, report)
                return
            # What is asked about has to be seen, whatever the result is to be shown as.
            if session.can_ask:
                describe_repair(_to_the_terminal(session.out), report)
            count = texts.counted(report["repairedCount"], kind.title, kind.plural)
            session.confirm(f"Let the cluster win for {count}? Rows change to match, nothing is deleted.", yes=False)
        answer = session.client.request("POST", f"{kind.path}/repair", query={"dryRun": False}, body=body)
        report = result(session, answer, wait=not params["no_wait"], what=f"repairing {kind.plural}")
        _show(session, report)

    return Verb(
        "repair",
        f"Let the cluster win: {kind.title} rows are made and changed to match.",
        run,
        (
            Arg("NAME", "Only these; every mismatch, if absent.", names=kind.noun, many=True, required=False),
            Flag("--dry-run", "Only show what would be done.", switch=True),
            YES,
            NO_WAIT,
        ),
        (f"POST {kind.path}/repair",),
        about="Shows what would be done and asks. Nothing is deleted.",
        examples=(f"{kind.noun} repair --dry-run", f"{kind.noun} repair anna --yes"),
    )


def _show(session: Session, report: Any) -> None:
    if report is not None:
        session.out.thing(report, "", describe_repair)


def _to_the_terminal(out: Output) -> Output:
    made = Output.__new__(Output)
    made.__dict__ |= out.__dict__ | {"stdout": out.stderr, "format": "table", "is_terminal": True}
    return made
