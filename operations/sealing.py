"""Seal the audit trail in batches by a chain of hashes, and check what was sealed.

The triggers keep the application from changing the trail; whoever owns the database can remove them. Seals make that
show: an entry that was changed, removed or slipped in afterwards no longer fits its batch, a changed batch no longer
fits its seal, and a removed seal is missed by the next one. Who rewrites all seals as well is found out by the hash of
a later seal, which is logged when it is made: logs are kept elsewhere.

Nothing is added to a write. A batch takes entries in the order of (xid, id) as far as every transaction has ended that
could still add one before them (`pg_snapshot_xmin`), so an entry that commits late is sealed late and never missed.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import connection, transaction
from django.utils import timezone

from operations.models import AuditSeal, AuditVerification

log = structlog.get_logger(__name__)

VERSION = 1
BATCH_ROWS = 5000
# What one run of a task looks at.
MOST_BATCHES = 40
_LOCK = 7_212_004_511
_ENTRY = struct.Struct(">q16s")
_HEAD = struct.Struct(">hiqqqqi")
_GENESIS = "0" * 64

# Everything that an entry says. A column that is added later needs a new VERSION.
_CANONICAL = """json_build_array(id, xid, to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), tenant,
 tenant_id, action, resource, message, actor_kind, actor_name, actor_id, actor_token, request_id, address, before,
 after)::text"""
_DIGEST = f"substring(sha256(convert_to({_CANONICAL}, 'UTF8')) FROM 1 FOR 16)"
_RANGE = "xid >= %s AND (xid, id) > (%s, %s) AND id > %s"
# Entries of a cluster from which this database was restored have numbers that no transaction here has reached.
_SETTLED = """(xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
 OR xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"""


@dataclass(frozen=True, slots=True)
class Broken:
    """The first thing that does not fit.

    Attributes:
        seal: the seal that noticed.
        entry: the audit entry; None when it is the seal itself that was changed or removed.
        why: a sentence.
    """

    seal: int
    entry: int | None
    why: str


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a seal begins: behind a position, in a chain."""

    chain: int
    floor_id: int
    xid: int
    id: int


def seal_entries(*, most_batches: int = MOST_BATCHES, batch_rows: int = BATCH_ROWS) -> int:
    """Seal what can be sealed, up to `most_batches` batches. Returns how many entries were.

    Only one process seals at a time; another that tries meanwhile does nothing.
    """
    sealed = 0
    for _ in range(most_batches):
        rows = _seal_batch(batch_rows)
        sealed += rows
        if rows < batch_rows:
            break
    return sealed


@transaction.atomic
def _seal_batch(batch_rows: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            return 0
    last = AuditSeal.objects.order_by("-id").first()
    start = _Start(1, 0, 0, 0) if last is None else _Start(last.chain, last.floor_id, last.last_xid, last.last_id)
    rows = _settled(start, batch_rows)
    if not rows and last is not None and _is_another_cluster(last.last_xid):
        start = _Start(last.chain + 1, last.max_id, 0, 0)
        rows = _settled(start, batch_rows)
    if not rows:
        return 0
    packed = b"".join(_ENTRY.pack(entry_id, bytes(digest)) for _, entry_id, digest in rows)
    seal = AuditSeal(
        version=VERSION,
        chain=start.chain,
        floor_id=start.floor_id,
        last_xid=rows[-1][0],
        last_id=rows[-1][1],
        max_id=max([entry_id for _, entry_id, _ in rows] + ([last.max_id] if last is not None else [])),
        rows=len(rows),
        entries=packed,
        previous_hash=_GENESIS if last is None else last.hash,
    )
    seal.hash = _hash(seal)
    seal.save(force_insert=True)
    log.info("audit sealed", seal=seal.pk, rows=seal.rows, hash=seal.hash)
    return len(rows)


def _settled(start: _Start, limit: int) -> list[tuple[int, int, bytes]]:
    """Transaction, id and digest of the entries that come next and that none can precede any more."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT xid, id, {_DIGEST} FROM operations_auditentry WHERE {_RANGE} AND {_SETTLED}"  # noqa: S608
            " ORDER BY xid, id LIMIT %s",
            [start.xid, start.xid, start.id, start.floor_id, limit],
        )
        return cursor.fetchall()


def _is_another_cluster(xid: int) -> bool:
    """Whether a transaction that has ended has a number that this cluster has not given out yet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint", [xid])
        return bool(cursor.fetchone()[0])


def _hash(seal: AuditSeal) -> str:
    head = _HEAD.pack(
        seal.version, seal.chain, seal.floor_id, seal.last_xid, seal.last_id, seal.max_id, seal.rows
    )  # fmt: skip
    return hashlib.sha256(bytes.fromhex(seal.previous_hash) + head + bytes(seal.entries)).hexdigest()


# -- checking ---------------------------------------------------------------------------------------------------------


def check(*, from_seal: int = 0, most_rows: int | None = None) -> Iterator[tuple[AuditSeal, Broken | None]]:
    """Check seal after seal, and every entry they cover.

    Args:
        from_seal: seals before this one are not checked.
        most_rows: stop after about so many entries; None for all.

    Yields:
        Each seal with what is broken first in it, or None.
    """
    before = AuditSeal.objects.filter(pk__lt=from_seal).order_by("-id").first()
    checked = 0
    while most_rows is None or checked < most_rows:
        seal = AuditSeal.objects.filter(pk__gt=before.pk if before is not None else 0).order_by("id").first()
        if seal is None:
            return
        yield seal, _broken(seal, before)
        checked += seal.rows
        before = seal


def _broken(seal: AuditSeal, before: AuditSeal | None) -> Broken | None:
    if seal.version != VERSION or _hash(seal) != seal.hash:
        return Broken(seal.pk, None, f"Seal {seal.pk} was changed.")
    if seal.previous_hash != (_GENESIS if before is None else before.hash):
        return Broken(seal.pk, None, f"A seal before seal {seal.pk} was removed or changed.")
    begins = (0, 0) if before is None or before.chain != seal.chain else (before.last_xid, before.last_id)
    ceiling = AuditSeal.objects.filter(chain=seal.chain + 1).values_list("floor_id", flat=True).first()
    sealed = list(_ENTRY.iter_unpack(bytes(seal.entries)))
    found = _covered(seal, begins, ceiling)
    known = {entry_id for entry_id, _ in sealed}
    for index, (entry_id, digest) in enumerate(sealed):
        if index >= len(found):
            return Broken(seal.pk, entry_id, f"Entry {entry_id} was removed.")
        found_id, found_digest = found[index]
        if found_id != entry_id:
            if found_id in known:
                return Broken(seal.pk, entry_id, f"Entry {entry_id} was removed.")
            return Broken(seal.pk, found_id, f"Entry {found_id} was added after its time.")
        if bytes(found_digest) != digest:
            return Broken(seal.pk, entry_id, f"Entry {entry_id} was changed.")
    if len(found) > len(sealed):
        return Broken(seal.pk, found[len(sealed)][0], f"Entry {found[len(sealed)][0]} was added after its time.")
    return None


def _covered(seal: AuditSeal, begins: tuple[int, int], ceiling: int | None) -> list[tuple[int, bytes]]:
    """Id and digest of the entries that stand where the seal was made, as they are now; one more at most."""
    where = f"{_RANGE} AND xid <= %s AND (xid, id) <= (%s, %s)"
    params: list[Any] = [begins[0], *begins, seal.floor_id, seal.last_xid, seal.last_xid, seal.last_id]
    if ceiling is not None:
        where += " AND id <= %s"
        params.append(ceiling)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, {_DIGEST} FROM operations_auditentry WHERE {where} ORDER BY xid, id LIMIT %s",  # noqa: S608
            [*params, seal.rows + 1],
        )
        return cursor.fetchall()


def check_some(*, most_rows: int = MOST_BATCHES * BATCH_ROWS) -> AuditVerification:
    """Go on with the scheduled check where it stopped last time, and begin anew at the end.

    What was found broken stays noted until that seal is found whole again.
    """
    state, _ = AuditVerification.objects.get_or_create(pk=1)
    reached_end = True
    rows = 0
    for seal, broken in check(from_seal=state.next_seal, most_rows=most_rows):
        rows += seal.rows
        reached_end = rows < most_rows
        state.next_seal = seal.pk + 1
        if broken is not None and (state.broken_seal is None or broken.seal <= state.broken_seal):
            if state.broken_why != broken.why:
                log.error("audit trail broken", seal=broken.seal, entry=broken.entry, why=broken.why)
                state.broken_since = timezone.now()
            state.broken_seal, state.broken_entry, state.broken_why = broken.seal, broken.entry, broken.why
        elif broken is None and state.broken_seal == seal.pk:
            state.broken_seal, state.broken_entry, state.broken_why, state.broken_since = None, None, "", None
    state.checked_at = timezone.now()
    if reached_end:
        state.next_seal = 0
        state.round_finished_at = state.checked_at
    state.save()
    return state
