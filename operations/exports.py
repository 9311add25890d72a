"""Exports as jobs: a listing as JSON lines or CSV, written to the database part by part, at any size."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import orjson

from opencrane.actor import Actor
from opencrane.api.keyset import Keyset, Page
from operations import job_files, jobs
from operations.jobs import JobRun
from operations.models import Job
from operations.services.jobs import start_job

PAGE_ROWS = 1000
Record = dict[str, Any]


def _all(record: Record) -> Record:
    return record


@dataclass(frozen=True)
class Export:
    """One listing that can be had as a file.

    Attributes:
        kind: of its jobs.
        stem: what its files are called.
        filters: a dataclass, what to look for: text, times, UUIDs and flags, each empty when it leaves a field open.
        columns: of CSV; JSON lines have what the API shows.
        keyset: the order.
        read: a page of what fits, as a JSON array, and the cursor of the next one, or nothing.
        flat: a record with its columns as plain values.
    """

    kind: str
    stem: str
    filters: type[Any]
    columns: Sequence[str]
    keyset: Keyset
    read: Callable[[Any, Page], tuple[bytes, str | None]]
    flat: Callable[[Record], Record] = _all

    def start(self, *, wanted: Any, file_format: str, actor: Actor) -> Job:
        """Queue the export of what fits; its job page offers the file.

        Args:
            wanted: one of `filters`.
            file_format: `jsonl` or `csv`.
        """
        filters = {name: _packed(value) for name, value in asdict(wanted).items() if value not in {None, "", False}}
        return start_job(kind=self.kind, params={"format": file_format, "filter": filters}, actor=actor)

    def run(self, job: JobRun, params: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """The runner. Holds one page of the listing and one part of the file at a time."""
        wanted = self.filters(**{name: _unpacked(name, value) for name, value in params["filter"].items()})
        is_csv = params["format"] == "csv"
        file = job_files.FileWriter(job.id)
        if is_csv:
            file.write(job_files.csv_lines([self.columns]))
        rows, page = 0, Page(PAGE_ROWS, None)
        while True:
            body, cursor = self.read(wanted, page)
            records: list[Record] = orjson.loads(body)
            if records:
                file.write(self._csv(records) if is_csv else _json_lines(records))
                rows += len(records)
            job.progress(rows, None)
            job.checkpoint()
            if not cursor:
                break
            page = Page(PAGE_ROWS, *self.keyset.decode(cursor))
        job.progress(rows, rows)
        return {"rows": rows, "bytes": file.size, "file": f"{self.stem}-{str(job.id)[:8]}.{params['format']}"}

    def _csv(self, records: list[Record]) -> str:
        return job_files.csv_lines([flat[name] for name in self.columns] for flat in map(self.flat, records))


def register(export: Export) -> None:
    """Make workers able to run it."""
    jobs.register(export.kind)(export.run)


def _json_lines(records: list[Record]) -> str:
    return "".join(orjson.dumps(record).decode() + "\n" for record in records)


def _packed(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _unpacked(name: str, value: Any) -> Any:
    match name:
        case "since" | "until":
            return datetime.datetime.fromisoformat(value)
        case "tenant_id":
            return UUID(value)
    return value
