"""Routes for tests of the plumbing: the real ones, and views that take a body, crash, or lose their database."""

from typing import Any, ClassVar

from django.core.exceptions import SuspiciousOperation
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.urls import path

from opencrane import urls as real
from opencrane.api import fields
from opencrane.api.responses import check_if_match, json_response
from opencrane.api.serializers import StrictSerializer
from opencrane.api.viewsets import ApiViewSet

handler400, handler403, handler404, handler500 = (
    real.handler400,
    real.handler403,
    real.handler404,
    real.handler500,
)


class ResourcesSerializer(StrictSerializer):
    cpu = fields.QuantityField(required=False)
    memory = fields.QuantityField(required=False)


class ProbeSerializer(StrictSerializer):
    name = fields.DnsLabelField(max_length=53)
    display_name = fields.StringField(max_length=20, required=False)
    email = fields.EmailField(required=False)
    team = fields.LabelValueField(required=False, allow_null=True)
    monthly_budget_usd = fields.MoneyField(required=False)
    resources = ResourcesSerializer(required=False)
    skill_allowlist = fields.StringListField(fields.DnsLabelField(), max_items=5, required=False)
    config_overrides = fields.JsonObjectField(required=False)
    enabled = fields.BooleanField(required=False)
    count = fields.IntegerField(required=False)
    kind = fields.ChoiceField(choices=["a", "b"], required=False)
    at = fields.DateTimeField(required=False)
    ref = fields.UuidField(required=False)


class ProbeViewSet(ApiViewSet):
    resource: ClassVar[str] = "tenants"

    def take(self, request: Any) -> HttpResponse:
        return json_response(self.parsed_body(ProbeSerializer), 201)

    def bodiless(self, request: Any, generation: int = 0) -> HttpResponse:
        check_if_match(request, generation)
        return json_response({"ok": True})

    def crash(self, request: Any) -> HttpResponse:
        raise RuntimeError("secret detail")

    def lose_database(self, request: Any) -> HttpResponse:
        raise OperationalError("connection to server at 10.1.2.3 failed")

    def suspicious(self, request: Any) -> HttpResponse:
        raise SuspiciousOperation("secret detail")


class LargeViewSet(ProbeViewSet):
    body_limit = 2 * 1024 * 1024


def console_crash(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("secret detail")


urlpatterns = [
    path("api/v1/probe", ProbeViewSet.as_view({"post": "take", "get": "bodiless", "delete": "bodiless"})),
    path("api/v1/probe/large", LargeViewSet.as_view({"post": "take"})),
    path("api/v1/probe/crash", ProbeViewSet.as_view({"get": "crash"})),
    path("api/v1/probe/database", ProbeViewSet.as_view({"get": "lose_database"})),
    path("api/v1/probe/suspicious", ProbeViewSet.as_view({"get": "suspicious"})),
    path("api/v1/probe/generation/<int:generation>", ProbeViewSet.as_view({"put": "bodiless"})),
    path("crash", console_crash),
    *real.urlpatterns,
]
