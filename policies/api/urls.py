"""Routes under /api/v1."""

from django.urls import path

from policies.api.viewsets import GroupViewSet, PolicyViewSet

urlpatterns = [
    path("policies", PolicyViewSet.as_view({"get": "list", "post": "create"})),
    path("policies/drift", PolicyViewSet.as_view({"get": "drift"})),
    path("policies/repair", PolicyViewSet.as_view({"post": "repair"})),
    path("policies/<str:name>", PolicyViewSet.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("policies/<str:name>/tenants", PolicyViewSet.as_view({"get": "tenants"})),
    path("groups", GroupViewSet.as_view({"get": "list", "post": "create"})),
    path("groups/<str:id>", GroupViewSet.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
]
