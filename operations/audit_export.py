"""Export of the audit trail as a job: JSON lines or CSV, written to the database part by part, at any size."""

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from opencrane.actor import Actor
from opencrane.api.keyset import Page
from operations import audit_pages, jobs
from operations.audit_pages import AuditFilter
from operations.job_files import FileWriter, csv_lines
from operations.jobs import JobRun
from operations.models import Job
from operations.services.jobs import start_job

KIND = "audit.export"
_PAGE_ROWS = 1000
COLUMNS = (
    "timestamp", "id", "tenant", "tenantId", "action", "resource", "message", "actorKind", "actorName", "actorToken",
    "address", "requestId", "before", "after",
)  # fmt: skip


def start_export(*, wanted: AuditFilter, file_format: str, actor: Actor) -> Job:
    """Queue the export of the entries that fit; its job page offers the file.

    Args:
        file_format: `jsonl` or `csv`.
    """
    filters = {name: value for name, value in asdict(wanted).items() if value is not None}
    for name, value in filters.items():
        if isinstance(value, UUID | datetime):
            filters[name] = value.isoformat() if isinstance(value, datetime) else str(value)
    return start_job(kind=KIND, params={"format": file_format, "filter": filters}, actor=actor)


@jobs.register(KIND)
def run(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Write the file. Holds one page of the trail and one part of the file at a time."""
    filters = dict(params["filter"])
    for name in ("since", "until"):
        if name in filters:
            filters[name] = datetime.fromisoformat(filters[name])
    if "tenant_id" in filters:
        filters["tenant_id"] = UUID(filters["tenant_id"])
    lines = _json_lines if params["format"] == "jsonl" else _csv_lines
    file, rows = FileWriter(job.id), 0
    if params["format"] == "csv":
        file.write(csv_lines([COLUMNS]))
    cursor: str | None = None
    while True:
        after, state = audit_pages.NEWEST.decode(cursor) if cursor else (None, None)
        page = audit_pages.audit_page(AuditFilter(**filters), Page(_PAGE_ROWS, after, state))
        entries = orjson.loads(page.entries)
        if entries:
            file.write(lines(entries))
            rows += len(entries)
        job.progress(rows, None)
        job.checkpoint()
        cursor = page.next_cursor
        if cursor is None:
            break
    job.progress(rows, rows)
    return {"rows": rows, "bytes": file.size, "file": f"audit-{str(job.id)[:8]}.{params['format']}"}


def _json_lines(entries: list[dict[str, Any]]) -> str:
    return "".join(orjson.dumps(entry).decode() + "\n" for entry in entries)


def _csv_lines(entries: list[dict[str, Any]]) -> str:
    return csv_lines(_cells(entry) for entry in entries)


def _cells(entry: dict[str, Any]) -> list[Any]:
    actor = entry["actor"]
    flat = entry | {
        "actorKind": actor["kind"],
        "actorName": actor["name"],
        "actorToken": actor.get("token"),
        "before": _json(entry["before"]),
        "after": _json(entry["after"]),
    }
    return [flat[name] for name in COLUMNS]


def _json(value: Any) -> str:
    return "" if value is None else orjson.dumps(value).decode()
