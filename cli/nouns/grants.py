"""`grant` and `revoke`: one entry of an object's list of grants, which the API replaces whole."""

from typing import Any

from cli import values
from cli.errors import CliError, Exit
from cli.session import Session
from cli.spec import Arg, Flag, Kind, Params, Verb
from cli.verbs import YES, name_arg, where, written


def change(session: Session, kind: Kind, name: str, field: str, make: Any) -> Any:
    """Replace a list of an object by what `make` makes of it, unless somebody else has been quicker; twice then.

    Returns:
        The API's answer; None when there was nothing to change.
    """
    place = where(session, kind, name)
    for attempt in (1, 2):
        seen = session.client.get(place)
        wanted = make(list(seen.data[field]))
        if wanted is None:
            return None
        try:
            headers = {"If-Match": seen.etag} if seen.etag else {}
            return session.client.request("PUT", place, body={field: wanted}, headers=headers).data
        except CliError as exc:
            if exc.code != "PRECONDITION_FAILED" or attempt == 2:
                raise
    raise AssertionError("the second attempt returns or raises")


def grant_verb(kind: Kind, scopes: tuple[str, ...], *, payload: bool = False) -> Verb:
    """`grant`: one more.

    Args:
        payload: whether each grant names what it is about, as those of groups do; the group is the subject then.
    """

    def run(session: Session, params: Params) -> None:
        entry: dict[str, Any] = {"access": "deny" if params["deny"] else "allow"}
        if payload:
            entry["payloadId"] = params["dataset"]
        else:
            entry |= params["to"]
        for field in ("scope", "priority", "note"):
            if params[field] is not None:
                entry[field] = params[field]
        name = params["name"]
        answer = change(session, kind, name, "grants", lambda grants: [*map(_sendable, grants), entry])
        whom = entry.get("payloadId") or f"{entry['subjectType']}:{entry['subjectName']}"
        written(
            session, kind, name, f"{'denied' if params['deny'] else 'granted'} {'' if payload else 'to '}{whom}", answer
        )

    about_what: tuple[Arg | Flag, ...] = (
        (Arg("DATASET", "The awareness dataset."),)
        if payload
        else (
            Flag(
                "--to",
                "Whom: group:NAME, tenant:NAME or user:EMAIL.",
                metavar="SUBJECT",
                read=values.subject,
                required=True,
            ),
        )
    )
    example = (
        "groups grant platform atlas --scope project" if payload else f"{kind.noun} grant NAME --to group:platform"
    )
    return Verb(
        "grant",
        "Let a group use a dataset, or not." if payload else f"Let somebody use the {kind.title}, or not.",
        run,
        (
            name_arg(kind),
            *about_what,
            Flag("--deny", "Deny instead of allow.", switch=True),
            Flag("--scope", "The grant's scope.", choices=scopes, metavar="SCOPE"),
            Flag("--priority", "The highest decides; on a tie deny beats allow.", metavar="N", read=values.integer),
            Flag("--note", "A note.", metavar="TEXT"),
        ),
        (f"PUT {kind.one}", f"GET {kind.one}"),
        examples=(example,),
    )


def revoke_verb(kind: Kind) -> Verb:
    """`revoke`: one less."""

    def run(session: Session, params: Params) -> None:
        name, wanted = params["name"], params["grant"]

        def without(grants: list[Any]) -> list[Any]:
            left = [grant for grant in grants if wanted not in (grant["id"], _called(grant, kind))]
            if len(left) == len(grants):
                known = ", ".join(_called(grant, kind) for grant in grants[:10]) or "none"
                raise CliError(
                    f"{name} has no grant {wanted}",
                    detail=f"There are: {known}.",
                    status=Exit.NOT_FOUND,
                    hint=f"opencrane {kind.noun} get {name}",
                )
            count = len(grants) - len(left)
            session.confirm(
                f"Take {count} {'grant' if count == 1 else 'grants'} ({wanted}) from {kind.title} {name}?",
                yes=params["yes"],
            )
            return [_sendable(grant) for grant in left]

        written(session, kind, name, f"revoked {wanted}", change(session, kind, name, "grants", without))

    what = "the dataset" if kind.noun == "groups" else "group:NAME, tenant:NAME or user:EMAIL"
    return Verb(
        "revoke",
        f"Take a grant away from the {kind.title}, after asking.",
        run,
        (name_arg(kind), Arg("GRANT", f"The grant's id, or all of {what}."), YES),
        (f"PUT {kind.one}", f"GET {kind.one}"),
    )


def _called(grant: Any, kind: Kind) -> str:
    return str(grant["payloadId"]) if kind.noun == "groups" else f"{grant['subjectType']}:{grant['subjectName']}"


def _sendable(grant: Any) -> Any:
    return {key: value for key, value in grant.items() if key not in ("id", "createdAt") and value is not None}
