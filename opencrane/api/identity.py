"""Who is calling: set by the authentication classes, read by views."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest

from opencrane.actor import Actor


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller; `request.auth` of API requests, and `request.user` of those by token.

    Attributes:
        kind: `user` for a session, `token` for a bearer token, `pod` for a tenant's ServiceAccount.
        name: what the audit trail shows: a username, for an issued token that of its creator.
        role: a value of accounts.models.Role.
        user_id: the account, when there is one.
        email: the account's address, when known.
        token_id: the issued token that it came with; None for the static one, and for everybody else.
        token_name: that token's label.
        subject: by which an OpenID provider knows the person, when it does.
        full_name: the person's, when known.
    """

    kind: str
    name: str
    role: str
    user_id: int | None = None
    email: str = ""
    token_id: UUID | None = None
    token_name: str = ""
    subject: str = ""
    full_name: str = ""

    # What DRF and Django ask a user for.
    is_authenticated = True
    is_anonymous = False

    @property
    def credential(self) -> str:
        """What limits count by: the token, else the person, else the name."""
        return f"{self.kind}:{self.token_id or self.user_id or self.name}"

    @property
    def pk(self) -> int | None:
        return self.user_id


def caller_of(request: Any) -> Caller | None:
    """Who is calling by the API, or None for a caller without credentials."""
    auth = getattr(request, "auth", None)
    return auth if isinstance(auth, Caller) else None


def actor_of(request: Any) -> Actor:
    """Who services and the audit trail should name, for API and console requests alike."""
    plain: HttpRequest = getattr(request, "_request", request)
    request_id = getattr(plain, "request_id", "")
    address = getattr(plain, "client_address", "")
    caller = caller_of(request)
    if caller is not None:
        return Actor(caller.kind, caller.name, caller.user_id, request_id, address, caller.token_name)
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return Actor("user", user.get_username(), user.pk, request_id, address)
    return Actor("user", "anonymous", None, request_id, address)
