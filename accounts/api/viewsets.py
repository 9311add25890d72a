"""/auth for programs: who is calling, signing out, pod tokens, and the device grant."""

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from accounts.api.pages import ACTIVATE_PATH
from accounts.api.serializers import (
    DeviceCodeSerializer,
    DevicePendingSerializer,
    DeviceTokenSerializer,
    MeSerializer,
    PodTokenSerializer,
)
from accounts.authentication import STATIC_CALLER
from accounts.services import devices, pod_tokens, tokens
from opencrane import limits
from opencrane.api.identity import Caller, caller_of
from opencrane.api.responses import json_response, no_content, to_json
from opencrane.api.serializers import ErrorSerializer
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from opencrane.errors import ForbiddenError, InvalidError


def _me(caller: Caller | None, mode: str) -> dict[str, Any]:
    if caller is None:
        return {"mode": mode, "authenticated": False}
    sub = f"{caller.kind}:{caller.name}" if caller.user_id is None else f"user:{caller.user_id}"
    return {
        "mode": mode,
        "authenticated": True,
        "user": {"sub": caller.subject or sub, "email": caller.email, "name": caller.full_name or caller.name},
        "role": caller.role,
    }


_NOBODY = {mode: to_json(_me(None, mode)) for mode in ("oidc", "none")}
_STATIC = {mode: to_json(_me(STATIC_CALLER, mode)) for mode in ("oidc", "none")}


class AuthViewSet(ApiViewSet):
    """Who is calling, and signing out."""

    resource: ClassVar[str] = "auth"
    public = True

    @extend_schema(summary="Who is calling", auth=[], responses=MeSerializer)
    def me(self, request: Any) -> HttpResponse:
        caller = caller_of(request)
        mode = "oidc" if settings.OIDC_ISSUER else "none"
        if caller is STATIC_CALLER:
            return json_response(_STATIC[mode])
        return json_response(_NOBODY[mode] if caller is None else _me(caller, mode))

    @extend_schema(summary="Sign out", auth=[], request=None, responses={204: None})
    def logout(self, request: Any) -> HttpResponse:
        response = no_content()
        plain = request._request
        if hasattr(plain, "session"):
            logout(plain)
            response.delete_cookie(settings.SESSION_COOKIE_NAME, samesite="Lax")
        return response


class PodTokenViewSet(ApiViewSet):
    """A person's way into their own tenant's gateway."""

    resource: ClassVar[str] = "auth"
    failures = {"pod_token": ("502",)}

    @extend_schema(
        summary="A token for one's own pod",
        auth=[],
        request=None,
        responses={200: PodTokenSerializer, 401: ErrorSerializer, 403: ErrorSerializer, 409: ErrorSerializer},
    )
    def pod_token(self, request: ApiRequest) -> HttpResponse:
        """For people with a session, not for access tokens. The session's e-mail address alone finds the tenant.

        409 `AMBIGUOUS_TENANT` when several tenants have it, `POD_NOT_READY` when the tenant is suspended or has no
        address yet; 403 `NO_TENANT` when none has it.
        """
        caller = caller_of(request)
        if caller is None or caller.kind != "user":
            raise ForbiddenError("Pod tokens are for people with a session, not for access tokens.")
        found = pod_tokens.issue_pod_token(email=caller.email, actor=self.actor)
        return json_response(
            {
                "token": found.token,
                "expiresAt": found.expires_at,
                "tenant": found.tenant,
                "ingressHost": found.ingress_host,
                "audience": found.audience,
            }
        )


class OwnTokenViewSet(ApiViewSet):
    """Giving back the access token that one carries, whatever one's role: how a command line signs out."""

    resource: ClassVar[str] = "auth"

    @extend_schema(
        summary="Revoke one's own access token",
        request=None,
        responses={204: None, 403: OpenApiResponse(ErrorSerializer, "The request carries no access token.")},
    )
    def revoke(self, request: ApiRequest) -> HttpResponse:
        """The access token that the request carries is refused from now on.

        403 for a session, which has a logout, and for the token of the settings, which ends with them.
        """
        # What cannot be read is refused before anything happens, as everywhere.
        if request.data:
            raise InvalidError("This takes no body.")
        caller = caller_of(request)
        if caller is None or caller.token_id is None:
            raise ForbiddenError("Only an access token can be revoked here.")
        tokens.revoke_token(token_id=caller.token_id, actor=self.actor)
        return no_content()


class DeviceViewSet(ApiViewSet):
    """The device grant (RFC 8628), from the device's side."""

    resource: ClassVar[str] = "auth"
    public = True
    failures = {"start": ("429",), "poll": ("429",)}
    # No HEAD: it would use the token up and drop it.
    http_method_names = ["get", "post", "options"]

    @extend_schema(summary="Begin a device grant", auth=[], request=None, responses={200: DeviceCodeSerializer})
    def start(self, request: ApiRequest) -> HttpResponse:
        """For command lines: show `userCode`, have a person open `verificationUri`, and poll for the token."""
        limits.hit(limits.DEVICE, limits.address_of(request))
        plain = request._request
        codes = devices.start_grant(
            address=getattr(plain, "client_address", ""), agent=plain.META.get("HTTP_USER_AGENT", "")
        )
        return json_response(
            {
                "deviceCode": codes.device_code,
                "userCode": codes.user_code,
                "verificationUri": f"{ACTIVATE_PATH}?userCode={codes.user_code}",
                "expiresIn": devices.LIFE_SECONDS,
                "interval": devices.INTERVAL_SECONDS,
            }
        )

    @extend_schema(
        summary="Poll for the token of a device grant",
        auth=[],
        parameters=[OpenApiParameter("deviceCode", str, required=True)],
        responses={
            200: DeviceTokenSerializer,
            202: DevicePendingSerializer,
            410: OpenApiResponse(ErrorSerializer, "Expired, refused, delivered already, or never given out."),
        },
    )
    def poll(self, request: ApiRequest) -> HttpResponse:
        """202 while nobody has decided, then 200 once, then 410; 429 when the last poll was too short a time ago."""
        code = request.GET.get("deviceCode", "")
        if not code:
            raise InvalidError(fields={"deviceCode": ["Is required."]})
        token = devices.poll_grant(device_code=code, actor=self.actor)
        if token is None:
            return json_response({"status": "pending"}, status=202)
        return json_response({"status": "authorized", "token": token})
