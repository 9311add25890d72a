"""Routes under /api/internal."""

from django.urls import path

from skills.api.internal import InternalBundleViewSet

urlpatterns = [path("bundles/<str:digest>/content", InternalBundleViewSet.as_view({"get": "content"}))]
