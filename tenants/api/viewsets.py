"""The tenants API: parse, call one service, answer."""

from dataclasses import replace
from functools import partial

from django.db import transaction
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action

from accounts.models import Role
from cluster.models import SYNC_STATES
from opencrane.api import params
from opencrane.api.identity import caller_of
from opencrane.api.parameters import CURSOR, IF_MATCH, IF_NONE_MATCH, LIMIT
from opencrane.api.responses import check_if_match, json_response, page_response, tagged_response
from opencrane.api.viewsets import ApiRequest
from opencrane.errors import ForbiddenError, InvalidError
from operations.api.dualwritten import DualWrittenViewSet
from policies.models import Grant
from tenants import selectors
from tenants.access import Preview, explain_access, unsaved_grant
from tenants.api.serializers import (
    AccessPreviewSerializer,
    AccessSerializer,
    CreateTenantSerializer,
    DatasetsSerializer,
    EffectiveContractSerializer,
    ReasonSerializer,
    TenantItemSerializer,
    TenantSerializer,
    TenantStatusSerializer,
    UpdateTenantSerializer,
)
from tenants.contract import effective_contract
from tenants.models import Phase
from tenants.presentation import tenant_detail
from tenants.services import datasets, lifecycle

_TEXT_FILTERS = ("q", "team", "policyRef", "clusterTenantRef", "email")
_LIST_PARAMETERS = [
    *(OpenApiParameter(name, str) for name in _TEXT_FILTERS),
    OpenApiParameter("phase", str, enum=Phase.values),
    OpenApiParameter("sync", str, enum=[*SYNC_STATES, "drifted"]),
    LIMIT,
    CURSOR,
]


