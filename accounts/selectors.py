"""Reading accounts: access tokens as far as a caller may see them."""

import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import AccessToken, Role
from opencrane.api.keyset import Keyset

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="access-tokens")
TOKEN_STATES = ("active", "expired", "revoked")
# How long before its end a token shows on the dashboard.
SOON = datetime.timedelta(days=14)


def tokens_visible_to(*, role: str, user_id: int | None, name: str) -> QuerySet[AccessToken]:
    """Every token to an administrator; to others those that are theirs.

    A caller whose token has no account goes by the identity of that token. Several may share it, so such a caller sees
    no token that may do more than itself.

    Args:
        role, user_id, name: of the caller; see opencrane.api.identity.Caller.
    """
    if role == Role.ADMIN:
        return AccessToken.objects.all()
    if user_id is not None:
        return AccessToken.objects.filter(created_by_id=user_id)
    within = [each for each in Role if role in Role.values and each.rank <= Role(role).rank]
    return AccessToken.objects.filter(created_by=None, created_by_name=name, role__in=within)


def tokens_of_person(user: Any) -> QuerySet[AccessToken]:
    """`tokens_visible_to` for somebody who is signed in to the console, where superusers may everything."""
    role = Role.ADMIN if user.is_superuser else user.role
    return tokens_visible_to(role=role, user_id=user.pk, name=user.get_username())


def tokens_matching(tokens: QuerySet[AccessToken], filters: dict[str, str]) -> QuerySet[AccessToken]:
    """Those that fit every filter given: `q`, `role`, `status`; without a status, those that are not revoked."""
    now = timezone.now()
    if text := filters.get("q"):
        tokens = tokens.filter(
            Q(name__icontains=text)
            | Q(owner__icontains=text)
            | Q(created_by_name__icontains=text)
            | Q(prefix__startswith=text[:10])
        )
    if role := filters.get("role"):
        tokens = tokens.filter(role=role)
    match filters.get("status"):
        case "revoked":
            return tokens.filter(revoked_at__isnull=False)
        case "expired":
            return tokens.filter(revoked_at=None, expires_at__lte=now)
        case "active":
            return tokens.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)
    return tokens.filter(revoked_at=None)


def tokens_expiring(tokens: QuerySet[AccessToken], limit: int) -> list[AccessToken]:
    """Tokens that end within `SOON`, the next one first."""
    now = timezone.now()
    return list(
        tokens.filter(revoked_at=None, expires_at__gt=now, expires_at__lte=now + SOON).order_by("expires_at")[:limit]
    )


def token_state(token: AccessToken) -> str:
    """One of TOKEN_STATES."""
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= timezone.now() else "active"


def token_json(token: AccessToken) -> dict[str, Any]:
    """A token as the API lists it; what it is known by, never what opens."""
    return {
        "id": token.pk,
        "name": token.name,
        "owner": token.owner or None,
        "role": token.role,
        "prefix": token.prefix,
        "status": token_state(token),
        "createdBy": token.created_by_name,
        "createdAt": token.created_at,
        "expiresAt": token.expires_at,
        "lastUsedAt": token.last_used_at,
        "revokedAt": token.revoked_at,
    }
