"""Files that jobs make: written to the database part by part, at any size, and kept for some days.

A job that makes a file ends with the result `{"rows", "bytes", "file"}` and has its format in `params["format"]`.
"""

import csv
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from opencrane.errors import NotFoundError
from operations.models import Job, JobChunk

FORMATS = ("jsonl", "csv")
MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
KEPT = timedelta(days=7)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class FileWriter:
    """The file of a running job; what an earlier run that was cut short left behind is dropped.

    Attributes:
        size: bytes so far, uncompressed.
    """

    def __init__(self, job_id: UUID) -> None:
        self._job_id = job_id
        self._number = 0
        self.size = 0
        JobChunk.objects.filter(job_id=job_id).delete()

    @transaction.atomic
    def write(self, text: str) -> None:
        """Add a part."""
        raw = text.encode()
        # A second worker that took over writes the same part again.
        JobChunk.objects.update_or_create(
            job_id=self._job_id, number=self._number, defaults={"content": zlib.compress(raw)}
        )
        self._number += 1
        self.size += len(raw)


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of values as CSV; nothing in it is a formula to a spreadsheet."""
    out = io.StringIO()
    csv.writer(out).writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def file_of(job: Job) -> tuple[str, str, Iterator[bytes]]:
    """Name, media type and parts of the file that a job made.

    Raises:
        NotFoundError: the job is no finished export, or its file was dropped.
    """
    if job.status != Job.Status.SUCCEEDED or not isinstance(job.result, dict) or "file" not in job.result:
        raise NotFoundError("This job has no file.")
    parts = JobChunk.objects.filter(job=job).count()
    if not parts and job.result["bytes"]:
        raise NotFoundError("The file was dropped.", detail=f"Files are kept for {KEPT.days} days; export again.")
    return job.result["file"], MEDIA_TYPES[job.params["format"]], _parts(job.pk, parts)


def has_file(job: Job) -> bool:
    """Whether `file_of` would give one."""
    return job.status == Job.Status.SUCCEEDED and JobChunk.objects.filter(job=job).exists()


def purge_files() -> None:
    """Drop files older than KEPT."""
    JobChunk.objects.filter(created_at__lt=Now() - KEPT).delete()


def _parts(job_id: UUID, count: int) -> Iterator[bytes]:
    for number in range(count):
        content = JobChunk.objects.filter(job_id=job_id, number=number).values_list("content", flat=True).get()
        yield zlib.decompress(bytes(content))
