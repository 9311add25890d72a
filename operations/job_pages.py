"""Jobs and their items as the API shows them."""

from typing import Any

from django.http import StreamingHttpResponse

from operations import job_files
from operations.models import Job, JobItem


def job_as_json(job: Job) -> dict[str, Any]:
    """Everything about a job but its items."""
    return {
        "id": job.pk,
        "kind": job.kind,
        "status": job.status,
        "done": job.done,
        "total": job.total,
        "params": job.params,
        "result": job.result,
        "error": job.error,
        "cancelRequested": job.cancel_requested,
        "retryOf": job.retry_of_id,
        "createdBy": job.actor_name,
        "createdAt": job.created_at,
        "startedAt": job.started_at,
        "finishedAt": job.finished_at,
    }


def item_as_json(item: JobItem) -> dict[str, Any]:
    """What became of one thing."""
    return {"key": item.key, "outcome": item.outcome, "message": item.message, "detail": item.detail}


def file_response(job: Job) -> StreamingHttpResponse:
    """The file that a job made, part by part.

    Raises:
        NotFoundError: it made none, or the file was dropped.
    """
    name, media_type, parts = job_files.file_of(job)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(parts, content_type=media_type, headers=headers)
