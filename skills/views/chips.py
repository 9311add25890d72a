"""Words, colours and icons for what a bundle is and how far it has come."""

from collections.abc import Mapping
from typing import Any

from skills.models import SkillBundle
from skills.scanning.findings import SEVERITIES

Chip = tuple[str, str, str]
STATUS: dict[str, Chip] = {
    "draft": ("muted", "edit_note", "Draft"),
    "review": ("info", "rate_review", "In review"),
    "published": ("ok", "verified", "Published"),
    "deprecated": ("warn", "archive", "Deprecated"),
}
SCAN: dict[str, Chip] = {
    "pending": ("info", "hourglass_top", "Waits for scan"),
    "scanning": ("info", "progress_activity", "Being scanned"),
    "passed": ("ok", "check_circle", "Scan passed"),
    "failed": ("bad", "gpp_bad", "Scan failed"),
    "unavailable": ("warn", "help", "Cannot be scanned"),
}
OCI: dict[str, Chip] = {
    "none": ("muted", "inventory_2", "Not in the store"),
    "pending": ("info", "cloud_upload", "On its way to the store"),
    "pushed": ("ok", "cloud_done", "In the store"),
    "failed": ("bad", "cloud_off", "Push failed"),
}
SEVERITY: dict[str, Chip] = {
    "critical": ("bad", "dangerous", "Critical"),
    "high": ("bad", "error", "High"),
    "medium": ("warn", "warning", "Medium"),
    "low": ("muted", "info", "Low"),
    "info": ("muted", "info", "Info"),
}


def counted(severities: Mapping[str, int]) -> str:
    """`2 critical, 1 low`, the worst first; empty for none."""
    return ", ".join(f"{severities[name]} {name}" for name in SEVERITIES if name in severities)


def chips_of(bundle: SkillBundle) -> dict[str, Any]:
    """The chips of one bundle, for templates."""
    return {
        "status": STATUS[bundle.status],
        "scan": SCAN[bundle.scan_status],
        "found": counted(bundle.severities),
        "oci": OCI[bundle.oci_state],
    }


def size_of(size: int | None) -> str:
    """`12.3 kB`, as people read it."""
    if size is None:
        return "no content"
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
