"""Routes under /api/v1."""

from django.urls import path

from skills.api.backfill import BackfillViewSet

urlpatterns = [
    # Before the bundles, which take whatever stands here for an id.
    path("skills/catalog/backfill", BackfillViewSet.as_view({"post": "backfill"})),
]
