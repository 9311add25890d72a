"""Routes of accounts under /api/v1."""

from django.urls import path

from accounts.api.viewsets import AuthViewSet

urlpatterns = [
    path("auth/me", AuthViewSet.as_view({"get": "me"})),
    path("auth/logout", AuthViewSet.as_view({"post": "logout"})),
]
