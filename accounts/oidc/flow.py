"""The two steps of a sign-in that the browser takes: off to the provider, and back with a code.

mozilla-django-oidc makes state, nonce and code verifier, keeps them in the session and exchanges the code; what it
leaves to its users is done here: the discovery document instead of settings, all checks of the ID token, who a person
is, and where a browser may be sent.
"""

import time
from typing import Any
from urllib.parse import quote

import structlog
from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme
from mozilla_django_oidc.auth import OIDCAuthenticationBackend
from mozilla_django_oidc.views import OIDCAuthenticationRequestView

from accounts.errors import SignInFailedError, SignInRefusedError, SignInStateError
from accounts.models import User
from accounts.oidc import claims, ending
from accounts.oidc.provider import provider
from accounts.services.people import sign_in_person
from opencrane.actor import Actor
from opencrane.api.identity import actor_of

log = structlog.get_logger(__name__)

BACKEND = "accounts.oidc.flow.OidcBackend"
LOGIN_PATH = "/api/v1/auth/login"
CALLBACK_NAME = "oidc_callback"
# A sign-in takes no longer; also how long a session that nobody signed in to lives.
PENDING_SECONDS = 600
_RETURN_MAX = 2000
_STATES = "oidc_states"


def login_url(return_to: str) -> str:
    """Where a browser begins to sign in, to come back to a path of ours."""
    return f"{LOGIN_PATH}?returnTo={quote(return_to, safe='/')}"


def local_path(text: str | None) -> str:
    """`text` when it is a path of this site, else `/`: nobody is sent elsewhere, however it is spelled."""
    text = text or ""
    plain = all(" " < each != "\x7f" for each in text) and "\\" not in text
    if not (text.startswith("/") and plain and len(text) <= _RETURN_MAX):
        return "/"
    # Not back into the sign-in, which would go round in circles.
    if text.startswith(("/api/v1/auth/login", "/api/v1/auth/callback", "/admin/login", "/admin/logout")):
        return "/"
    return text if url_has_allowed_host_and_scheme(text, allowed_hosts=None) else "/"


def _setting(name: str, *default: Any) -> Any:
    """What the library reads from Django's settings, from the discovery document and ours instead."""
    match name:
        case "OIDC_OP_AUTHORIZATION_ENDPOINT":
            return provider().metadata().authorization_endpoint
        case "OIDC_RP_SCOPES":
            return settings.OIDC_SCOPES
        case "OIDC_USE_PKCE" | "OIDC_USE_NONCE":
            return True
        case "OIDC_AUTHENTICATION_CALLBACK_URL":
            return CALLBACK_NAME
        case "OIDC_RP_CLIENT_ID" | "OIDC_RP_CLIENT_SECRET":
            return getattr(settings, name)
    return OIDCAuthenticationBackend.get_settings(name, *default)


class OidcBackend(OIDCAuthenticationBackend):
    """Who signed in by OpenID Connect; Django also asks it for the person of a session."""

    # The library's own reads every endpoint at once, and Django makes a backend for each request with a session.
    def __init__(self) -> None:
        self.UserModel = User

    get_settings = staticmethod(_setting)

    @property
    def OIDC_RP_CLIENT_ID(self) -> str:  # noqa: N802
        return settings.OIDC_RP_CLIENT_ID

    @property
    def OIDC_RP_CLIENT_SECRET(self) -> str:  # noqa: N802
        return settings.OIDC_RP_CLIENT_SECRET

    def authenticate(self, request: Any, **credentials: Any) -> Any:
        # Django offers every backend the name and password of the login form too.
        if "code_verifier" not in credentials:
            return None
        return super().authenticate(request, **credentials)

    def get_token(self, payload: dict[str, Any]) -> dict[str, Any]:
        answer = provider().tokens(payload)
        access_token, kind = answer.get("access_token"), answer.get("token_type")
        if not isinstance(access_token, str) or not isinstance(kind, str) or kind.lower() != "bearer":
            raise SignInFailedError(detail="It has no access token.")
        self._access_token = access_token
        self.id_token = str(answer.get("id_token", ""))
        return answer

    def verify_token(self, token: Any, **kwargs: Any) -> dict[str, Any]:
        nonce = kwargs["nonce"]
        return claims.verified_claims(token, provider=provider(), nonce=nonce, access_token=self._access_token)

    def get_or_create_user(self, access_token: str, id_token: str, payload: dict[str, Any]) -> User:
        metadata = provider().metadata()
        userinfo = provider().userinfo(access_token) if metadata.userinfo_endpoint else {}
        known = actor_of(self.request)
        actor = Actor("system", "OpenID Connect", request_id=known.request_id, address=known.address)
        return sign_in_person(profile=claims.profile_of(payload, userinfo, metadata.issuer), actor=actor)


