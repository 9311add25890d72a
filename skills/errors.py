"""What the skills app refuses."""

from opencrane.errors import ConflictError, DomainError, NotFoundError


class SkillBundleNotFoundError(NotFoundError):
    code, default_message = "SKILL_BUNDLE_NOT_FOUND", "There is no such skill bundle."


class SkillBundleExistsError(ConflictError):
    code, default_message = "SKILL_BUNDLE_EXISTS", "There is a bundle of that name and version already."


class BundleImmutableError(ConflictError):
    code = "BUNDLE_IMMUTABLE"
    default_message = "What has been published never changes; make a new version."


class ScanRequiredError(DomainError):
    code, http_status = "SCAN_REQUIRED", 422
    default_message = "Only a bundle whose scan has passed can be published."


class OciStoreNotConfiguredError(ConflictError):
    code, default_message = "OCI_STORE_NOT_CONFIGURED", "No OCI store is configured."

    def __init__(self) -> None:
        super().__init__(detail="Set SKILL_OCI_REGISTRY_URL, for all processes, and start them again.")


class ThirdPartySourceNotFoundError(NotFoundError):
    code, default_message = "THIRD_PARTY_SOURCE_NOT_FOUND", "There is no such third-party source."


class ThirdPartySourceExistsError(ConflictError):
    code, default_message = "THIRD_PARTY_SOURCE_EXISTS", "There is a third-party source of that name already."


class SourceItemNotFoundError(NotFoundError):
    code, default_message = "SOURCE_ITEM_NOT_FOUND", "The source has no such item."


class RangeNotSatisfiableError(DomainError):
    """No byte of the content is in the range asked for (RFC 9110, 15.5.17)."""

    code, http_status, default_message = "RANGE_NOT_SATISFIABLE", 416, "The content has no byte in that range."


class ContentTooLargeError(DomainError):
    code, http_status, default_message = "PAYLOAD_TOO_LARGE", 413, "The content is too large."
