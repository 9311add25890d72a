"""/access-tokens: parse, call one service, answer."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema

from accounts import selectors
from accounts.api.serializers import DEFAULT_NAME, CreatedTokenSerializer, CreateTokenSerializer, TokenSerializer
from accounts.models import AccessToken, Role
from accounts.services import issue_token, revoke_token
from opencrane.api import params
from opencrane.api.identity import Caller, caller_of
from opencrane.api.parameters import CURSOR, LIMIT, query
from opencrane.api.responses import json_response, no_content
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from opencrane.errors import UnauthorizedError


class AccessTokenViewSet(ApiViewSet):
    """Administrators see every token, others their own."""

    resource = "access-tokens"
    lookup_field = "id"
    serializer_class = TokenSerializer

    @property
    def _caller(self) -> Caller:
        caller = caller_of(self.request)
        if caller is None:
            raise UnauthorizedError
        return caller

    def _visible(self) -> QuerySet[AccessToken]:
        caller = self._caller
        return selectors.tokens_visible_to(role=caller.role, user_id=caller.user_id, name=caller.name)

    @extend_schema(
        parameters=[
            query("q", "Text in the name, the owner or the creator, or the token's first characters."),
            OpenApiParameter("role", str, enum=Role.values),
            OpenApiParameter(
                "status", str, enum=selectors.TOKEN_STATES, description="Active and expired ones where it is absent."
            ),
            LIMIT,
            CURSOR,
        ],
        responses={200: TokenSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        wanted: dict[str, Any] = {
            "q": params.text(request, "q"),
            "role": params.choice(request, "role", Role.values),
            "status": params.choice(request, "status", selectors.TOKEN_STATES),
        }
        filters = {name: value for name, value in wanted.items() if value}
        rows, headers = selectors.NEWEST.read(request, selectors.tokens_matching(self._visible(), filters))
        return json_response([selectors.token_json(row) for row in rows], headers=headers)

    @extend_schema(request=CreateTokenSerializer, responses={201: CreatedTokenSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        """The token is shown in this answer and never again."""
        body = self.parsed_body(CreateTokenSerializer)
        own = Role(self._caller.role)
        issued = issue_token(
            name=body.get("name") or DEFAULT_NAME,
            owner=body.get("owner") or "",
            role=Role(body.get("role") or own),
            expires_at=body.get("expires_at"),
            creator_role=own,
            actor=self.actor,
        )
        token = issued.token
        answer = {
            "id": token.pk,
            "plainTextToken": issued.secret,
            "role": token.role,
            "expiresAt": token.expires_at,
        }
        return json_response(answer, status=201)

    @extend_schema(responses={204: None})
    def destroy(self, request: ApiRequest, id: str) -> HttpResponse:
        """Revoke: the token is refused from now on."""
        revoke_token(token_id=params.parse_uuid(id), among=self._visible(), actor=self.actor)
        return no_content()
