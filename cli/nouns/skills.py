"""The skill catalog, and the third-party sources that skills and MCP servers are imported from."""

from pathlib import Path
from typing import Any

from cli.errors import CliError, Exit, UsageError
from cli.nouns.access import RENAME
from cli.nouns.grants import change, grant_verb, revoke_verb
from cli.output import Output, at, column, wide
from cli.session import Session, each
from cli.spec import Arg, Flag, Kind, Noun, Params, Verb
from cli.verbs import (
    IF_MATCH,
    NO_WAIT,
    SEARCH,
    WAIT_SECONDS,
    act_verb,
    create_verb,
    delete_verb,
    edit_verb,
    get_verb,
    inner_list_verb,
    key,
    list_verb,
    name_arg,
    update_verb,
    wait_verb,
    where,
    written,
)

SCOPES = ("org", "department", "team", "project", "personal")
STATES = ("draft", "review", "published", "deprecated")
SCANS = ("pending", "scanning", "passed", "failed", "unavailable")
_TYPES = {
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".zip": "application/zip",
    ".gz": "application/gzip",
    ".tgz": "application/gzip",
}


def _label(row: Any) -> str:
    return f"{row['name']}@{row['version']}"


def _find(session: Session, text: str) -> Any:
    """A bundle by `name@version`, or by its name where it has one version only."""
    name, _, version = text.rpartition("@") if "@" in text else (text, "", "")
    rows = [row for page, _ in session.client.pages("/skills/catalog", {"name": name}) for row in page]
    found = [row for row in rows if not version or row["version"] == version]
    if not found:
        raise CliError(f"there is no skill {text}", status=Exit.NOT_FOUND, hint="opencrane skills list")
    if len(found) > 1:
        known = ", ".join(_label(row) for row in found[:10])
        raise CliError(f"{name} has {len(found)} versions", detail=f"Say which: {known}.", status=Exit.USAGE)
    return found[0]


def _describe(out: Output, bundle: Any) -> None:
    out.fields(bundle, skip=("content", "contentBase64"))


SKILL = Kind(
    noun="skills",
    title="skill",
    path="/skills/catalog",
    key="id",
    document="SkillBundle",
    columns=(
        column("NAME", "name"),
        column("VERSION", "version"),
        column("STATUS", "status", "state"),
        column("SCAN", "scanStatus", "state"),
        column("SCOPE", "scope"),
        column("GRANTS", lambda row: len(row["grants"]), "count"),
        column("AGE", "createdAt", "age"),
        wide("SOURCE", "sourceName"),
        wide("STORE", "oci.state", "state"),
        wide("TAGS", "tags"),
        wide("SIZE", "contentSize", "size"),
        wide("ID", "id"),
    ),
    writable=(
        "name",
        "version",
        "description",
        "scope",
        "status",
        "tags",
        "contentType",
        "content",
        "contentBase64",
        "sourceName",
        "grants",
        "promotions",
    ),
    label=_label,
    find=_find,
    describe=_describe,
)
FIELDS = (
    Flag("--description", "What it does.", to="description"),
    Flag("--scope", "Its scope.", to="scope", choices=SCOPES, metavar="SCOPE", clearable=False),
    Flag(
        "--status",
        "Its state; `published` needs a scan that has passed.",
        to="status",
        choices=STATES,
        metavar="STATUS",
    ),
    Flag("--tag", "A tag.", to="tags", many=True),
    Flag("--content-type", "By the file's name, if absent.", to="contentType", metavar="TYPE"),
    Flag(
        "--digest",
        "The digest that the content has to have; alone, it names content in the store.",
        to="digest",
        metavar="SHA256",
    ),
    Flag("--source-name", "Where it comes from.", to="sourceName"),
)
VERSION = Flag("--version", "Its version (semver.org).", to="version", metavar="VERSION", clearable=False)
CONTENT = Flag("--content", "The file with its content, SKILL.md or an archive; - for standard input.", metavar="FILE")


def _with_content(session: Session, params: Params, body: dict[str, Any]) -> None:
    source = params["content"]
    if not source:
        return
    content = session.bytes(source)
    body.setdefault("contentType", _TYPES.get(Path(source).suffix.lower(), "text/markdown"))
    body.pop("content", None)
    body.pop("contentBase64", None)
    try:
        if b"\0" in content:
            raise UnicodeError
        body["content"] = content.decode()
    except UnicodeError:
        import base64

        body["contentBase64"] = base64.b64encode(content).decode()


