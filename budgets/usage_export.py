"""Export of the ledger as a job: JSON lines or CSV, written to the database part by part, at any size."""

import datetime
from dataclasses import asdict
from typing import Any
from uuid import UUID

import orjson

from budgets import selectors
from budgets.selectors import UsageFilter
from opencrane.actor import Actor
from opencrane.api.keyset import Page
from operations import job_files, jobs
from operations.jobs import JobRun
from operations.models import Job
from operations.services.jobs import start_job

KIND = "budgets.export"
COLUMNS = (
    "recordedAt", "tenant", "tenantId", "model", "inputTokens", "outputTokens", "totalCostUsd", "requestId", "origin",
    "correctedAt",
)  # fmt: skip
_PAGE_ROWS = 1000


def start_export(*, wanted: UsageFilter, file_format: str, actor: Actor) -> Job:
    """Queue the export of the records that fit; its job page offers the file.

    Args:
        file_format: `jsonl` or `csv`.
    """
    filters = {name: value for name, value in asdict(wanted).items() if value}
    for name, value in filters.items():
        if isinstance(value, datetime.datetime):
            filters[name] = value.isoformat()
        elif isinstance(value, UUID):
            filters[name] = str(value)
    return start_job(kind=KIND, params={"format": file_format, "filter": filters}, actor=actor)


@jobs.register(KIND)
def run(job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Write the file. Holds one page of the ledger and one part of the file at a time."""
    filters = dict(params["filter"])
    for name in ("since", "until"):
        if name in filters:
            filters[name] = datetime.datetime.fromisoformat(filters[name])
    if "tenant_id" in filters:
        filters["tenant_id"] = UUID(filters["tenant_id"])
    wanted = UsageFilter(**filters)
    is_csv = params["format"] == "csv"
    file = job_files.FileWriter(job.id)
    if is_csv:
        file.write(job_files.csv_lines([COLUMNS]))
    rows, cursor = 0, ""
    while True:
        after, _ = selectors.USAGE_NEWEST.decode(cursor) if cursor else (None, None)
        body, cursor = selectors.usage_page(wanted, Page(_PAGE_ROWS, after))
        records = orjson.loads(body)
        if records:
            text = (
                job_files.csv_lines([[record[name] for name in COLUMNS] for record in records])
                if is_csv
                else "".join(orjson.dumps(record).decode() + "\n" for record in records)
            )
            file.write(text)
            rows += len(records)
        job.progress(rows, None)
        job.checkpoint()
        if not cursor:
            break
    job.progress(rows, rows)
    return {"rows": rows, "bytes": file.size, "file": f"usage-{str(job.id)[:8]}.{params['format']}"}
