"""Routes under /api/v1."""

from django.urls import path

from awareness.api.viewsets import ParticipationViewSet, RolloutViewSet, SessionScopeViewSet

urlpatterns = [
    path("awareness/rollout", RolloutViewSet.as_view({"get": "show", "put": "define"})),
    path("awareness/rollout/promote", RolloutViewSet.as_view({"post": "promote"})),
    path("awareness/rollout/rollback", RolloutViewSet.as_view({"post": "rollback"})),
    path("awareness/rollout/resolve/<str:tenant>", RolloutViewSet.as_view({"get": "resolve"})),
    path("awareness/participation", ParticipationViewSet.as_view({"get": "show"})),
    # Keys of sessions may hold slashes.
    path(
        "sessions/<path:sessionKey>/scope",
        SessionScopeViewSet.as_view({"get": "show", "put": "set", "delete": "clear"}),
    ),
]
