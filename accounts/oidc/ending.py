"""Ending the provider's session with ours: OpenID Connect RP-Initiated Logout 1.0.

Else the next sign-in would let the same person in without a question, whoever sits there by then.
https://openid.net/specs/openid-connect-rpinitiated-1_0.html
"""

from urllib.parse import urlencode

import structlog
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from accounts.oidc.provider import Metadata, provider
from opencrane import encryption
from opencrane.errors import DomainError

log = structlog.get_logger(__name__)

_ID_TOKEN = "oidc_id_token"  # noqa: S105


def remember(request: HttpRequest, metadata: Metadata, id_token: str) -> None:
    """Keep in a new session what its end will need.

    Sealed, because an ID token says who somebody is to whoever can read the table of sessions.
    """
    if settings.OIDC_END_SESSION and metadata.end_session_endpoint:
        request.session[_ID_TOKEN] = encryption.encrypt(id_token)


def end_session_url(request: HttpRequest) -> str:
    """Where the browser ends the provider's session; empty when only ours is to end.

    The provider sends it back to the login page, if that address is registered there.
    """
    sealed = request.session.get(_ID_TOKEN)
    if sealed is None or not settings.OIDC_END_SESSION:
        return ""
    try:
        endpoint = provider().metadata().end_session_endpoint
        hint = encryption.decrypt(sealed)
    except DomainError as exc:
        # Nobody is kept signed in here because something else is away.
        log.warning("the session at the OpenID provider goes on", error=exc.message)
        return ""
    if not endpoint:
        return ""
    query = {
        "id_token_hint": hint,
        "client_id": settings.OIDC_RP_CLIENT_ID,
        "post_logout_redirect_uri": request.build_absolute_uri(reverse("admin:login")),
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
