"""What the awareness app refuses."""

from opencrane.errors import ConflictError, ForbiddenError, NotFoundError


class RolloutNotDefinedError(ConflictError):
    """There is nothing to promote yet."""

    default_message = "No rollout is defined."


class OverScopeError(ForbiddenError):
    code, default_message = "OVER_SCOPE", "The principal is granted none of what was asked for."


class SessionScopeNotFoundError(NotFoundError):
    code, default_message = "SESSION_SCOPE_NOT_FOUND", "There is no scope for that session."