class TenantViewSet(DualWrittenViewSet):
    kind = "Tenant"
    resource = "tenants"
    failures = {
        **DualWrittenViewSet.failures,
        "suspend": ("409", "422", "502", "504"),
        "resume": ("409", "422", "502", "504"),
        "sync": ("409", "422", "502", "504"),
        "datasets": ("409", "502", "504"),
        "access": ("422",),
    }
    serializer_class = TenantSerializer

    @extend_schema(parameters=_LIST_PARAMETERS, responses={200: TenantItemSerializer(many=True)})
    def list(self, request: ApiRequest) -> HttpResponse:
        filters = {name: value for name in _TEXT_FILTERS if (value := params.text(request, name))}
        if phase := params.choice(request, "phase", Phase.values):
            filters["phase"] = phase
        if sync := params.choice(request, "sync", selectors.SYNC_CONDITIONS):
            filters["sync"] = sync
        return page_response(request, *selectors.tenant_page(filters, selectors.NEWEST.page(request)))

    @extend_schema(request=CreateTenantSerializer, responses={201: TenantStatusSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        values = self.spec(CreateTenantSerializer)
        name = values.pop("name")
        adopt = bool(values.pop("adoptRetained", False))
        caller = caller_of(request)
        if adopt and (caller is None or caller.role != Role.ADMIN):
            raise ForbiddenError("Only an administrator may have data taken over.")
        lifecycle.create_tenant(name=name, values=values, adopt_retained=adopt, actor=self.actor).wait()
        return json_response({"name": name, "status": "created"}, status=201)

    @extend_schema(parameters=[IF_NONE_MATCH], responses={200: TenantSerializer})
    def retrieve(self, request: ApiRequest, name: str) -> HttpResponse:
        tenant = selectors.tenant_named(name)
        return tagged_response(request, tenant.etag, tenant_detail(tenant))

    @extend_schema(request=UpdateTenantSerializer, parameters=[IF_MATCH], responses={200: TenantStatusSerializer})
    def update(self, request: ApiRequest, name: str) -> HttpResponse:
        changes = self.spec(UpdateTenantSerializer)
        write = lifecycle.update_tenant(
            name=name, changes=changes, precondition=partial(check_if_match, request), actor=self.actor
        )
        return self.confirmed(write, name, "updated")

    @extend_schema(
        parameters=[
            IF_MATCH,
            OpenApiParameter("reason", str, description="Why; goes into the audit trail."),
            OpenApiParameter(
                "purge", {"type": "boolean", "default": False}, description="Its volume and encryption key go as well."
            ),
        ],
        responses={200: TenantStatusSerializer},
    )
    def destroy(self, request: ApiRequest, name: str) -> HttpResponse:
        write = lifecycle.delete_tenant(
            name=name,
            reason=params.text(request, "reason") or "",
            purge=params.boolean(request, "purge", default=False),
            precondition=partial(check_if_match, request),
            actor=self.actor,
        )
        return self.confirmed(write, name, "deleted")

    @extend_schema(request=ReasonSerializer, parameters=[IF_MATCH], responses={200: TenantStatusSerializer})
    @action(detail=True, methods=["post"])
    def suspend(self, request: ApiRequest, name: str) -> HttpResponse:
        write = lifecycle.suspend_tenant(
            name=name, reason=self._reason(), precondition=partial(check_if_match, request), actor=self.actor
        )
        return self.confirmed(write, name, "suspended")

    @extend_schema(request=ReasonSerializer, parameters=[IF_MATCH], responses={200: TenantStatusSerializer})
    @action(detail=True, methods=["post"])
    def resume(self, request: ApiRequest, name: str) -> HttpResponse:
        write = lifecycle.resume_tenant(
            name=name, reason=self._reason(), precondition=partial(check_if_match, request), actor=self.actor
        )
        return self.confirmed(write, name, "resumed")

    @extend_schema(request=None, responses={200: TenantStatusSerializer})
    @action(detail=True, methods=["post"])
    def sync(self, request: ApiRequest, name: str) -> HttpResponse:
        """Apply the row again, also to make a resource that was deleted in the cluster."""
        return self.confirmed(lifecycle.resync_tenant(name=name, actor=self.actor), name, "updated")

    @extend_schema(methods=["GET"], responses={200: DatasetsSerializer})
    @extend_schema(methods=["PUT"], request=DatasetsSerializer, responses={200: DatasetsSerializer})
    @action(detail=True, methods=["get", "put"])
    def datasets(self, request: ApiRequest, name: str) -> HttpResponse:
        if request.method == "PUT":
            wanted = self.parsed_body(DatasetsSerializer)
            return json_response(datasets.set_datasets(name=name, datasets=wanted, actor=self.actor))
        return json_response(selectors.datasets_of(selectors.tenant_named(name).pk))

    @extend_schema(parameters=[IF_NONE_MATCH], responses={200: EffectiveContractSerializer})
    @action(detail=True, methods=["get"], url_path="effective-contract")
    def effective_contract(self, request: ApiRequest, name: str) -> HttpResponse:
        """What the tenant may see and call right now; poll it with If-None-Match."""
        contract = effective_contract(selectors.tenant_named(name))
        return tagged_response(request, f'"{contract["contractId"]}"', contract)

    @extend_schema(
        methods=["GET"],
        parameters=[
            OpenApiParameter("type", str, enum=Grant.PayloadType.values, required=True),
            OpenApiParameter(
                "payload",
                str,
                required=True,
                description="An MCP server's id or name; the name of a dataset; a bundle's id.",
            ),
        ],
        responses={200: AccessSerializer},
    )
    @extend_schema(methods=["POST"], request=AccessPreviewSerializer, responses={200: AccessSerializer})
    @action(detail=True, methods=["get", "post"])
    def access(self, request: ApiRequest, name: str) -> HttpResponse:
        """Why a tenant may, or may not, use something. POST looks at a change of grants without making it."""
        tenant = selectors.tenant_named(name)
        if request.method == "POST":
            asked = self.parsed_body(AccessPreviewSerializer)
            payload_type, payload = asked["type"], asked["payload"]
            preview = Preview(without=asked.get("without") or ())
            if asked.get("grant"):
                with transaction.atomic():
                    grant = unsaved_grant(asked["grant"], payload_type=payload_type, payload=payload)
                preview = replace(preview, grant=grant)
            return json_response(
                explain_access(tenant=tenant, payload_type=payload_type, payload=payload, preview=preview)
            )
        payload_type = params.choice(request, "type", Grant.PayloadType.values) or ""
        payload = params.text(request, "payload", max_length=253) or ""
        given = {"type": payload_type, "payload": payload}
        missing = {key: ["This parameter is required."] for key, value in given.items() if not value}
        if missing:
            raise InvalidError(fields=missing)
        return json_response(explain_access(tenant=tenant, payload_type=payload_type, payload=payload))

    # -- parts ------------------------------------------------------------------------------------------------------

    def _reason(self) -> str:
        return self.optional_body(ReasonSerializer).get("reason") or ""
