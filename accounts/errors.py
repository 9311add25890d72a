"""What accounts refuses."""

from opencrane.errors import InvalidError, NotFoundError


class TokenNotFoundError(NotFoundError):
    code, default_message = "TOKEN_NOT_FOUND", "There is no such access token."


class TokenExpiryPastError(InvalidError):
    """A token that would never have been valid."""

    default_message = "The expiry lies in the past."
