"""All routes. API routes come from `<app>/api/urls.py`, console pages from the admin site."""

from importlib.util import find_spec

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import include, path

from opencrane import health
from opencrane.api.docs import docs_urlpatterns

APPS = ("accounts", "operations", "tenants", "policies", "mcpservers", "skills", "budgets", "awareness")

handler400 = "opencrane.api.errors.handle_bad_request"
handler403 = "opencrane.api.errors.handle_forbidden"
handler404 = "opencrane.api.errors.handle_not_found"
handler500 = "opencrane.api.errors.handle_crash"


def _home(_request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/admin/")


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


_api = [path("", include(f"{app}.api.urls")) for app in APPS if _has(f"{app}.api.urls")]
# For pods and other workloads of the cluster; no part of the contract.
_internal = [path("", include(f"{app}.api.internal_urls")) for app in APPS if _has(f"{app}.api.internal_urls")]

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics_view()),
    path("prom", health.metrics_view()),
    path("api/v1/", include(_api)),
    path("api/internal/", include(_internal)),
    *docs_urlpatterns,
    path("admin/", admin.site.urls),
    path("", _home),
]
