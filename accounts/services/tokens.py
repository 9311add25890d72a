"""Issue and revoke access tokens."""

import datetime
import secrets
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.authentication import token_digest
from accounts.errors import TokenExpiryPastError, TokenNotFoundError
from accounts.models import AccessToken, Role
from opencrane.actor import Actor
from opencrane.errors import ForbiddenError
from operations.services import audit


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token; `secret` is shown once and cannot be had again."""

    token: AccessToken
    secret: str

    def __repr__(self) -> str:
        return f"IssuedToken({self.token.prefix}…)"


@transaction.atomic(durable=True)
def issue_token(
    *,
    name: str,
    role: Role,
    owner: str = "",
    expires_at: datetime.datetime | None = None,
    creator_role: Role,
    actor: Actor,
) -> IssuedToken:
    """Make an access token `ocp_<48 hex>`; only its SHA-256 is stored.

    Args:
        name: a label, 1 to 200 characters.
        role: what the token may do; never more than `creator_role`.
        owner: a label.
        expires_at: when it stops working; never, if None.
        creator_role: the role of `actor`.
        actor: who asked; becomes the token's identity.

    Raises:
        ForbiddenError: the role is more than the creator's.
        TokenExpiryPastError: `expires_at` is not in the future.
    """
    return create_token(
        name=name, role=role, owner=owner, expires_at=expires_at, creator_role=creator_role, actor=actor
    )


def create_token(
    *,
    name: str,
    role: Role,
    owner: str,
    expires_at: datetime.datetime | None,
    creator_role: Role,
    actor: Actor,
) -> IssuedToken:
    """`issue_token` for callers that have a transaction of their own."""
    if role.rank > creator_role.rank:
        raise ForbiddenError(f"A token may not have more than your own role, {creator_role}.")
    if expires_at is not None and expires_at <= timezone.now():
        raise TokenExpiryPastError(fields={"expiresAt": ["Has to be in the future."]})
    secret = f"ocp_{secrets.token_hex(24)}"
    token = AccessToken.objects.create(
        name=name,
        owner=owner,
        role=role,
        prefix=secret[:10],
        digest=token_digest(secret),
        created_by_id=actor.user_id,
        created_by_name=actor.name,
        expires_at=expires_at,
    )
    audit.record(
        action="access_token.created",
        resource=f"AccessToken/{token.pk}",
        message=f"Issued access token {name} with role {role}",
        after={"name": name, "owner": owner, "role": str(role), "expiresAt": expires_at and expires_at.isoformat()},
        actor=actor,
    )
    return IssuedToken(token, secret)


@transaction.atomic(durable=True)
def revoke_token(*, token_id: UUID | None, among: QuerySet[AccessToken] | None = None, actor: Actor) -> None:
    """Make a token invalid at once. Revoking it again changes nothing.

    Args:
        among: the tokens that the actor may see; all, if None.

    Raises:
        TokenNotFoundError: no such token among them.
    """
    visible = AccessToken.objects.all() if among is None else among
    token = visible.select_for_update(of=("self",)).filter(pk=token_id).first() if token_id else None
    if token is None:
        raise TokenNotFoundError
    if token.revoked_at is not None:
        return
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])
    audit.record(
        action="access_token.revoked",
        resource=f"AccessToken/{token.pk}",
        message=f"Revoked access token {token.name} of {token.created_by_name}",
        actor=actor,
    )
