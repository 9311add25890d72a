"""Routes under /api/v1."""

from django.urls import path

from tenants.api.cluster_tenants import ClusterTenantViewSet
from tenants.api.retained import RetainedDataViewSet
from tenants.api.viewsets import TenantViewSet

urlpatterns = [
    path("retained-data", RetainedDataViewSet.as_view({"get": "list"})),
    path("retained-data/<str:data_id>", RetainedDataViewSet.as_view({"delete": "destroy"})),
    path("tenants", TenantViewSet.as_view({"get": "list", "post": "create"})),
    path("tenants/drift", TenantViewSet.as_view({"get": "drift"})),
    path("tenants/repair", TenantViewSet.as_view({"post": "repair"})),
    path(
        "tenants/<str:name>",
        TenantViewSet.as_view({"get": "retrieve", "put": "update", "delete": "destroy"}),
    ),
    path("tenants/<str:name>/suspend", TenantViewSet.as_view({"post": "suspend"})),
    path("tenants/<str:name>/resume", TenantViewSet.as_view({"post": "resume"})),
    path("tenants/<str:name>/sync", TenantViewSet.as_view({"post": "sync"})),
    path("tenants/<str:name>/datasets", TenantViewSet.as_view({"get": "datasets", "put": "datasets"})),
    path("tenants/<str:name>/access", TenantViewSet.as_view({"get": "access", "post": "access"})),
    path("tenants/<str:name>/effective-contract", TenantViewSet.as_view({"get": "effective_contract"})),
    path("cluster-tenants", ClusterTenantViewSet.as_view({"get": "list", "post": "create"})),
    path("cluster-tenants/drift", ClusterTenantViewSet.as_view({"get": "drift"})),
    path("cluster-tenants/repair", ClusterTenantViewSet.as_view({"post": "repair"})),
    path(
        "cluster-tenants/<str:name>",
        ClusterTenantViewSet.as_view({"get": "retrieve", "put": "update", "delete": "destroy"}),
    ),
    path("cluster-tenants/<str:name>/status", ClusterTenantViewSet.as_view({"get": "status"})),
    path("cluster-tenants/<str:name>/capacity", ClusterTenantViewSet.as_view({"get": "capacity"})),
    path("cluster-tenants/<str:name>/sync", ClusterTenantViewSet.as_view({"post": "sync"})),
]
