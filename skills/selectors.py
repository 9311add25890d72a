"""Reading skill bundles."""

import contextlib
import datetime
from typing import Any, TypeAlias
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from opencrane.api.keyset import Keyset, Page
from opencrane.api.params import parse_uuid
from opencrane.api.pasted import like
from opencrane.api.responses import to_json
from opencrane.rows import one
from policies.payload_listing import GRANTS, Conditions, PayloadListing
from skills import rules
from skills.errors import SkillBundleNotFoundError
from skills.models import SkillBundle
from skills.scanning.findings import is_about_secret

Bundles: TypeAlias = QuerySet[SkillBundle]
NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="skill bundles")

# A cast and row_to_json take two thirds of the time of to_char and json_build_object; see tenants/selectors.py.
_TIME = "replace(({column} AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z'"
# What most bundles have nothing to say about is pasted in as text.
_SCAN = f"""'"scan":{{"at":' || coalesce('"' || {_TIME.format(column="b.scanned_at")} || '"', 'null') || ',"error":'
    || CASE WHEN b.scan_error = '' THEN 'null' ELSE to_json(b.scan_error)::text END || ',"severities":'
    || b.severities::text || '}}'"""
_OCI = f"""CASE WHEN b.oci_state = 'none' AND b.oci_error = '' THEN
    '"oci":{{"state":"none","digest":null,"reference":null,"error":null,"attempts":0,"pushedAt":null}}'
    ELSE '"oci":' || (SELECT row_to_json(oci) FROM (SELECT b.oci_state AS state, nullif(b.oci_digest, '') AS digest,
    nullif(b.oci_reference, '') AS reference, nullif(b.oci_error, '') AS error, b.oci_attempts AS attempts,
    {_TIME.format(column="b.oci_pushed_at")} AS "pushedAt") AS oci)::text END"""  # noqa: S608 - constants
_FIELDS = f"""b.id, b.name, nullif(b.description, '') AS description, b.version, b.digest, b.scope, b.status, b.tags,
    nullif(b.source_name, '') AS "sourceName", {_TIME.format(column="b.published_at")} AS "publishedAt",
    b.content_type AS "contentType", b.content_size AS "contentSize", b.scan_status AS "scanStatus",
    {_TIME.format(column="b.created_at")} AS "createdAt", {_TIME.format(column="b.updated_at")} AS "updatedAt"
"""
# A materialised page with the content in it would be as large as all contents.
_COLUMNS = ", ".join(f"b.{field.column}" for field in SkillBundle._meta.concrete_fields if field.name != "content")
_BUNDLES = PayloadListing(
    NEWEST,
    table="skills_skillbundle b",
    columns=_COLUMNS,
    payload_type="skill-bundle",
    lists=f"""promoted AS (
        SELECT p.bundle_id, json_agg(json_build_object('id', p.id, 'fromScope', p.from_scope, 'toScope', p.to_scope,
            'promotedBy', nullif(p.promoted_by, ''), 'status', p.status, 'notes', nullif(p.notes, ''),
            'createdAt', {_TIME.format(column="p.created_at")}) ORDER BY p.created_at, p.id)::text AS list
        FROM skills_skillpromotion p WHERE p.bundle_id IN (SELECT id FROM page) GROUP BY p.bundle_id
    )""",  # noqa: S608 - constants
    item=f"""left((SELECT row_to_json(fields) FROM (SELECT {_FIELDS}) AS fields)::text, -1) || ',' || {_SCAN}
        || ',' || {_OCI} || {GRANTS} || ',"promotions":' || coalesce(promoted.list, '[]')""",  # noqa: S608 - constants
    joins="LEFT JOIN promoted ON promoted.bundle_id = b.id",
)
_FINDINGS = """',"scanners":' || b.scanners::text || ',"findings":' || coalesce((SELECT json_agg(json_build_object(
    'scanner', f.scanner, 'rule', f.rule, 'severity', f.severity, 'path', nullif(f.path, ''), 'line', f.line,
    'message', f.message) ORDER BY f.position) FROM skills_scanfinding f WHERE f.bundle_id = b.id)::text, '[]')"""


def bundle_page(filters: dict[str, str], page: Page) -> tuple[bytes, str]:
    """One page of bundles without their content, newest first, as JSON text in one query; and the next cursor.

    Args:
        filters: any of `q` (name, description, tags), `scope`, `status`, `tag`, `scan_status`, `name`.
    """
    return _BUNDLES.page(_conditions(filters), page)


def _conditions(filters: dict[str, str]) -> Conditions:
    found: Conditions = []
    if text := filters.get("q"):
        looked_in = "(b.name ILIKE %s OR b.description ILIKE %s OR b.tags::text ILIKE %s)"
        found.append((looked_in, [like(text)] * 3))
    for column in ("scope", "status", "scan_status", "name"):
        if column in filters:
            found.append((f"b.{column} = %s", [filters[column]]))
    if "tag" in filters:
        found.append(("b.tags @> %s::jsonb", [to_json([filters["tag"]]).decode()]))
    return found


