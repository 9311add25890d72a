"""Export of the audit trail as a job: JSON lines or CSV, written to the database part by part, at any size."""

import csv
import io
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction
from django.db.models.functions import Now

from opencrane.actor import Actor
from opencrane.api.keyset import Page
from opencrane.errors import NotFoundError
from operations import audit_pages, jobs
from operations.audit_pages import AuditFilter
from operations.jobs import JobRun
from operations.models import Job, JobChunk
from operations.services.jobs import start_job

KIND = "audit.export"
FORMATS = ("jsonl", "csv")
MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
KEPT = timedelta(days=7)
_PAGE_ROWS = 1000
COLUMNS = (
    "timestamp", "id", "tenant", "tenantId", "action", "resource", "message", "actorKind", "actorName", "actorToken",
    "address", "requestId", "before", "after",
)  # fmt: skip
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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
    # A run that was cut short left parts behind.
    JobChunk.objects.filter(job_id=job.id).delete()
    number = rows = size = 0
    if params["format"] == "csv":
        size += _write(job.id, number, _csv([list(COLUMNS)]))
        number += 1
    cursor: str | None = None
    while True:
        after, state = audit_pages.NEWEST.decode(cursor) if cursor else (None, None)
        page = audit_pages.audit_page(AuditFilter(**filters), Page(_PAGE_ROWS, after, state))
        entries = orjson.loads(page.entries)
        if entries:
            size += _write(job.id, number, lines(entries))
            number += 1
            rows += len(entries)
        job.progress(rows, None)
        job.checkpoint()
        cursor = page.next_cursor
        if cursor is None:
            break
    job.progress(rows, rows)
    return {"rows": rows, "bytes": size, "file": f"audit-{str(job.id)[:8]}.{params['format']}"}


def file_of(job: Job) -> tuple[str, str, Iterator[bytes]]:
    """Name, media type and parts of the file that an export made.

    Raises:
        NotFoundError: the job is no finished export, or its file was dropped.
    """
    if job.kind != KIND or job.status != Job.Status.SUCCEEDED or not isinstance(job.result, dict):
        raise NotFoundError("This job has no file.")
    parts = JobChunk.objects.filter(job=job).count()
    if not parts and job.result["bytes"]:
        raise NotFoundError("The file was dropped.", detail=f"Files are kept for {KEPT.days} days; export again.")
    return job.result["file"], MEDIA_TYPES[job.params["format"]], _parts(job.pk, parts)


def has_file(job: Job) -> bool:
    """Whether `file_of` would give one."""
    return job.kind == KIND and job.status == Job.Status.SUCCEEDED and JobChunk.objects.filter(job=job).exists()


def purge_files() -> None:
    """Drop files older than KEPT."""
    JobChunk.objects.filter(created_at__lt=Now() - KEPT).delete()


def _parts(job_id: UUID, count: int) -> Iterator[bytes]:
    for number in range(count):
        content = JobChunk.objects.filter(job_id=job_id, number=number).values_list("content", flat=True).get()
        yield zlib.decompress(bytes(content))


@transaction.atomic
def _write(job_id: UUID, number: int, text: str) -> int:
    raw = text.encode()
    # A second worker that took over writes the same part again.
    JobChunk.objects.update_or_create(job_id=job_id, number=number, defaults={"content": zlib.compress(raw)})
    return len(raw)


def _json_lines(entries: list[dict[str, Any]]) -> str:
    return "".join(orjson.dumps(entry).decode() + "\n" for entry in entries)


def _csv_lines(entries: list[dict[str, Any]]) -> str:
    return _csv([_cells(entry) for entry in entries])


def _cells(entry: dict[str, Any]) -> list[str]:
    actor = entry["actor"]
    flat = entry | {
        "actorKind": actor["kind"],
        "actorName": actor["name"],
        "actorToken": actor.get("token"),
        "before": _json(entry["before"]),
        "after": _json(entry["after"]),
    }
    return [_cell(flat[name]) for name in COLUMNS]


def _json(value: Any) -> str:
    return "" if value is None else orjson.dumps(value).decode()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()
