"""Rollout of the runtime contract in waves, and who follows."""

from typing import Any

from cli.output import Output, column
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Noun, Params, Verb
from cli.verbs import FILE, YES, from_file, given, list_verb

PARTICIPANT = Kind(
    noun="awareness",
    title="tenant",
    path="/awareness/participation",
    columns=(
        column("TENANT", "tenant"),
        column("SEVERITY", "severity", "state"),
        column("LAST SEEN", "lastSeenAt", "age"),
        column("RUNS", "runningContractVersion"),
        column("EXPECTED", "expectedContractVersion"),
        column("DRIFTED", "drifted"),
        column("VIOLATIONS", "policyViolations", "count"),
    ),
    label=lambda row: str(row["tenant"]),
)
_ROLLOUT = "/awareness/rollout"
_FIELDS = (
    Flag("--target", "The version to roll out (semver.org).", to="targetVersion", metavar="VERSION"),
    Flag(
        "--stable",
        "What waves run that are not promoted; the pinned version, if absent.",
        to="stableVersion",
        metavar="VERSION",
    ),
    Flag(
        "--wave",
        "A wave, in order; personal, project, department and org, if absent.",
        to="waves",
        metavar="NAME",
        many=True,
    ),
    Flag(
        "--shadow", "Whether promoted waves stay stable and run the target beside it.", to="shadowMode", negatable=True
    ),
)


def _describe(out: Output, rollout: Any) -> None:
    out.fields(rollout, skip=("waves", "promotedWaves", "nextWave"))
    out.line()
    rows = [
        {
            "wave": wave,
            "state": "promoted" if wave in rollout["promotedWaves"] else "next" if wave == rollout["nextWave"] else "-",
            "version": rollout[
                "targetVersion" if wave in rollout["promotedWaves"] and not rollout["shadowMode"] else "stableVersion"
            ],
        }
        for wave in rollout["waves"]
    ]
    out.table(rows, (column("WAVE", "wave"), column("STATE", "state", "state"), column("RUNS", "version")))


def _show(session: Session, rollout: Any) -> None:
    session.out.thing(rollout, str(rollout["targetVersion"]), _describe)


def _rollout(session: Session, params: Params) -> None:
    _show(session, session.client.get(_ROLLOUT).data)


def _define(session: Session, params: Params) -> None:
    body = from_file(session, params["file"]) | given(params, _FIELDS)
    session.confirm(
        f"Define the rollout of {body.get('targetVersion', 'another version')}? No wave is promoted after that.",
        yes=params["yes"],
    )
    _show(session, session.client.request("PUT", _ROLLOUT, body=body).data)


def _promote(session: Session, params: Params) -> None:
    now = session.client.get(_ROLLOUT).data
    wave = params["wave"] or now["nextWave"]
    if not wave:
        session.out.note("Every wave is promoted.")
        _show(session, now)
        return
    upto = f"all waves up to {wave}" if params["wave"] else f"wave {wave}"
    session.confirm(f"Promote {upto} from {now['stableVersion']} to {now['targetVersion']}?", yes=params["yes"])
    # By name, so that nobody who promotes at the same moment makes two waves of one.
    _show(session, session.client.request("POST", f"{_ROLLOUT}/promote", body={"wave": wave}).data)


def _rollback(session: Session, params: Params) -> None:
    now = session.client.get(_ROLLOUT).data
    waves = ", ".join(now["promotedWaves"]) or "no wave"
    session.confirm(f"Take {waves} back from {now['targetVersion']} to {now['stableVersion']}?", yes=params["yes"])
    _show(session, session.client.request("POST", f"{_ROLLOUT}/rollback").data)


def _resolve(session: Session, params: Params) -> None:
    from cli.client import path

    answer = session.client.get(path(f"{_ROLLOUT}/resolve/{{tenant}}", tenant=params["tenant"])).data
    session.out.thing(answer, str(answer["version"]))


def _summary(out: Output, report: Any) -> None:
    out.note(
        f"{report['participating']:,} of {report['total']:,} take part, {report['drifted']:,} drifted,"
        f" {report['warning']:,} with warnings, {report['critical']:,} critical."
    )


_LIST = list_verb(
    PARTICIPANT,
    Flag("--severity", "Only like this.", to="severity", choices=("ok", "warning", "critical"), metavar="SEVERITY"),
    help="Who runs which version, and who is silent.",
    items="tenants",
    after=_summary,
)

AWARENESS = Noun(
    "awareness",
    "Rollout of the runtime contract in waves, and who follows.",
    (
        Verb("rollout", "Show how far the rollout has come.", _rollout, (), (f"GET {_ROLLOUT}",)),
        Verb(
            "define",
            "Define what is rolled out, after asking.",
            _define,
            (*_FIELDS, FILE, YES),
            (f"PUT {_ROLLOUT}",),
            examples=("awareness define --target 1.2.0 --stable 1.1.0",),
        ),
        Verb(
            "promote",
            "Promote the next wave, or all up to one, after asking.",
            _promote,
            (Flag("--wave", "How far.", metavar="NAME"), YES),
            (f"POST {_ROLLOUT}/promote", f"GET {_ROLLOUT}"),
        ),
        Verb(
            "rollback",
            "Take every wave back to the stable version, after asking.",
            _rollback,
            (YES,),
            (f"POST {_ROLLOUT}/rollback", f"GET {_ROLLOUT}"),
        ),
        Verb(
            "resolve",
            "Which version a tenant runs, and by which wave.",
            _resolve,
            (Arg("TENANT", "The tenant's name.", names="tenants"),),
            (f"GET {_ROLLOUT}/resolve/{{tenant}}",),
        ),
        Verb("participation", _LIST.help, _LIST.run, _LIST.params, _LIST.does),
    ),
)
