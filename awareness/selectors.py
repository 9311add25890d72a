"""Reading the rollout, what tenants report about it, and what sessions may see."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection
from django.db.models import Q, QuerySet

from awareness import sessions
from awareness.errors import SessionScopeNotFoundError
from awareness.models import Participation, ParticipationEvent, RolloutState, SessionScope
from awareness.rollout import Resolution, Rollout, pinned
from cluster.rows import fetch_one
from opencrane.api.keyset import Keyset, Page
from opencrane.api.pasted import like
from opencrane.api.responses import to_json

if TYPE_CHECKING:
    from tenants.models import Tenant

__all__ = ["Resolution", "current_rollout", "resolve_for"]

SILENT_AFTER = datetime.timedelta(minutes=15)
SEVERITIES = ("ok", "warning", "critical")
BY_NAME = Keyset([("name", "asc")], name="participation")
SESSIONS_NEWEST = Keyset([("created_at", "desc"), ("session_key", "desc")], name="session scopes")

# -- rollout ----------------------------------------------------------------------------------------------------------


def rollout_of(row: RolloutState | None) -> Rollout:
    """The state that a row holds; without one, the pinned version for everybody."""
    if row is None or row.is_blank:
        return pinned(settings.AWARENESS_PINNED_VERSION)
    return Rollout(row.target_version, row.stable_version, tuple(row.waves), row.frontier, row.shadow_mode)


def current_rollout() -> Rollout:
    """The rollout as it stands; one query."""
    return rollout_of(fetch_one(RolloutState, "id = 1"))


def resolve_for(tenant: "Tenant") -> Resolution:
    """Which version of the awareness contract `tenant` runs now, and why; one query."""
    return current_rollout().resolve(tenant.awareness_wave)


# -- participation ----------------------------------------------------------------------------------------------------

# Number of a tenant's wave, from 1; a tenant without one of them is in the last.
_WAVE = "coalesce(array_position(%(waves)s::text[], t.awareness_wave::text), %(last)s)"


def _judged(extra: str = "", order: str = "") -> str:
    """A subquery of what is known of every tenant, and what follows from it.

    OFFSET 0 keeps PostgreSQL from working out the inner expressions again wherever they are used.
    """
    known = f"""SELECT t.name{extra}, p.last_seen_at, p.running_contract_version AS running, p.document,
        %(everyone)s OR t.awareness_wave = ANY(%(promoted_waves)s::text[]) AS is_promoted,
        coalesce(p.last_seen_at > now() - %(silent)s, FALSE) AS participating,
        coalesce(p.policy_violations, 0) AS violations
        FROM tenants_tenant t LEFT JOIN awareness_participation p ON p.tenant_id = t.id {order} OFFSET 0"""  # noqa: S608
    found = f"""SELECT *, coalesce(running <> '' AND running <>
        CASE WHEN is_promoted THEN %(promoted)s ELSE %(stable)s END, FALSE) AS drifted
        FROM ({known}) AS known OFFSET 0"""  # noqa: S608
    return f"""(SELECT *, CASE WHEN violations > 0 THEN 'critical'
        WHEN drifted OR NOT participating THEN 'warning' ELSE 'ok' END AS severity
        FROM ({found}) AS found OFFSET 0) AS judged"""  # noqa: S608


# Pasted together, which takes half the time of json_build_object. Names are DNS labels and versions semantic, so that
# nothing in them needs escaping; what comes from the settings arrives as JSON.
_ITEM = """'{"tenant":"' || name || '","lastSeenAt":'
    || coalesce(document, 'null,"runningContractVersion":null') || ',"expectedContractVersion":'
    || CASE WHEN is_promoted THEN %(promoted_json)s ELSE %(stable_json)s END
    || ',"participating":' || participating::text || ',"drifted":' || drifted::text
    || ',"policyViolations":' || violations || ',"severity":"' || severity || '"}'"""
_COUNTS = (
    "count(*), count(*) FILTER (WHERE participating), count(*) FILTER (WHERE drifted), "
    "count(*) FILTER (WHERE severity = 'critical'), count(*) FILTER (WHERE severity = 'warning')"
)
_COUNTED = ("total", "participating", "drifted", "critical", "warning")
_COUNTS_JSON = " || ',' || ".join(
    f"""'"{name}":' || {count}""" for name, count in zip(_COUNTED, _COUNTS.split(", "), strict=True)
)


def _parameters(rollout: Rollout) -> dict[str, Any]:
    promoted = rollout.stable_version if rollout.shadow_mode else rollout.target_version
    return {
        "waves": list(rollout.waves),
        "last": len(rollout.waves),
        "promoted_waves": list(rollout.promoted_waves),
        # Strangers follow the last wave, which is promoted when all are.
        "everyone": rollout.next_wave is None,
        "promoted": promoted,
        "stable": rollout.stable_version,
        "promoted_json": to_json(promoted).decode(),
        "stable_json": to_json(rollout.stable_version).decode(),
        "silent": SILENT_AFTER,
    }


def _document(items: str) -> str:
    """The whole report as one text. Putting it together here would copy two megabytes more than once."""
    return f"""'{{' || {_COUNTS_JSON} || ',"tenants":[' || coalesce({items}, '') || ']}}'"""


def participation_report(severity: str | None, page: Page) -> tuple[bytes, str]:
    """The report as JSON text, and the cursor of the next page, or empty; two queries.

    Counts are of the whole fleet; `tenants` are those of `severity` (all, if None), by name.
    """
    values = _parameters(current_rollout()) | {"severity": severity}
    chosen = "severity = %(severity)s" if severity else "TRUE"
    beyond, keys = BY_NAME.where(page)
    if keys:
        chosen += " AND " + beyond.replace("%s", "%(after)s")
        values["after"] = keys[0]
    judged = _judged(order="ORDER BY t.name")
    if page.limit is None:
        items = f"string_agg({_ITEM}, ',') FILTER (WHERE {chosen})"
        sql = f"SELECT {_document(items)}, NULL FROM {judged}"  # noqa: S608
    else:
        # The names of the page, and of the one after it.
        values["limit"], values["more"] = page.limit, page.limit + 1
        items = f"(SELECT string_agg({_ITEM}, ',') FROM (SELECT * FROM page LIMIT %(limit)s) AS shown)"  # noqa: S608
        sql = f"""WITH judged AS MATERIALIZED (SELECT * FROM {judged}),
            page AS (SELECT * FROM judged WHERE {chosen} ORDER BY name LIMIT %(more)s)
            SELECT {_document(items)}, (SELECT array_agg(name) FROM page) FROM judged"""  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        body, names = cursor.fetchone()
    has_more = page.limit is not None and len(names or ()) > page.limit
    return body.encode(), BY_NAME.encode([names[-2]]) if has_more else ""


def participation_counts() -> dict[str, int]:
    """`total`, `participating`, `drifted`, `critical` and `warning` tenants of the fleet; two queries."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_COUNTS} FROM {_judged()}", _parameters(current_rollout()))  # noqa: S608
        return dict(zip(_COUNTED, cursor.fetchone(), strict=True))


