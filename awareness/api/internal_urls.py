"""Routes under /api/internal."""

from django.urls import path

from awareness.api.internal import InternalParticipationViewSet

urlpatterns = [path("awareness/participation", InternalParticipationViewSet.as_view({"post": "report"}))]
