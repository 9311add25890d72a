"""Routes under /api/internal."""

from django.urls import path

from mcpservers.api.internal import InternalRegistryViewSet

urlpatterns = [path("obot-registry/v0.1/servers", InternalRegistryViewSet.as_view({"get": "show"}))]