def participation_of(tenant: "Tenant") -> Participation | None:
    """What is known of one tenant from its pod's reports; None when it has never reported."""
    return Participation.objects.filter(tenant_id=tenant.pk).first()


def recent_events(tenant: "Tenant", limit: int = 20) -> list[ParticipationEvent]:
    """A tenant's latest reports, the newest first."""
    return list(ParticipationEvent.objects.filter(tenant_id=tenant.pk).order_by("-received_at", "-id")[:limit])


# -- the rollout board ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WaveColumn:
    """One wave on the board. Each of its tenants counts once, by the first of these that is true.

    Attributes:
        wave, promoted: its name, and whether it has been promoted.
        version: what its tenants should run.
        tenants: how many are in it.
        silent: not seen for 15 minutes, or never.
        unreported: seen, but have not said what they run.
        drifted: run something else than they should.
        on_target, on_stable: run what they should, and that is the target version, or only the stable one.
    """

    wave: str
    promoted: bool
    version: str
    tenants: int
    silent: int
    unreported: int
    drifted: int
    on_target: int
    on_stable: int


@dataclass(frozen=True, slots=True)
class Board:
    """The rollout with one column for each wave, in order."""

    rollout: Rollout
    columns: tuple[WaveColumn, ...]


# A tenant's place on the board, and the names of all of them in the order of WaveColumn.
_PLACE = """CASE WHEN NOT participating THEN 'silent' WHEN coalesce(running, '') = '' THEN 'unreported'
    WHEN drifted THEN 'drifted' WHEN running = %(target)s THEN 'on_target' ELSE 'on_stable' END"""
