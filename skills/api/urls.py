"""Routes under /api/v1."""

from django.urls import path

from skills.api.backfill import BackfillViewSet
from skills.api.sources import SourceViewSet as Source
from skills.api.viewsets import BundleViewSet as View

urlpatterns = [
    path("skills/catalog", View.as_view({"get": "list", "post": "create"})),
    # Before the bundles, which take whatever stands here for an id.
    path("skills/catalog/backfill", BackfillViewSet.as_view({"post": "backfill"})),
    path("skills/catalog/<str:id>", View.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("skills/catalog/<str:id>/scan", View.as_view({"post": "scan"})),
    path("third-party-sources", Source.as_view({"get": "list", "post": "create"})),
    path("third-party-sources/<str:id>", Source.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("third-party-sources/<str:id>/approve", Source.as_view({"post": "approve"})),
    path("third-party-sources/<str:id>/sync", Source.as_view({"post": "sync"})),
    path("third-party-sources/<str:id>/items", Source.as_view({"get": "items"})),
    path("third-party-sources/<str:id>/items/<str:itemId>/import", Source.as_view({"post": "import_item"})),
]
