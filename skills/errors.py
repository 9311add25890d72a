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