class _Begin(OIDCAuthenticationRequestView):
    """The library's first step, with the endpoint of the discovery document."""

    get_settings = staticmethod(_setting)


def begin(request: HttpRequest) -> HttpResponse:
    """Send the browser to the provider, with state, nonce and PKCE S256; `returnTo` says where to go afterwards.

    Raises:
        OidcNotConfiguredError, DependencyUnavailableError, UpstreamError.
    """
    endpoint = provider().metadata().authorization_endpoint
    before = set(request.session.get(_STATES, {}))
    response: HttpResponse = _Begin.as_view()(request)
    # The library always begins the query; an endpoint may have one already (RFC 6749, 3.1).
    if "?" in endpoint:
        response["Location"] = response["Location"].replace(f"{endpoint}?", f"{endpoint}&", 1)
    (state,) = set(request.session[_STATES]) - before
    # With its state, so that two tabs do not mix up where they were going.
    request.session[_STATES][state]["return_to"] = local_path(request.GET.get("returnTo"))
    request.session.pop("oidc_login_next", None)
    request.session.modified = True
    if not request.user.is_authenticated:
        request.session.set_expiry(PENDING_SECONDS)
    return response


def complete(request: HttpRequest) -> HttpResponse:
    """Turn the provider's answer into a session, and send the browser to where it wanted to go.

    The session gets a new key, so one that somebody planted before is of no use. A state counts once.

    Raises:
        SignInStateError, SignInFailedError, SignInRefusedError: nobody is signed in.
        OidcNotConfiguredError, DependencyUnavailableError, UpstreamError.
    """
    metadata = provider().metadata()
    state = request.GET.get("state", "")
    states = request.session.get(_STATES)
    pending = states.pop(state, None) if isinstance(states, dict) else None
    if pending is None or time.time() - pending["added_on"] > PENDING_SECONDS:
        raise SignInStateError(detail="Begin it again from the login page.")
    request.session.modified = True
    request.session.save()
    named = request.GET.get("iss")
    if named != metadata.issuer and (named is not None or metadata.names_itself):
        # Another provider's answer (RFC 9207).
        raise SignInFailedError(detail="It came from another issuer.")
    error = request.GET.get("error")
    if error is not None:
        # Anybody can write a link with an error in it, so only a word of the standard's is repeated.
        word = error if error.isascii() and error.replace("_", "").isalpha() and len(error) <= 40 else "unknown"
        raise SignInRefusedError("The OpenID provider did not sign you in.", detail=f"It says: {word}.")
    if not request.GET.get("code"):
        raise SignInFailedError(detail="It has no code.")
    verifier, nonce = pending["code_verifier"], pending["nonce"]
    backend = OidcBackend()
    user = backend.authenticate(request, nonce=nonce, code_verifier=verifier)
    if user is None:
        raise SignInFailedError
    auth.login(request, user, backend=BACKEND)
    request.session.pop(_STATES, None)
    ending.remember(request, metadata, backend.id_token)
    request.session.set_expiry(None)
    log.info("signed in by OpenID Connect", user=user.username, role=user.role)
    return HttpResponseRedirect(local_path(pending["return_to"]))
