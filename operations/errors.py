"""What operations refuses."""

from opencrane.errors import ConflictError, DomainError, NotFoundError


class JobNotFoundError(NotFoundError):
    default_message = "There is no such job."


class JobConflictError(ConflictError):
    """A job of the same exclusive key is under way."""

    default_message = "The same work is already under way."


class JobNotCancellableError(ConflictError):
    default_message = "The job has already ended."


class JobNotRetryableError(ConflictError):
    default_message = "Only a job that has failed, was cancelled, or has failed items can be retried."


class JobCancelledError(Exception):
    """Raised inside a runner by `checkpoint()`; the job ends as cancelled."""


class JobLostError(Exception):
    """Raised inside a runner whose job now belongs to another worker; it must stop without a trace."""


class WebhookNotFoundError(NotFoundError):
    default_message = "There is no such webhook."


class WebhookExistsError(ConflictError):
    code, default_message = "WEBHOOK_EXISTS", "There is a webhook of that name already."


class DeliveryNotFoundError(NotFoundError):
    default_message = "The webhook has no such delivery."


class DnsProviderMisconfiguredError(DomainError):
    """The provider needs something else than what was given."""

    code, http_status = "DNS_PROVIDER_MISCONFIGURED", 422
    default_message = "The DNS provider is not configured completely."
