"""Find out who is calling the API: a bearer token, or the console's session cookie."""

import hashlib
import hmac
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication

from accounts.models import Role
from opencrane import limits
from opencrane.api.identity import Caller

STATIC_CALLER = Caller(kind="token", name="api-token", role=Role.ADMIN.value)

# One indexed query: the token with its creator, who must still be active, and whether its last use is worth noting.
_FIND = """
    SELECT t.id, t.name, t.role, t.created_by_name, t.created_by_id, u.role, u.email,
           coalesce(t.last_used_at < now() - interval '1 minute', true)
      FROM accounts_accesstoken t
      LEFT JOIN accounts_user u ON u.id = t.created_by_id
     WHERE t.digest = %s AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
       AND (t.created_by_id IS NULL OR u.is_active)
"""
_TOUCH = """
    UPDATE accounts_accesstoken SET last_used_at = now()
     WHERE id = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
"""


def token_digest(token: str) -> str:
    """What is stored of a token. Tokens are random, so a plain SHA-256 cannot be guessed back."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer …` with the static token or an issued one. Any other Authorization header is a 401."""

    def authenticate(self, request: Any) -> tuple[Any, Caller] | None:
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            limits.hit(limits.BAD_CREDENTIAL, limits.address_of(request))
            raise exceptions.AuthenticationFailed("The Authorization header has to be: Bearer <token>.")
        caller = caller_by_token(token)
        if caller is None:
            limits.hit(limits.BAD_CREDENTIAL, limits.address_of(request))
            raise exceptions.AuthenticationFailed("The token is unknown, expired or revoked.")
        return caller, caller

    def authenticate_header(self, request: Any) -> str:
        return "Bearer"


def caller_by_token(token: str) -> Caller | None:
    """Who a bearer token stands for, or None when it is not valid (any more).

    The static token is compared in constant time and costs no query. An issued token's role is never more than its
    creator's is now. Its last use is noted at most once a minute.
    """
    static: str = settings.API_TOKEN
    if static and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), static.encode()):
        return STATIC_CALLER
    if not token.startswith("ocp_"):
        return None
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [token_digest(token)])
        row = cursor.fetchone()
        if row is None:
            return None
        token_id, label, role, creator, creator_id, creator_role, email, is_stale = row
        if is_stale:
            cursor.execute(_TOUCH, [token_id])
    if creator_id is not None:
        role = min(Role(role), Role(creator_role), key=lambda each: each.rank).value
    return Caller(
        kind="token",
        name=creator,
        role=role,
        user_id=creator_id,
        email=email or "",
        token_id=token_id,
        token_name=label,
    )


class _CsrfCheck(CsrfViewMiddleware):
    """Django's check as a question: the reason instead of a page."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


_csrf_check = _CsrfCheck(lambda request: None)  # type: ignore[arg-type]


class SessionAuthentication(BaseAuthentication):
    """The console's session, for pages that call the API. The session is loaded only when its cookie is there."""

    def authenticate(self, request: Any) -> tuple[Any, Caller] | None:
        plain: HttpRequest = request._request
        key = plain.COOKIES.get(settings.SESSION_COOKIE_NAME)
        if not key:
            return None
        if not hasattr(plain, "session"):
            plain.session = import_string(f"{settings.SESSION_ENGINE}.SessionStore")(key)
        user = get_user(plain)
        if not user.is_authenticated or not user.is_active:
            return None
        # Unsafe methods only; the check itself lets the safe ones pass.
        _csrf_check.process_request(plain)
        reason = _csrf_check.process_view(plain, None, (), {})  # type: ignore[arg-type]
        if reason:
            raise exceptions.PermissionDenied(f"CSRF check failed: {reason}")
        return user, Caller(
            kind="user",
            name=user.get_username(),
            role=user.role,
            user_id=user.pk,
            email=user.email or "",
            subject=user.oidc_subject,
            full_name=user.get_full_name(),
        )


def send_csrf_cookie(request: HttpRequest, response: HttpResponse) -> None:
    """Give a page of the API the CSRF cookie that its form's token, or a new session, needs."""
    _csrf_check.process_response(request, response)
