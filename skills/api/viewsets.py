"""The skill catalog's API: parse, call one service, answer."""

from functools import partial
from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action

from accounts.permissions import WRITE, allows
from opencrane.api import params
from opencrane.api.identity import caller_of
from opencrane.api.parameters import CURSOR, IF_MATCH, IF_NONE_MATCH, LIMIT, query
from opencrane.api.responses import body_etag, check_if_match, json_response, page_response, tagged_response
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from policies.models import Scope
from skills import selectors
from skills.api.serializers import (
    BundleItemSerializer,
    BundleSerializer,
    BundleStatusSerializer,
    CreateBundleSerializer,
    ScanStartedSerializer,
    UpdateBundleSerializer,
)
from skills.models import SkillBundle
from skills.services import bundles, scanning

# Content of 10 MiB in base64, with the rest of the body.
BODY_LIMIT = 16 * 1024 * 1024
_CHOICES = {
    "scope": Scope.values,
    "status": SkillBundle.Status.values,
    "scanStatus": SkillBundle.ScanStatus.values,
}
_TEXTS = {
    "q": "Text in the name, description or tags.",
    "tag": "One of the tags, as it is.",
    "name": "The whole name, for all versions of one skill.",
}
_COLUMNS = {"scanStatus": "scan_status"}


class BundleViewSet(ApiViewSet):
    resource = "skills"
    lookup_field = "id"
    serializer_class = BundleSerializer
    body_limit: ClassVar[int] = BODY_LIMIT
    failures = {"create": ("409", "422"), "update": ("409", "422")}

    @extend_schema(
        parameters=[
            *(query(name, text) for name, text in _TEXTS.items()),
            *(OpenApiParameter(name, str, enum=values) for name, values in _CHOICES.items()),
            LIMIT,
            CURSOR,
        ],
        responses={200: BundleItemSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        """Every version of every skill, newest first, without its content."""
        filters = {name: text for name in _TEXTS if (text := params.text(request, name))}
        for name, values in _CHOICES.items():
            if value := params.choice(request, name, values):
                filters[_COLUMNS.get(name, name)] = value
        return page_response(request, *selectors.bundle_page(filters, selectors.NEWEST.page(request)))

    @extend_schema(request=CreateBundleSerializer, responses={201: BundleStatusSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        """Makes a draft. Its content is scanned in the background; see `scanStatus`."""
        bundle_id = bundles.create_bundle(values=self.parsed_body(CreateBundleSerializer), actor=self.actor)
        return json_response({"id": bundle_id, "status": "created"}, status=201)

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "content", {"type": "boolean", "default": True}, description="Whether the content is in the answer."
            ),
            IF_NONE_MATCH,
        ],
        responses={200: BundleSerializer},
    )
    def retrieve(self, request: ApiRequest, id: str) -> HttpResponse:
        """One bundle. Content that has a secret in it, or that no scan has been through, is for operators alone."""
        with_content = params.boolean(request, "content", True)
        caller = caller_of(request)
        body, generation = selectors.bundle_json(
            params.parse_uuid(id),
            with_content=with_content,
            may_act=caller is not None and allows(caller.role, self.resource, WRITE),
        )
        return tagged_response(request, body_etag(generation, body), body)

    @extend_schema(request=UpdateBundleSerializer, parameters=[IF_MATCH], responses={200: BundleStatusSerializer})
    def update(self, request: ApiRequest, id: str) -> HttpResponse:
        """Changes what is present. Publishing needs a scan that has passed; what has been published never changes."""
        bundles.update_bundle(
            bundle_id=params.parse_uuid(id),
            changes=self.parsed_body(UpdateBundleSerializer),
            precondition=partial(check_if_match, request),
            actor=self.actor,
        )
        return json_response({"id": id.lower(), "status": "updated"})

    @extend_schema(parameters=[IF_MATCH], responses={200: BundleStatusSerializer})
    def destroy(self, request: ApiRequest, id: str) -> HttpResponse:
        """Removes the bundle and every grant about it. What the OCI store holds stays there."""
        bundles.delete_bundle(
            bundle_id=params.parse_uuid(id), precondition=partial(check_if_match, request), actor=self.actor
        )
        return json_response({"id": id.lower(), "status": "deleted"})

    @extend_schema(request=None, responses={202: ScanStartedSerializer})
    @action(detail=True, methods=["post"])
    def scan(self, request: ApiRequest, id: str) -> HttpResponse:
        """Have a worker scan the content again; the result shows in the bundle."""
        bundle = scanning.request_scan(bundle_id=params.parse_uuid(id), actor=self.actor)
        return json_response({"id": bundle.pk, "status": "queued"}, status=202)
