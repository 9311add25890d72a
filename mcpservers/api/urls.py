"""Routes under /api/v1."""

from django.urls import path

from mcpservers.api.viewsets import McpServerViewSet as View

urlpatterns = [
    path("mcp-servers", View.as_view({"get": "list", "post": "create"})),
    path("mcp-servers/<str:id>", View.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("mcp-servers/<str:id>/credentials", View.as_view({"get": "credentials", "post": "credentials"})),
    path("mcp-servers/<str:id>/credentials/<str:credentialId>", View.as_view({"delete": "credential"})),
    path("mcp-servers/<str:id>/probe", View.as_view({"post": "probe"})),
    path("mcp-servers/<str:id>/probes", View.as_view({"get": "probes"})),
]