def _created(session: Session, params: Params, answer: Any, name: str) -> None:
    written(session, SKILL, name, "created", answer)
    if params["wait"]:
        _await_scan(session, str(answer["id"]), name, params["for_at_most"])


def _await_scan(session: Session, bundle_id: str, name: str, seconds: float) -> None:
    place = where(session, SKILL, bundle_id)
    found = session.until(
        lambda: session.client.get(place, {"content": False}).data,
        lambda bundle: bundle["scanStatus"] not in ("pending", "scanning"),
        what=f"skills/{name} has not been scanned",
        seconds=seconds,
    )
    if found["scanStatus"] != "passed":
        worst = ", ".join(f"{count} {severity}" for severity, count in at(found, "scan.severities").items() if count)
        raise CliError(
            f"the scan of {name} has not passed: {found['scanStatus']}",
            detail=worst or at(found, "scan.error") or "",
            hint=f"opencrane skills get {name}",
        )
    session.out.note(f"skills/{name} scan passed")


def _scan(session: Session, params: Params) -> None:
    def act(name: str) -> None:
        bundle_id = key(session, SKILL, name)
        place = where(session, SKILL, bundle_id, "/scan")
        written(session, SKILL, name, "scan queued", session.client.request("POST", place).data)
        if params["wait"]:
            _await_scan(session, bundle_id, name, params["for_at_most"])

    each(session, params["name"], act)


def _content(session: Session, params: Params) -> None:
    bundle = session.client.get(where(session, SKILL, params["name"])).data
    if bundle.get("contentBase64") is not None:
        import base64

        content = base64.b64decode(bundle["contentBase64"])
    elif bundle.get("content") is not None:
        content = bundle["content"].encode()
    else:
        raise CliError(f"{params['name']} has no content here", status=Exit.NOT_FOUND)
    to = params["to"]
    if to and to != "-":
        try:
            Path(to).expanduser().write_bytes(content)
        except OSError as exc:
            raise UsageError(f"cannot write {to}: {exc.strerror}") from exc
        session.out.note(f"{len(content):,} bytes in {to}")
        return
    if session.out.is_terminal and b"\0" in content:
        raise UsageError("this is no text; name a file with --to")
    session.out.stdout.flush()
    session.out.stdout.buffer.write(content)
    session.out.stdout.buffer.flush()


def _to_status(status: str, done: str) -> Any:
    def run(session: Session, params: Params) -> None:
        def act(name: str) -> None:
            answer = session.client.request("PUT", where(session, SKILL, name), body={"status": status}).data
            written(session, SKILL, name, done, answer)

        each(session, params["name"], act)

    return run


def _promote(session: Session, params: Params) -> None:
    entry = {"toScope": params["to"], "status": params["status"], "notes": params["notes"]}
    entry = {field: value for field, value in entry.items() if value is not None}

    def make(promotions: list[Any]) -> list[Any]:
        kept = [
            {k: v for k, v in each_one.items() if v is not None and k not in ("id", "createdAt")}
            for each_one in promotions
        ]
        return [*kept, entry]

    name = params["name"]
    written(
        session, SKILL, name, f"promotion to {params['to']} proposed", change(session, SKILL, name, "promotions", make)
    )


def _backfill(session: Session, params: Params) -> None:
    from cli.jobs import result

    answer = session.client.request("POST", "/skills/catalog/backfill")
    report = result(session, answer, wait=not params["no_wait"], what="pushing bundles")
    if report is not None:
        session.out.thing(report, "", _describe_backfill)


def _describe_backfill(out: Output, report: Any) -> None:
    out.table(
        report["results"],
        (
            column("NAME", "name"),
            column("OUTCOME", "outcome", "state"),
            column("REASON", "reason"),
            wide("DIGEST", "digest"),
        ),
    )
    outcomes = ", ".join(f"{report[outcome]:,} {outcome}" for outcome in ("pushed", "skipped", "failed"))
    out.note(f"{report['total']:,} skills: {outcomes}.")


