"""What the tenants app refuses."""

from opencrane.errors import ConflictError, DomainError, NotFoundError, UpstreamError


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


class ClusterTenantNotFoundError(NotFoundError):
    code, default_message = "CLUSTER_TENANT_NOT_FOUND", "There is no cluster tenant of that name."


class ClusterTenantExistsError(ConflictError):
    code, default_message = "CLUSTER_TENANT_EXISTS", "There is a cluster tenant of that name already."


class ClusterTenantInUseError(ConflictError):
    default_message = "Tenants refer to the cluster tenant."


class TierUnavailableError(DomainError):
    """No provisioner serves the isolation tier."""

    code, http_status = "TIER_UNAVAILABLE", 422
    default_message = "No provisioner serves this isolation tier."
