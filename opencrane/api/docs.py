"""The OpenAPI document and its reading room; every asset comes from this server."""

from typing import Any

from django.http import HttpResponse
from django.templatetags.static import static
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema

from opencrane.api.schema import document_json
from opencrane.api.viewsets import ApiViewSet

# Swagger UI writes style attributes and carries its icons as data URLs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>OpenCrane API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{base}favicon-32x32.png"><link rel="stylesheet" href="{base}swagger-ui.css"></head>
<body><div id="swagger-ui" data-url="/api/v1/openapi.json"></div>
<script src="{base}swagger-ui-bundle.js"></script><script src="{script}"></script></body></html>
"""


class OpenApiViewSet(ApiViewSet):
    """This document."""

    public = True
    produces = ("application/json", "application/vnd.oai.openapi+json")

    @extend_schema(
        operation_id="openapi_document",
        summary="This document",
        tags=["Meta"],
        auth=[],
        request=None,
        responses=OpenApiTypes.OBJECT,
    )
    def show(self, request: Any) -> HttpResponse:
        return HttpResponse(document_json(), content_type="application/json", headers={"Cache-Control": "no-cache"})


class DocsViewSet(ApiViewSet):
    """Swagger UI."""

    public = True
    produces = ("text/html", "application/json")

    @extend_schema(exclude=True)
    def show(self, request: Any) -> HttpResponse:
        base = static("drf_spectacular_sidecar/swagger-ui-dist/")
        page = _PAGE.format(base=base, script=static("opencrane/docs.js"))
        return HttpResponse(page, headers={"Content-Security-Policy": _POLICY})


docs_urlpatterns = [
    path("api/v1/openapi.json", OpenApiViewSet.as_view({"get": "show"})),
    path("api/docs", DocsViewSet.as_view({"get": "show"})),
    path("api/docs/", DocsViewSet.as_view({"get": "show"})),
]
