"""The awareness API: parse, call one service, answer."""

from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema

from awareness import selectors, sessions
from awareness.api.serializers import (
    ClearedSerializer,
    DefineRolloutSerializer,
    ParticipationReportSerializer,
    PromoteSerializer,
    ResolutionSerializer,
    RolloutSerializer,
    SessionScopeSerializer,
    SetSessionScopeAnswerSerializer,
    SetSessionScopeSerializer,
)
from awareness.errors import SessionScopeNotFoundError
from awareness.services import rollouts
from awareness.services import sessions as session_scopes
from opencrane.api import params
from opencrane.api.parameters import CURSOR, LIMIT, query
from opencrane.api.responses import json_response, page_response
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from opencrane.errors import InvalidError
from tenants.selectors import tenant_named

SESSION_KEY_MAX = 512
_SESSION_KEY = OpenApiParameter(
    "sessionKey", {"type": "string", "minLength": 1, "maxLength": SESSION_KEY_MAX}, OpenApiParameter.PATH
)


class RolloutViewSet(ApiViewSet):
    """How far the target version of the awareness contract has come."""

    resource: ClassVar[str] = "awareness"
    tag = "Awareness Rollout"
    failures: ClassVar[Any] = {"promote": ("409",), "resolve": ("404",)}

    @extend_schema(operation_id="awareness_rollout_show", responses=RolloutSerializer)
    def show(self, request: ApiRequest) -> HttpResponse:
        return json_response(selectors.current_rollout().as_json())

    @extend_schema(
        operation_id="awareness_rollout_define",
        request=DefineRolloutSerializer,
        responses={200: RolloutSerializer},
    )
    def define(self, request: ApiRequest) -> HttpResponse:
        """Define what is rolled out; no wave is promoted after that."""
        values = self.parsed_body(DefineRolloutSerializer)
        return json_response(rollouts.define_rollout(values=values, actor=self.actor).as_json())

    @extend_schema(
        operation_id="awareness_rollout_promote", request=PromoteSerializer, responses={200: RolloutSerializer}
    )
    def promote(self, request: ApiRequest) -> HttpResponse:
        """Promote the next wave, or all up to and with the one named; once all are promoted, nothing changes."""
        data: Any = request.data
        wave = None if data is None else self.parsed_body(PromoteSerializer).get("wave")
        return json_response(rollouts.promote(wave=wave, actor=self.actor).as_json())

    @extend_schema(operation_id="awareness_rollout_rollback", request=None, responses={200: RolloutSerializer})
    def rollback(self, request: ApiRequest) -> HttpResponse:
        """Take every wave back to the stable version."""
        return json_response(rollouts.roll_back(actor=self.actor).as_json())

    @extend_schema(operation_id="awareness_rollout_resolve", responses=ResolutionSerializer)
    def resolve(self, request: ApiRequest, tenant: str) -> HttpResponse:
        """Which version a tenant runs, and by which wave."""
        found = selectors.resolve_for(tenant_named(tenant))
        body = {
            "tenant": tenant,
            "version": found.version,
            "promoted": found.promoted,
            "shadow": found.shadow,
            "wave": found.wave,
        }
        return json_response(body)


class ParticipationViewSet(ApiViewSet):
    """What the tenants' pods report, and whether that is as it should be."""

    resource: ClassVar[str] = "awareness"
    tag = "Awareness Rollout"

    @extend_schema(
        operation_id="awareness_participation",
        parameters=[
            query("severity", "Only tenants like this; the counts stay fleet-wide.", enum=selectors.SEVERITIES),
            LIMIT,
            CURSOR,
        ],
        responses=ParticipationReportSerializer,
    )
    def show(self, request: ApiRequest) -> HttpResponse:
        """Tenants by name."""
        severity = params.choice(request, "severity", selectors.SEVERITIES)
        return page_response(request, *selectors.participation_report(severity, selectors.BY_NAME.page(request)))


class SessionScopeViewSet(ApiViewSet):
    """What one session of an agent may see."""

    resource: ClassVar[str] = "sessions"
    tag = "Sessions"
    failures: ClassVar[Any] = {"show": ("404",), "clear": ("404",)}

    @extend_schema(operation_id="session_scope_show", parameters=[_SESSION_KEY], responses=SessionScopeSerializer)
    def show(self, request: ApiRequest, sessionKey: str) -> HttpResponse:  # noqa: N803
        """What is both stored for the session and granted to its principal now."""
        return json_response(selectors.session_scope(_known_key(sessionKey)))

    @extend_schema(
        operation_id="session_scope_set",
        parameters=[_SESSION_KEY],
        request=SetSessionScopeSerializer,
        responses={200: SetSessionScopeAnswerSerializer},
    )
    def set(self, request: ApiRequest, sessionKey: str) -> HttpResponse:  # noqa: N803
        """Let the session see what is both asked for and granted; each with the grant's scope."""
        if not sessionKey.strip() or len(sessionKey) > SESSION_KEY_MAX:
            raise InvalidError(fields={"sessionKey": [f"Has to be 1 to {SESSION_KEY_MAX} characters long."]})
        body = self.parsed_body(SetSessionScopeSerializer)
        wanted = [{"scope": each["scope"], "payloadId": each["payload_id"]} for each in body["scopes"]]
        row, rejected = session_scopes.set_session_scope(
            session_key=sessionKey, principal=body["principal"], scopes=wanted, actor=self.actor
        )
        return json_response(sessions.session_json(row, row.scopes) | {"rejected": rejected})

    @extend_schema(operation_id="session_scope_clear", parameters=[_SESSION_KEY], responses={200: ClearedSerializer})
    def clear(self, request: ApiRequest, sessionKey: str) -> HttpResponse:  # noqa: N803
        session_scopes.clear_session_scope(session_key=_known_key(sessionKey), actor=self.actor)
        return json_response({"sessionKey": sessionKey, "cleared": True})


def _known_key(session_key: str) -> str:
    if len(session_key) > SESSION_KEY_MAX:
        raise SessionScopeNotFoundError
    return session_key
