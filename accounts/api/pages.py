"""Operations of the API that a browser visits: signing in by OpenID Connect, and approving a device."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import SimpleLazyObject
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from accounts.authentication import send_csrf_cookie
from accounts.errors import OidcNotConfiguredError
from accounts.models import Role
from accounts.services import devices
from opencrane.api import params
from opencrane.api.errors import to_domain_error
from opencrane.api.identity import Caller, caller_of
from opencrane.api.parameters import query
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from opencrane.console.plain import error_page, plain_page, wants_page
from opencrane.errors import InvalidError

ACTIVATE_PATH = "/api/v1/auth/device/activate"
_SENT_ON = OpenApiResponse(description="Sends the browser on.")


class BrowserViewSet(ApiViewSet):
    """The base of both: to a browser, failures are pages; to a program, JSON as everywhere."""

    resource = "auth"
    public = True
    produces = ("text/html", "application/json")
    # No HEAD: what a GET uses up here, its answer has to reach somebody.
    http_method_names = ["get", "post", "options"]

    def handle_exception(self, exc: Exception) -> Any:
        error = to_domain_error(exc)
        if error is None or not wants_page(self.request._request):
            return super().handle_exception(exc)
        return error_page(self.request._request, error)


def _with_session(request: HttpRequest, view: Callable[[HttpRequest], HttpResponse]) -> HttpResponse:
    """Run a view with session and person, as console pages have them, and save the session afterwards."""

    def run(request: HttpRequest) -> HttpResponse:
        request.user = SimpleLazyObject(lambda: get_user(request))  # type: ignore[assignment]
        response = view(request)
        # Signing in changes the CSRF token with the session.
        send_csrf_cookie(request, response)
        return response

    return SessionMiddleware(run)(request)  # type: ignore[return-value]


class SignInViewSet(BrowserViewSet):
    """Signing in by OpenID Connect."""

    @extend_schema(
        summary="Sign in by OpenID Connect",
        auth=[],
        parameters=[query("returnTo", "Where to go afterwards: a path of this site. Anything else is `/`.")],
        responses={302: _SENT_ON},
    )
    def login(self, request: ApiRequest) -> HttpResponse:
        """Sends the browser to the OpenID provider: authorization code flow with PKCE, state and nonce."""
        return _with_session(request._request, _flow().begin)

    @extend_schema(
        summary="Come back from the OpenID provider",
        auth=[],
        parameters=[
            query("code", "From the provider."),
            query("state", "As the browser was sent off with."),
            query("iss", "The provider's issuer (RFC 9207)."),
            query("error", "Why the provider signed nobody in."),
        ],
        responses={302: _SENT_ON},
    )
    def callback(self, request: ApiRequest) -> HttpResponse:
        """Exchanges the code, checks the ID token, and opens a session."""
        return _with_session(request._request, _flow().complete)

    failures = {"login": ("502",), "callback": ("401", "403", "502")}


def _flow() -> Any:
    """The library brings an HTTP client of its own; a process where nobody signs in this way does without."""
    if not settings.OIDC_ISSUER:
        raise OidcNotConfiguredError
    from accounts.oidc import flow

    return flow


def sign_in_url(path: str) -> str:
    """Where somebody without a session goes first, to come back to a path."""
    if settings.OIDC_ISSUER:
        return f"/api/v1/auth/login?{urlencode({'returnTo': path})}"
    return f"{settings.LOGIN_URL}?{urlencode({'next': path})}"


class DeviceActivationViewSet(BrowserViewSet):
    """The page on which a person approves a device."""

    failures = {"show": ("404",)}

    def _person(self) -> Caller | None:
        caller = caller_of(self.request)
        return caller if caller is not None and caller.kind == "user" else None

    def _to_sign_in(self, user_code: str) -> HttpResponse:
        path = f"{ACTIVATE_PATH}?{urlencode({'userCode': user_code})}" if user_code else ACTIVATE_PATH
        return HttpResponseRedirect(sign_in_url(path))

    @extend_schema(
        summary="Approve a device",
        auth=[],
        parameters=[OpenApiParameter("userCode", str, required=True, description="As the device shows it.")],
        responses={
            200: OpenApiResponse(description="A page that says what would be granted, and asks."),
            302: OpenApiResponse(description="Nobody is signed in; sends the browser to where that is done, and back."),
        },
    )
    def show(self, request: ApiRequest) -> HttpResponse:
        """The page asks a signed-in person; its button approves, this request alone changes nothing."""
        code = params.text(request, "userCode", max_length=40) or ""
        person = self._person()
        if person is None:
            return self._to_sign_in(code)
        plain = request._request
        if not code:
            if not wants_page(plain):
                raise InvalidError(fields={"userCode": ["Is required."]})
            return plain_page(
                plain, "accounts/device_enter.html", {"title": "Approve a device", "action": ACTIVATE_PATH}
            )
        grant = devices.waiting_grant(code)
        own = Role(person.role)
        response = plain_page(
            plain,
            "accounts/device.html",
            {
                "title": "Approve a device",
                "user_code": devices.normalized(code),
                "grant": grant,
                "person": person.email or person.name,
                "roles": [role.value for role in Role if role.rank <= own.rank],
                "days": settings.DEVICE_TOKEN_DAYS,
                "action": ACTIVATE_PATH,
            },
        )
        send_csrf_cookie(plain, response)
        return response

    @extend_schema(exclude=True)
    def decide(self, request: ApiRequest) -> HttpResponse:
        """What the page's buttons send: a form, with a CSRF token that authentication has checked."""
        form = request._request.POST
        code = form.get("userCode", "")[:40]
        if self._person() is None:
            return self._to_sign_in(code)
        decision, wanted = form.get("decision", ""), form.get("role", "")
        if decision not in {"approve", "deny"}:
            raise InvalidError(fields={"decision": ["Has to be approve or deny."]})
        if wanted and wanted not in Role.values:
            raise InvalidError(fields={"role": [f"Has to be one of {', '.join(Role.values)}."]})
        is_approved = decision == "approve"
        grant = devices.decide_grant(
            user_code=code, approve=is_approved, role=Role(wanted) if wanted else None, actor=self.actor
        )
        values = {"title": "Approved" if is_approved else "Refused", "is_approved": is_approved, "role": grant.role}
        return plain_page(request._request, "accounts/device_done.html", values)
