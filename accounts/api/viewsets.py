"""/auth."""

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from accounts.authentication import STATIC_CALLER
from opencrane.api.identity import Caller, caller_of
from opencrane.api.responses import json_response, no_content, to_json
from opencrane.api.serializers import ResponseSerializer
from opencrane.api.viewsets import ApiViewSet


class IdentitySerializer(ResponseSerializer):
    sub = serializers.CharField(help_text="Who it is; stable.")
    email = serializers.CharField()
    name = serializers.CharField()


class MeSerializer(ResponseSerializer):
    mode = serializers.ChoiceField(choices=["oidc", "none"], help_text="Whether OpenID Connect is configured.")
    authenticated = serializers.BooleanField()
    user = IdentitySerializer(allow_null=True, required=False)
    role = serializers.CharField(required=False)


def _me(caller: Caller | None) -> dict[str, Any]:
    if caller is None:
        return {"mode": "none", "authenticated": False}
    sub = f"{caller.kind}:{caller.name}" if caller.user_id is None else f"user:{caller.user_id}"
    return {
        "mode": "none",
        "authenticated": True,
        "user": {"sub": sub, "email": caller.email, "name": caller.name},
        "role": caller.role,
    }


_NOBODY = to_json(_me(None))
_STATIC = to_json(_me(STATIC_CALLER))


class AuthViewSet(ApiViewSet):
    """Who is calling, and signing out."""

    resource: ClassVar[str] = "auth"
    public = True

    @extend_schema(summary="Who is calling", auth=[], responses=MeSerializer)
    def me(self, request: Any) -> HttpResponse:
        caller = caller_of(request)
        if caller is STATIC_CALLER:
            return json_response(_STATIC)
        return json_response(_NOBODY if caller is None else _me(caller))

    @extend_schema(summary="Sign out", auth=[], request=None, responses={204: None})
    def logout(self, request: Any) -> HttpResponse:
        response = no_content()
        plain = request._request
        if hasattr(plain, "session"):
            logout(plain)
            response.delete_cookie(settings.SESSION_COOKIE_NAME, samesite="Lax")
        return response
