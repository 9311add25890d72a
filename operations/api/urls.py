"""Routes of operations under /api/v1."""

from django.urls import path

from operations.api.viewsets import AuditViewSet, JobViewSet

urlpatterns = [
    path("audit", AuditViewSet.as_view({"get": "show"})),
    path("jobs", JobViewSet.as_view({"get": "list"})),
    path("jobs/<str:id>", JobViewSet.as_view({"get": "retrieve"})),
    path("jobs/<str:id>/cancel", JobViewSet.as_view({"post": "cancel"})),
    path("jobs/<str:id>/retry", JobViewSet.as_view({"post": "retry"})),
]
