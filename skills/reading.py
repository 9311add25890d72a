"""What the console shows of skills beyond what the API gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connection
from django.db.models import CharField, Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Cast

from opencrane.api.keyset import Keyset
from opencrane.api.params import parse_uuid
from policies.models import Grant
from skills import rules
from skills.models import SkillBundle, SkillPromotion

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="skill bundles in the console")
_Status, _Scan = SkillBundle.Status, SkillBundle.ScanStatus
_UNPUBLISHED = Q(status__in=[_Status.DRAFT, _Status.REVIEW])
QUEUE_ROWS = 20


def bundles_listed(filters: dict[str, str]) -> QuerySet[SkillBundle]:
    """Bundles that fit `q`, `status`, `scanStatus`, `scope`, `tag` and `name`, with `grant_count`; unordered."""
    about = Grant.objects.filter(payload_type="skill-bundle", payload_id=Cast(OuterRef("pk"), CharField())).order_by()
    counted = about.values("payload_id").annotate(many=Count("pk")).values("many")
    found = SkillBundle.objects.order_by().annotate(grant_count=Subquery(counted))
    if text := filters.get("q"):
        found = found.annotate(tag_text=Cast("tags", CharField()))
        found = found.filter(Q(name__icontains=text) | Q(description__icontains=text) | Q(tag_text__icontains=text))
    for name, column in (("status", "status"), ("scanStatus", "scan_status"), ("scope", "scope"), ("name", "name")):
        if name in filters:
            found = found.filter(**{column: filters[name]})
    return found.filter(tags__contains=[filters["tag"]]) if "tag" in filters else found


def facets() -> dict[str, dict[str, int]]:
    """How many bundles there are of each status, scan status and scope, and of the most used tags; one query."""
    found: dict[str, dict[str, int]] = {"status": {}, "scanStatus": {}, "scope": {}, "tag": {}}
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT CASE grouping(status, scan_status, scope) WHEN 3 THEN 'status' WHEN 5 THEN 'scanStatus'
                ELSE 'scope' END, coalesce(status, scan_status, scope), count(*)
            FROM skills_skillbundle GROUP BY GROUPING SETS ((status), (scan_status), (scope))
            UNION ALL (SELECT 'tag', tag, count(*) FROM skills_skillbundle, jsonb_array_elements_text(tags) tag
            GROUP BY tag ORDER BY count(*) DESC, tag LIMIT 50)"""
        )
        for facet, value, count in cursor.fetchall():
            found[facet][value] = count
    return found


@dataclass(frozen=True, slots=True)
class Queue:
    """One column of the review queue: what waits for the same thing, those waiting longest first."""

    key: str
    title: str
    why: str
    rows: list[SkillBundle]
    count: int

    @property
    def more(self) -> int:
        return self.count - len(self.rows)


_QUEUES: tuple[tuple[str, str, str, Q], ...] = (
    (
        "failed",
        "Needs a fix",
        "A scan has found something, or could not be made.",
        Q(scan_status__in=[_Scan.FAILED, _Scan.UNAVAILABLE]) & ~Q(status=_Status.DEPRECATED),
    ),
    ("review", "Waits for review", "The scan has passed; a person has been asked to look.",
     Q(status=_Status.REVIEW, scan_status=_Scan.PASSED)),
    ("ready", "Drafts that could go", "The scan has passed; nobody has been asked yet.",
     Q(status=_Status.DRAFT, scan_status=_Scan.PASSED)),
    ("scan", "Waits for its scan", "A worker will have looked soon.",
     Q(scan_status__in=[_Scan.PENDING, _Scan.SCANNING])),
    ("store", "Waits for the store", "Published, and not in the OCI store yet.",
     Q(status=_Status.PUBLISHED, oci_state__in=[SkillBundle.OciState.PENDING, SkillBundle.OciState.FAILED])),
)  # fmt: skip


def review_queues() -> list[Queue]:
    """The review queue by column; a query for the numbers and one for each column."""
    numbers = SkillBundle.objects.aggregate(**{key: Count("pk", filter=where) for key, _, _, where in _QUEUES})
    return [
        Queue(
            key,
            title,
            why,
            list(SkillBundle.objects.filter(where).order_by("updated_at", "pk")[:QUEUE_ROWS]) if numbers[key] else [],
            numbers[key],
        )
        for key, title, why, where in _QUEUES
    ]


def waiting_promotions() -> list[SkillPromotion]:
    """Promotions that somebody has to decide, the oldest first."""
    proposed = SkillPromotion.objects.filter(status=SkillPromotion.Status.PROPOSED).select_related("bundle")
    return list(proposed.defer("bundle__content").order_by("created_at", "pk")[:QUEUE_ROWS])


def names_of(payload_ids: Sequence[str]) -> dict[str, str]:
    """`name@version` of bundles that grants are about, by the grants' payload id."""
    ids = [found for text in payload_ids if (found := parse_uuid(text))]
    rows = SkillBundle.objects.filter(pk__in=ids).values_list("pk", "name", "version") if ids else []
    return {str(pk): f"{name}@{version}" for pk, name, version in rows}


def text_of(bundle_id: UUID) -> str | None:
    """The content of a bundle that is text; None for any other, and without content."""
    found = SkillBundle.objects.filter(pk=bundle_id).values_list("content", "content_type").first()
    if found is None or found[0] is None or not rules.is_text(found[1]):
        return None
    return bytes(found[0]).decode("utf-8", "replace")
