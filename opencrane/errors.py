"""What OpenCrane refuses, and how that reads to a caller.

Services raise `DomainError` subclasses; one exception handler turns them, and every framework error, into the
envelope `{"error", "code", "detail"?, "fields"?}`. Callers branch on `code`, never on the sentence.
"""

from collections.abc import Mapping, Sequence


class DomainError(Exception):
    """A request that cannot be fulfilled, for a reason the caller can act on.

    Attributes:
        code: machine-readable, UPPER_SNAKE; public and never renamed.
        http_status: 4xx for what the caller can mend, 502 to 504 for a dependency.
        message: one sentence for people.
        detail: what to do next, or facts beyond the sentence. Never a secret.
        fields: JSON path of each offending field, with the reasons.
    """

    code = "INTERNAL_ERROR"
    http_status = 500
    default_message = "The request failed."

    def __init__(
        self,
        message: str = "",
        *,
        detail: str = "",
        fields: Mapping[str, Sequence[str]] | None = None,
        code: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or self.default_message
        self.detail = detail
        self.fields = {path: list(reasons) for path, reasons in (fields or {}).items()}
        self.headers = dict(headers or {})
        if code:
            self.code = code
        super().__init__(self.message)

    def envelope(self) -> dict[str, object]:
        """The JSON body of the error response."""
        body: dict[str, object] = {"error": self.message, "code": self.code}
        if self.detail:
            body["detail"] = self.detail
        if self.fields:
            body["fields"] = self.fields
        return body


class InvalidError(DomainError):
    """The body, a parameter or the JSON itself is wrong."""

    code, http_status, default_message = "VALIDATION_ERROR", 400, "The request is not valid."


class InvalidCursorError(DomainError):
    code, http_status, default_message = "INVALID_CURSOR", 400, "The cursor is not one this server gave out."


class UnauthorizedError(DomainError):
    """No credential, or a bad, expired or revoked one."""

    code, http_status = "UNAUTHORIZED", 401
    default_message = "Credentials are missing or not valid."

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message, detail=detail, headers={"WWW-Authenticate": "Bearer"})


class ForbiddenError(DomainError):
    """A known caller who may not do this."""

    code, http_status, default_message = "FORBIDDEN", 403, "You may not do this."


class NotFoundError(DomainError):
    code, http_status, default_message = "NOT_FOUND", 404, "There is nothing here."


class ConflictError(DomainError):
    code, http_status, default_message = "CONFLICT", 409, "The present state does not allow this."


class PreconditionFailedError(DomainError):
    """`If-Match` was given and is stale (RFC 9110, 13.1.1)."""

    code, http_status = "PRECONDITION_FAILED", 412
    default_message = "The object has changed since it was read."


class ReferenceNotFoundError(DomainError):
    """A field names something that does not exist."""

    code, http_status, default_message = "REFERENCE_NOT_FOUND", 422, "A reference names nothing that exists."


class ClusterRejectedError(DomainError):
    """The cluster refused for good: schema, admission or permissions."""

    code, http_status, default_message = "CLUSTER_REJECTED", 422, "The cluster refused the change."


class UpstreamError(DomainError):
    """A dependency answered with a failure, or is known to be away."""

    code, http_status, default_message = "UPSTREAM_ERROR", 502, "A dependency failed."


class DependencyUnavailableError(DomainError):
    code, http_status, default_message = "DEPENDENCY_UNAVAILABLE", 503, "A dependency is not available."


class DependencyNotConfiguredError(DomainError):
    code, http_status, default_message = "DEPENDENCY_NOT_CONFIGURED", 503, "A dependency is not configured."


class TimedOutError(DomainError):
    """Not confirmed in time; the write stays queued and will land."""

    code, http_status = "TIMEOUT", 504
    default_message = "The cluster has not confirmed the change in time."
