"""What the console shows of the OCI store."""

from django.db.models import Count, QuerySet

from operations.models import Job
from skills.models import SkillBundle

BACKFILL = "skills.backfill"


def published_by_state() -> dict[str, int]:
    """How many published bundles are in which state of the store."""
    rows = SkillBundle.objects.filter(status=SkillBundle.Status.PUBLISHED).order_by().values("oci_state")
    return {row["oci_state"]: row["many"] for row in rows.annotate(many=Count("pk"))}


def published_in(state: str) -> QuerySet[SkillBundle]:
    """Published bundles in one state; without one, those that are not in the store though they should be. Unordered."""
    found = SkillBundle.objects.filter(status=SkillBundle.Status.PUBLISHED).order_by()
    return found.filter(oci_state=state) if state else found.exclude(oci_state=SkillBundle.OciState.PUSHED)


def last_backfill() -> Job | None:
    """The newest backfill, if there ever was one."""
    return Job.objects.filter(kind=BACKFILL).order_by("-created_at").first()