PLACES = ("silent", "unreported", "drifted", "on_target", "on_stable")


def board() -> Board:
    """The rollout and where its tenants are; two queries, however many waves and tenants there are."""
    rollout = current_rollout()
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT wave, count(*), count(*) FILTER (WHERE place = 'silent'),
                count(*) FILTER (WHERE place = 'unreported'), count(*) FILTER (WHERE place = 'drifted'),
                count(*) FILTER (WHERE place = 'on_target'), count(*) FILTER (WHERE place = 'on_stable')
            FROM (
                SELECT wave, {_PLACE} AS place
                FROM {_judged(f", {_WAVE} AS wave")} OFFSET 0
            ) AS placed GROUP BY wave""",  # noqa: S608 - constants
            _parameters(rollout) | {"target": rollout.target_version},
        )
        counts = {number: tuple(rest) for number, *rest in cursor.fetchall()}
    columns = []
    for number, wave in enumerate(rollout.waves, start=1):
        resolution = rollout.resolve(wave)
        columns.append(WaveColumn(wave, resolution.promoted, resolution.version, *counts.get(number, (0,) * 6)))
    return Board(rollout, tuple(columns))


@dataclass(frozen=True, slots=True)
class Participant:
    """One tenant in the list of participation; fields as in the report, and its place on the board."""

    name: str
    display_name: str
    wave: str
    last_seen_at: datetime.datetime | None
    running: str
    expected: str
    participating: bool
    drifted: bool
    violations: int
    severity: str
    place: str


def participants(filters: Mapping[str, str], page: Page) -> list[Participant]:
    """One page of tenants by name, and one more if there is; two queries.

    Args:
        filters: any of `q` (name or display name), `severity`, `wave` (as it counts) and `place` (one of PLACES).
    """
    rollout = current_rollout()
    beyond, keys = BY_NAME.where(page)
    values = _parameters(rollout) | {"target": rollout.target_version, "limit": (page.limit or 1000) + 1}
    parts = [beyond.replace("%s", "%(after)s")]
    values |= {"after": keys[0]} if keys else {}
    for name in ("severity", "place"):
        if name in filters:
            parts.append(f"{name} = %({name})s")
            values[name] = filters[name]
    if wave := filters.get("wave"):
        parts.append("wave = %(wave)s")
        values["wave"] = rollout.waves.index(wave) + 1 if wave in rollout.waves else 0
    if text := filters.get("q"):
        parts.append("(name ILIKE %(text)s OR display_name ILIKE %(text)s)")
        values["text"] = like(text)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT name, display_name, wave, last_seen_at, coalesce(running, ''),
                CASE WHEN is_promoted THEN %(promoted)s ELSE %(stable)s END, participating, drifted, violations,
                severity, place
            FROM (SELECT *, {_PLACE} AS place FROM {_judged(f", t.display_name, {_WAVE} AS wave")} OFFSET 0) AS placed
            WHERE {" AND ".join(parts)} ORDER BY name LIMIT %(limit)s""",  # noqa: S608 - constants
            values,
        )
        return [
            Participant(name, shown, rollout.waves[wave - 1], *rest) for name, shown, wave, *rest in cursor.fetchall()
        ]


