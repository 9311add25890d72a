"""Routes under /api/internal."""

from django.urls import path

from tenants.api.internal import InternalContractViewSet

urlpatterns = [path("contract/<str:tenant>", InternalContractViewSet.as_view({"get": "show"}))]
