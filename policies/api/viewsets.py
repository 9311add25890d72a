"""The policies and groups APIs: parse, call one service, answer."""

from functools import partial

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action

from opencrane.api import params
from opencrane.api.parameters import CURSOR, IF_MATCH, IF_NONE_MATCH, LIMIT, query
from opencrane.api.responses import (
    body_etag,
    check_if_match,
    json_response,
    page_response,
    tagged_response,
    written_response,
)
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from operations.api.dualwritten import DualWrittenViewSet
from policies import selectors
from policies.api.grants import SCOPES
from policies.api.serializers import (
    CreateGroupSerializer,
    CreatePolicySerializer,
    GroupSerializer,
    GroupStatusSerializer,
    PolicyItemSerializer,
    PolicySerializer,
    PolicyStatusSerializer,
    ReachedTenantSerializer,
    UpdateGroupSerializer,
    UpdatePolicySerializer,
)
from policies.presentation import policy_detail
from policies.services import access_policies, groups


class PolicyViewSet(DualWrittenViewSet):
    kind = "AccessPolicy"
    resource = "policies"
    serializer_class = PolicySerializer

    @extend_schema(
        parameters=[query("q", "Text in the name or description."), LIMIT, CURSOR],
        responses={200: PolicyItemSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        filters = {"q": text} if (text := params.text(request, "q")) else {}
        return page_response(request, *selectors.policy_page(filters, selectors.NEWEST.page(request)))

    @extend_schema(request=CreatePolicySerializer, responses={201: PolicyStatusSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        values = self.spec(CreatePolicySerializer)
        name = values.pop("name")
        access_policies.create_policy(name=name, values=values, actor=self.actor).wait()
        return json_response({"name": name, "status": "created"}, status=201)

    @extend_schema(parameters=[IF_NONE_MATCH], responses={200: PolicySerializer})
    def retrieve(self, request: ApiRequest, name: str) -> HttpResponse:
        policy = selectors.policy_named(name)
        return tagged_response(request, policy.etag, policy_detail(policy))

    @extend_schema(request=UpdatePolicySerializer, parameters=[IF_MATCH], responses={200: PolicyStatusSerializer})
    def update(self, request: ApiRequest, name: str) -> HttpResponse:
        changes = self.spec(UpdatePolicySerializer)
        write = access_policies.update_policy(
            name=name, changes=changes, precondition=partial(check_if_match, request), actor=self.actor
        )
        return self.confirmed(write, name, "updated")

    @extend_schema(parameters=[IF_MATCH], responses={200: PolicyStatusSerializer})
    def destroy(self, request: ApiRequest, name: str) -> HttpResponse:
        """Refused with 409 while tenants name the policy; `detail` lists up to ten of them."""
        write = access_policies.delete_policy(
            name=name, precondition=partial(check_if_match, request), actor=self.actor
        )
        return self.confirmed(write, name, "deleted")

    @extend_schema(parameters=[LIMIT, CURSOR], responses={200: ReachedTenantSerializer(many=True)})
    @action(detail=True, methods=["get"])
    def tenants(self, request: ApiRequest, name: str) -> HttpResponse:
        """The tenants a policy is for: those that name it, and those that name none and that its selector picks."""
        policy = selectors.policy_named(name)
        reached = selectors.tenants_of(policy).values_list("name", "display_name", "team", "policy_ref", named=True)
        rows, headers = selectors.TENANTS_BY_NAME.read(request, reached)
        found = [
            {
                "name": tenant,
                "displayName": display_name,
                "team": team or None,
                "via": "policyRef" if policy_ref else "tenantSelector",
            }
            for tenant, display_name, team, policy_ref in rows
        ]
        return json_response(found, headers=headers)


class GroupViewSet(ApiViewSet):
    resource = "groups"
    failures = {"create": ("409", "422"), "update": ("409", "422")}
    lookup_field = "id"
    serializer_class = GroupSerializer

    @extend_schema(
        parameters=[
            query("q", "Text in the name or description."),
            query("member", "A tenant's name or an e-mail address."),
            OpenApiParameter("scope", str, enum=SCOPES),
            LIMIT,
            CURSOR,
        ],
        responses={200: GroupSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        filters = {name: value for name in ("q", "member") if (value := params.text(request, name))}
        if scope := params.choice(request, "scope", SCOPES):
            filters["scope"] = scope
        return page_response(request, *selectors.group_page(filters, selectors.NEWEST_GROUPS.page(request)))

    @extend_schema(request=CreateGroupSerializer, responses={201: GroupSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        group_id = groups.create_group(values=self.parsed_body(CreateGroupSerializer), actor=self.actor)
        return written_response(*selectors.group_json(group_id), status=201)

    @extend_schema(parameters=[IF_NONE_MATCH], responses={200: GroupSerializer})
    def retrieve(self, request: ApiRequest, id: str) -> HttpResponse:
        body, generation = selectors.group_json(params.parse_uuid(id))
        return tagged_response(request, body_etag(generation, body), body)

    @extend_schema(request=UpdateGroupSerializer, parameters=[IF_MATCH], responses={200: GroupSerializer})
    def update(self, request: ApiRequest, id: str) -> HttpResponse:
        group_id = params.parse_uuid(id)
        groups.update_group(
            group_id=group_id,
            changes=self.parsed_body(UpdateGroupSerializer),
            precondition=partial(check_if_match, request),
            actor=self.actor,
        )
        return written_response(*selectors.group_json(group_id))

    @extend_schema(parameters=[IF_MATCH], responses={200: GroupStatusSerializer})
    def destroy(self, request: ApiRequest, id: str) -> HttpResponse:
        """Removes the group and every grant that names it."""
        groups.delete_group(
            group_id=params.parse_uuid(id), precondition=partial(check_if_match, request), actor=self.actor
        )
        return json_response({"id": id.lower(), "status": "deleted"})
