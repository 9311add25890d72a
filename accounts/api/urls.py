"""Routes of accounts under /api/v1."""

from django.urls import path

from accounts.api.pages import DeviceActivationViewSet, SignInViewSet
from accounts.api.tokens import AccessTokenViewSet
from accounts.api.viewsets import AuthViewSet, DeviceViewSet, OwnTokenViewSet, PodTokenViewSet

urlpatterns = [
    path("auth/me", AuthViewSet.as_view({"get": "me"})),
    path("auth/login", SignInViewSet.as_view({"get": "login"})),
    path("auth/callback", SignInViewSet.as_view({"get": "callback"}), name="oidc_callback"),
    path("auth/logout", AuthViewSet.as_view({"post": "logout"})),
    path("auth/revoke", OwnTokenViewSet.as_view({"post": "revoke"})),
    path("auth/pod-token", PodTokenViewSet.as_view({"post": "pod_token"})),
    path("auth/device", DeviceViewSet.as_view({"post": "start"})),
    path("auth/device/activate", DeviceActivationViewSet.as_view({"get": "show", "post": "decide"})),
    path("auth/device/token", DeviceViewSet.as_view({"get": "poll"})),
    path("access-tokens", AccessTokenViewSet.as_view({"get": "list", "post": "create"})),
    path("access-tokens/<str:id>", AccessTokenViewSet.as_view({"delete": "destroy"})),
]
