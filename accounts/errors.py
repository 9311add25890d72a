"""What accounts refuses."""

from opencrane.api.errors import RateLimitedError
from opencrane.errors import (
    ConflictError,
    DependencyNotConfiguredError,
    DomainError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
)


class TokenNotFoundError(NotFoundError):
    code, default_message = "TOKEN_NOT_FOUND", "There is no such access token."


class TokenExpiryPastError(InvalidError):
    """A token that would never have been valid."""

    default_message = "The expiry lies in the past."


class OidcNotConfiguredError(DependencyNotConfiguredError):
    code, default_message = "OIDC_NOT_CONFIGURED", "Sign-in by OpenID Connect is not configured."


class SignInStateError(InvalidError):
    """The provider's answer belongs to no sign-in that this browser began."""

    default_message = "This sign-in was not begun in this browser, or too long ago."


class SignInFailedError(UnauthorizedError):
    """What the provider gave proves nobody's identity."""

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message or "The OpenID provider's answer could not be verified.", detail=detail)


class SignInRefusedError(ForbiddenError):
    """The provider knows the person, and we do not let them in."""

    default_message = "You may not sign in here."


class DeviceCodeNotFoundError(NotFoundError):
    code = "DEVICE_CODE_NOT_FOUND"
    default_message = "There is no such code waiting for approval: it was used, has expired, or is mistyped."


class DeviceGrantExpiredError(DomainError):
    """Polling is of no use any more: expired, refused, delivered already, or never there (RFC 8628, 3.5)."""

    code, http_status = "DEVICE_GRANT_EXPIRED", 410
    default_message = "The device code has expired, was used already, or was never given out."

    def envelope(self) -> dict[str, object]:
        return super().envelope() | {"status": "expired"}


class SlowDownError(RateLimitedError):
    """A poll before the interval is over (RFC 8628, 3.5)."""

    default_message = "Polling too fast; wait as long as the interval says."

    def envelope(self) -> dict[str, object]:
        return super().envelope() | {"status": "slow_down"}


class NoTenantError(ForbiddenError):
    code, default_message = "NO_TENANT", "There is no tenant with your e-mail address."


class AmbiguousTenantError(ConflictError):
    code, default_message = "AMBIGUOUS_TENANT", "Several tenants have your e-mail address."


class PodNotReadyError(ConflictError):
    code, default_message = "POD_NOT_READY", "Your tenant's pod is not ready."
