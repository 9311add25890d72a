"""What the tenants app refuses."""

from opencrane.errors import ConflictError, NotFoundError, UpstreamError


class TenantNotFoundError(NotFoundError):
    code, default_message = "TENANT_NOT_FOUND", "There is no tenant of that name."


class TenantExistsError(ConflictError):
    code, default_message = "TENANT_EXISTS", "There is a tenant of that name already."


class RetainedDataError(ConflictError):
    code, default_message = "DATA_RETAINED", "A deleted tenant of that name has left data in the cluster."


class RetainedDataNotFoundError(NotFoundError):
    code, default_message = "RETAINED_DATA_NOT_FOUND", "There is no such retained data."


class CogneeError(UpstreamError):
    """Cognee did not take the dataset permissions; nothing changed here."""

    default_message = "Cognee did not accept the dataset permissions; nothing was changed."
