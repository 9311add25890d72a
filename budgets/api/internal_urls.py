"""Routes under /api/internal."""

from django.urls import path

from budgets.api.internal import InternalUsageViewSet

urlpatterns = [path("usage", InternalUsageViewSet.as_view({"post": "record"}))]
