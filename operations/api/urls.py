"""Routes of operations under /api/v1."""

from django.urls import path

from operations.api.metrics import MetricsViewSet
from operations.api.platform_dns import PlatformDnsViewSet
from operations.api.viewsets import AuditViewSet, JobFileViewSet, JobViewSet
from operations.api.webhooks import WebhookViewSet

urlpatterns = [
    path("audit", AuditViewSet.as_view({"get": "show"})),
    path("audit/export", AuditViewSet.as_view({"post": "export"})),
    path("jobs", JobViewSet.as_view({"get": "list"})),
    path("jobs/<str:id>", JobViewSet.as_view({"get": "retrieve"})),
    path("jobs/<str:id>/file", JobFileViewSet.as_view({"get": "show"})),
    path("jobs/<str:id>/cancel", JobViewSet.as_view({"post": "cancel"})),
    path("jobs/<str:id>/retry", JobViewSet.as_view({"post": "retry"})),
    path("platform/dns", PlatformDnsViewSet.as_view({"get": "show", "put": "configure"})),
    path("metrics/server", MetricsViewSet.as_view({"get": "server"})),
    path("metrics/server/history", MetricsViewSet.as_view({"get": "server_history"})),
    path("metrics/projection-drift", MetricsViewSet.as_view({"get": "projection_drift"})),
    path("metrics/projection-drift/history", MetricsViewSet.as_view({"get": "drift_history"})),
    path("webhooks", WebhookViewSet.as_view({"get": "list", "post": "create"})),
    path("webhooks/<str:id>", WebhookViewSet.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("webhooks/<str:id>/secret", WebhookViewSet.as_view({"post": "renew_secret"})),
    path("webhooks/<str:id>/test", WebhookViewSet.as_view({"post": "test"})),
    path("webhooks/<str:id>/replay", WebhookViewSet.as_view({"post": "replay"})),
    path("webhooks/<str:id>/deliveries", WebhookViewSet.as_view({"get": "deliveries"})),
    path("webhooks/<str:id>/deliveries/<str:deliveryId>/resend", WebhookViewSet.as_view({"post": "resend"})),
]