def version_changes(before: Rollout, after: Rollout) -> list[tuple[str, str, int]]:
    """What a change of the rollout would do: version now, version then, and how many tenants; one query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT awareness_wave, count(*) FROM tenants_tenant GROUP BY awareness_wave")
        rows = cursor.fetchall()
    found: dict[tuple[str, str], int] = {}
    for wave, count in rows:
        key = (before.resolve(wave).version, after.resolve(wave).version)
        found[key] = found.get(key, 0) + count
    return [(old, new, count) for (old, new), count in sorted(found.items()) if old != new]


@dataclass(frozen=True, slots=True)
class WaveChange:
    """What a change of the rollout would do to one wave.

    Attributes:
        before, after: what its tenants run, or would run.
        tenants: how many are in the wave.
        names: the first of them.
    """

    wave: str
    before: Resolution
    after: Resolution
    tenants: int
    names: tuple[str, ...]

    @property
    def changes_version(self) -> bool:
        """False in shadow mode, when the stable version goes on."""
        return self.before.version != self.after.version


@dataclass(frozen=True, slots=True)
class Preview:
    """A change of the rollout before it is made; `changes` has the waves that it concerns, in order."""

    before: Rollout
    after: Rollout
    changes: tuple[WaveChange, ...]

    @property
    def tenants_changing_version(self) -> int:
        return sum(change.tenants for change in self.changes if change.changes_version)


def promotion_preview(action: str, *, wave: str | None = None, names: int = 10) -> Preview:
    """What promoting or rolling back would change now; two queries.

    Args:
        action: `promote` or `rollback`.
        wave: for `promote`, how far; the next wave only when None.
        names: how many tenants of each wave to name.

    Raises:
        ValueError: there is no wave of that name.
    """
    before = current_rollout()
    after = before.rolled_back() if action == "rollback" else before.promoted(wave)
    moved = before.waves[min(before.frontier, after.frontier) : max(before.frontier, after.frontier)]
    found: dict[int, tuple[int, list[str]]] = {}
    if moved:
        with connection.cursor() as cursor:
            cursor.execute(
                f"""SELECT wave, count(*), (array_agg(name ORDER BY name))[1:%(names)s]
                FROM (SELECT {_WAVE} AS wave, t.name FROM tenants_tenant t) AS placed
                WHERE wave = ANY(%(moved)s) GROUP BY wave""",  # noqa: S608 - constants
                {
                    "waves": list(before.waves),
                    "last": len(before.waves),
                    "names": names,
                    "moved": [before.waves.index(each) + 1 for each in moved],
                },
            )
            found = {number: (count, first) for number, count, first in cursor.fetchall()}
    changes = []
    for each in moved:
        count, first = found.get(before.waves.index(each) + 1, (0, []))
        changes.append(WaveChange(each, before.resolve(each), after.resolve(each), count, tuple(first)))
    return Preview(before, after, tuple(changes))


# -- sessions ---------------------------------------------------------------------------------------------------------


def session_scope(session_key: str) -> dict[str, Any]:
    """What a session may see now, as the API shows it; two queries.

    What was granted when the scope was set and is not any more is left out, and a grant's scope is the present one.

    Raises:
        SessionScopeNotFoundError
    """
    row = SessionScope.objects.select_related("tenant").filter(pk=session_key).first()
    if row is None:
        raise SessionScopeNotFoundError
    granted = sessions.granted_scopes(sessions.principal_of_session(row, row.tenant))
    scopes, _ = sessions.intersect(row.scopes, granted)
    return sessions.session_json(row, scopes)


def sessions_listed(text: str = "") -> QuerySet[SessionScope]:
    """Stored scopes whose key or principal holds `text`, with their tenants; unordered, see SESSIONS_NEWEST."""
    found = SessionScope.objects.select_related("tenant")
    return found.filter(Q(session_key__icontains=text) | Q(principal__icontains=text)) if text else found