SKILLS = Noun(
    "skills",
    "The skill catalog: bundles that are scanned before they can be published.",
    (
        list_verb(
            SKILL,
            SEARCH,
            Flag("--name", "Only versions of this skill.", to="name", metavar="NAME"),
            Flag("--status", "Only in this state.", to="status", choices=STATES, metavar="STATUS"),
            Flag("--scan", "Only with this scan.", to="scanStatus", choices=SCANS, metavar="STATUS"),
            Flag("--scope", "Only of this scope.", to="scope", choices=SCOPES, metavar="SCOPE"),
            Flag("--tag", "Only with this tag.", to="tag"),
        ),
        get_verb(SKILL, about="A skill goes by name@version, or by its name while it has one version."),
        create_verb(
            SKILL,
            VERSION,
            *FIELDS,
            before=_with_content,
            done=_created,
            extra=(CONTENT, Flag("--wait", "Wait until it has been scanned.", switch=True), WAIT_SECONDS),
            about="Makes a draft, whose content is scanned in the background.",
            examples=("skills create summarize --version 1.0.0 --scope org --content SKILL.md --wait",),
        ),
        update_verb(
            SKILL,
            RENAME,
            VERSION,
            *FIELDS,
            before=_with_content,
            extra=(CONTENT,),
            about="What is published never changes; make a new version.",
        ),
        edit_verb(SKILL),
        delete_verb(SKILL, IF_MATCH, consequence="Grants about it go as well; the store keeps what it has."),
        Verb(
            "content",
            "Print a skill's content, or write it to a file.",
            _content,
            (name_arg(SKILL), Flag("--to", "The file to write.", metavar="FILE")),
            ("GET /skills/catalog/{id}",),
            shows=False,
        ),
        Verb(
            "scan",
            "Have skills scanned again.",
            _scan,
            (name_arg(SKILL, many=True), Flag("--wait", "Wait until that is done.", switch=True), WAIT_SECONDS),
            ("POST /skills/catalog/{id}/scan", "GET /skills/catalog/{id}"),
        ),
        Verb(
            "publish",
            "Publish skills whose scan has passed.",
            _to_status("published", "published"),
            (name_arg(SKILL, many=True),),
            ("PUT /skills/catalog/{id}",),
        ),
        Verb(
            "deprecate",
            "Take skills out of use.",
            _to_status("deprecated", "deprecated"),
            (name_arg(SKILL, many=True),),
            ("PUT /skills/catalog/{id}",),
        ),
        Verb(
            "promote",
            "Propose a skill for a wider scope.",
            _promote,
            (
                name_arg(SKILL),
                Flag("--to", "The scope.", choices=SCOPES, metavar="SCOPE", required=True),
                Flag(
                    "--status", "What has been decided.", choices=("proposed", "approved", "rejected"), metavar="STATUS"
                ),
                Flag("--notes", "Why."),
            ),
            ("PUT /skills/catalog/{id}", "GET /skills/catalog/{id}"),
        ),
        grant_verb(SKILL, SCOPES),
        revoke_verb(SKILL),
        wait_verb(SKILL, {"scan": "scanStatus", "status": "status", "store": "oci.state"}),
        Verb(
            "backfill",
            "Push every published skill to the OCI store.",
            _backfill,
            (NO_WAIT,),
            ("POST /skills/catalog/backfill",),
        ),
    ),
)

# --- Sources ----------------------------------------------------------------------------------------------------------

SOURCE_TYPES = ("mcp-registry", "anthropic-skills", "git-repository", "manual-upload")
SOURCE_STATES = ("pending-approval", "healthy", "syncing", "error")
SOURCE = Kind(
    noun="sources",
    title="source",
    path="/third-party-sources",
    key="id",
    document="ThirdPartySource",
    columns=(
        column("NAME", "name"),
        column("TYPE", "type"),
        column("STATUS", "syncStatus", "state"),
        column("ITEMS", "itemCount", "count"),
        column("SYNCED", "lastSyncedAt", "age"),
        column("MODE", "syncMode"),
        wide("URL", "url"),
        wide("ERROR", "syncError"),
        wide("APPROVED BY", "approvedBy"),
        wide("ID", "id"),
    ),
    writable=("name", "type", "url", "ref", "syncMode"),
)
SOURCE_FIELDS = (
    Flag("--type", "What it is.", to="type", choices=SOURCE_TYPES, metavar="TYPE", clearable=False),
    Flag("--url", "Where it is.", to="url", metavar="URL", clearable=False),
    Flag("--ref", "A branch or tag of a repository.", to="ref", metavar="REF"),
    Flag(
        "--sync-mode", "Whether it is read on schedule.", to="syncMode", choices=("scheduled", "manual"), metavar="MODE"
    ),
)
ITEM = Kind(
    noun="items",
    title="item",
    path="",
    key="id",
    columns=(
        column("NAME", "name"),
        column("KIND", "kind"),
        column("VERSION", "version"),
        column("STATE", "state", "state"),
        column("PROBLEM", "problem"),
        wide("CHANGED", "changedAt", "age"),
        wide("DESCRIPTION", "description"),
        wide("ID", "id"),
    ),
)
ITEM_STATES = ("new", "update", "imported", "unusable", "gone")