def bundle_json(bundle_id: UUID | None, *, with_content: bool = True, may_act: bool = False) -> tuple[bytes, int]:
    """One bundle with its findings as JSON text, and its generation.

    Args:
        with_content: whether `content` (text) or `contentBase64` (anything else) is in it, and `contentWithheld`.
        may_act: whether it is for somebody who may act on what a scan has found; see `why_withheld`.

    Raises:
        SkillBundleNotFoundError
    """
    found = _BUNDLES.one(bundle_id, _FINDINGS)
    if found is None or bundle_id is None:
        raise SkillBundleNotFoundError
    body, generation = found
    if with_content:
        is_withheld = not may_act and bool(why_withheld(bundle_by_id(bundle_id)))
        content = None
        if not is_withheld:
            content = SkillBundle.objects.filter(pk=bundle_id).values_list("content", "content_type").first()
        body = body[:-1] + b"," + to_json(_shown_content(content) | {"contentWithheld": is_withheld})[1:]
    return body, generation


def why_withheld(bundle: SkillBundle) -> str:
    """Why a bundle's content is for those alone who may act on it, as a sentence; empty when it is for all.

    It is theirs while no scan of it has come to its end, and afterwards if there is a secret in it.
    """
    if bundle.content_size is None:
        return ""
    has_crashed = bundle.scan_status == SkillBundle.ScanStatus.FAILED and bool(bundle.scan_error)
    if any(is_about_secret(*found) for found in bundle.findings.values_list("scanner", "rule")):
        return "A scan has found a secret in it; operators can take it out, and have it replaced where it is used."
    if bundle.scanned_at is None or has_crashed:
        return "No scan of it has come to its end."
    return ""


def _shown_content(found: tuple[bytes | memoryview | None, str] | None) -> dict[str, Any]:
    content, content_type = found or (None, "")
    if content is None:
        return {"content": None, "contentBase64": None}
    if rules.is_text(content_type):
        with contextlib.suppress(UnicodeDecodeError):
            return {"content": bytes(content).decode(), "contentBase64": None}
    return {"content": None, "contentBase64": rules.encoded(bytes(content))}


def bundle_for_update(bundle_id: UUID | None) -> SkillBundle:
    """The bundle without its content, its row locked until the transaction ends.

    Raises:
        SkillBundleNotFoundError
    """
    return one(SkillBundle.objects.select_for_update(), SkillBundleNotFoundError, pk=bundle_id)


def bundle_by_id(bundle_id: UUID | None) -> SkillBundle:
    """The bundle without its content.

    Raises:
        SkillBundleNotFoundError
    """
    return one(SkillBundle.objects, SkillBundleNotFoundError, pk=bundle_id)


def bundle_named(text: str) -> SkillBundle | None:
    """The bundle with that id; else `name@version`; else the newest published version of that name, else the newest."""
    bundle_id = parse_uuid(text)
    if bundle_id is not None:
        return SkillBundle.objects.filter(pk=bundle_id).first()
    found = list(SkillBundle.objects.filter(name=text))
    if not found:
        return bundle_at(text)
    return max(found, key=lambda row: (row.status == SkillBundle.Status.PUBLISHED, rules.version_key(row.version)))


def bundle_at(text: str) -> SkillBundle | None:
    """The bundle that `name@version` stands for: no version has an `@` in it."""
    name, _, version = text.rpartition("@")
    return SkillBundle.objects.filter(name=name, version=version).first()


def bundles_by_id(ids: list[str]) -> dict[str, SkillBundle]:
    """Those of the bundles that there are, without their content, by id as text."""
    known = [found for text in ids if (found := parse_uuid(text))]
    rows = SkillBundle.objects.filter(pk__in=known) if known else []
    return {str(row.pk): row for row in rows}


def content_of(bundle_id: UUID, digest: str) -> bytes | None:
    """The content that a row holds, if it still is the one with that digest."""
    content = SkillBundle.objects.filter(pk=bundle_id, digest=digest).values_list("content", flat=True).first()
    return None if content is None else bytes(content)


def scans_due(now: datetime.datetime, limit: int) -> list[UUID]:
    """Bundles whose scan waits, or was lost with its worker; those waiting longest first."""
    waiting = [SkillBundle.ScanStatus.PENDING, SkillBundle.ScanStatus.SCANNING]
    due = SkillBundle.objects.filter(scan_status__in=waiting, scan_not_before__lte=now)
    return list(due.order_by("scan_not_before").values_list("pk", flat=True)[:limit])


def versions_of(name: str) -> list[SkillBundle]:
    """Every version of a skill, the highest first (semver.org, 11)."""
    return sorted(SkillBundle.objects.filter(name=name), key=lambda row: rules.version_key(row.version), reverse=True)


def entitled_bundles(ids: list[str], allowlist: list[str] | None) -> list[dict[str, Any]]:
    """Those of the bundles that are published and cleared by a scan, as the effective contract has them.

    Args:
        allowlist: names that the tenant restricts itself to; None for no restriction.

    Returns:
        Sorted by name, then by version.
    """
    if not ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id::text, name, scope, version, digest FROM skills_skillbundle"
            " WHERE id = ANY(%s::uuid[]) AND status = 'published' AND is_cleared"
            " AND (%s::text[] IS NULL OR name = ANY(%s::text[]))",
            [ids, allowlist, allowlist],
        )
        rows = cursor.fetchall()
    rows.sort(key=lambda row: (row[1], rules.version_key(row[3])))
    return [dict(zip(("id", "name", "scope", "version", "digest"), row, strict=True)) for row in rows]