def _sync(session: Session, params: Params) -> None:
    from cli.jobs import result

    name = params["name"]
    answer = session.client.request("POST", where(session, SOURCE, name, "/sync"))
    report = result(session, answer, wait=not params["no_wait"], what=f"reading {name}")
    if report is not None:
        session.out.thing(report, str(report.get("sourceId", "")))


def _import(session: Session, params: Params) -> None:
    from cli.client import path
    from cli.verbs import is_uuid

    place = where(session, SOURCE, params["source"], "/items")

    def act(text: str) -> None:
        item = text if is_uuid(text) else _item(session, place, text)
        body = {"scope": params["scope"]} if params["scope"] else None
        answer = session.client.request("POST", place + path("/{id}/import", id=item), body=body).data
        kind = "skills" if answer["bundleId"] else "mcp-servers"
        done = f"imported as {kind}/{answer['bundleId'] or answer['serverId']}"
        written(session, ITEM, text, done, answer)

    each(session, params["item"], act)


def _item(session: Session, place: str, text: str) -> str:
    rows = [row for page, _ in session.client.pages(place, {"q": text}) for row in page]
    found = [row["id"] for row in rows if text in (row["name"], row["upstreamId"])]
    if len(found) != 1:
        problem = f"several items are called {text}" if found else f"there is no item {text}"
        raise CliError(
            problem,
            status=Exit.USAGE if found else Exit.NOT_FOUND,
            detail=", ".join(found),
            hint="opencrane sources items SOURCE -o wide",
        )
    return str(found[0])


SOURCES = Noun(
    "sources",
    "Third-party sources: an inventory of skills and MCP servers to import from.",
    (
        list_verb(
            SOURCE,
            SEARCH,
            Flag("--type", "Only of this type.", to="type", choices=SOURCE_TYPES, metavar="TYPE"),
            Flag("--status", "Only in this state.", to="syncStatus", choices=SOURCE_STATES, metavar="STATUS"),
        ),
        get_verb(SOURCE),
        create_verb(
            SOURCE,
            *SOURCE_FIELDS,
            about="It is read once it has been approved.",
            examples=("sources create team-skills --type git-repository --url https://git.example.com/skills.git",),
        ),
        update_verb(SOURCE, RENAME, *SOURCE_FIELDS),
        edit_verb(SOURCE),
        delete_verb(SOURCE, IF_MATCH, consequence="Its inventory goes as well; what was imported stays."),
        act_verb("approve", SOURCE, "/approve", done="approved", help="Let sources be read."),
        Verb(
            "sync",
            "Read a source, now.",
            _sync,
            (name_arg(SOURCE), NO_WAIT),
            ("POST /third-party-sources/{id}/sync",),
        ),
        inner_list_verb(
            "items",
            SOURCE,
            ITEM,
            "/items",
            SEARCH,
            Flag("--kind", "Only of this kind.", to="kind", choices=("skill", "mcp-server"), metavar="KIND"),
            Flag("--state", "Only in this state.", to="state", choices=ITEM_STATES, metavar="STATE"),
            help="List what a source offers.",
        ),
        Verb(
            "import",
            "Make drafts of items.",
            _import,
            (
                Arg("SOURCE", "The source's name or id.", names="sources"),
                Arg("ITEM", "Items' names or ids.", many=True),
                Flag("--scope", "Of what is made.", to="scope", choices=SCOPES, metavar="SCOPE"),
            ),
            ("POST /third-party-sources/{id}/items/{itemId}/import", "GET /third-party-sources/{id}/items"),
            examples=("sources import team-skills summarize --scope team",),
        ),
        wait_verb(SOURCE, {"status": "syncStatus"}),
    ),
)
