"""/webhooks: who is told what, and how telling them went."""

from functools import partial
from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers

from opencrane.api import params
from opencrane.api.fields import (
    BooleanField,
    DateTimeField,
    JsonObjectField,
    RuledField,
    StringField,
    StringListField,
    choices_of,
)
from opencrane.api.keyset import Keyset
from opencrane.api.parameters import CURSOR, IF_MATCH, IF_NONE_MATCH, LIMIT, limit_parameter, query
from opencrane.api.responses import check_if_match, json_response, tagged_response
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from operations import rules, selectors, signing
from operations.models import Delivery
from operations.services import webhooks
from operations.services.webhooks import EVENTS, TEST_EVENT
from operations.webhook_pages import delivery_as_json, webhook_as_json, webhook_etag

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="webhooks")
DELIVERIES_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="deliveries", default_limit=100)

_ID = OpenApiParameter("id", str, OpenApiParameter.PATH)
_DELIVERY_ID = OpenApiParameter("deliveryId", str, OpenApiParameter.PATH)


class UrlField(RuledField):
    """An absolute http(s) URL without a password."""

    def normal(self, text: str) -> str:
        rules.check_url(text)
        return text


class SecretField(RuledField):
    """A signing secret of the caller's own. It never comes back."""

    def normal(self, text: str) -> str:
        signing.signing_key(text)
        return text


class UpdateWebhookSerializer(StrictSerializer):
    """Only the fields that are present change."""

    name = StringField(max_length=200, required=False)
    url = UrlField(max_length=rules.URL_MAX, required=False, help_text="http or https, without a password.")
    events = StringListField(required=False, help_text=f"Some of {', '.join(sorted(EVENTS))}.")
    description = StringField(max_length=2000, required=False, allow_null=True)
    enabled = BooleanField(required=False)
    secret = SecretField(
        min_length=signing.SECRET_MIN,
        max_length=signing.SECRET_MAX,
        required=False,
        write_only=True,
        help_text="What requests are signed with: `whsec_` and base64, or any text.",
    )

    def validate_events(self, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - set(EVENTS))
        if unknown:
            raise serializers.ValidationError(f"There is no event {', '.join(unknown)}.")
        if not value:
            raise serializers.ValidationError(f"Has to name at least one of {', '.join(sorted(EVENTS))}.")
        return value


class CreateWebhookSerializer(UpdateWebhookSerializer):
    """Without a `secret` one is made, and shown in the answer this once."""

    name = StringField(max_length=200)
    url = UrlField(max_length=rules.URL_MAX, help_text="http or https, without a password.")
    events = StringListField(help_text=f"Some of {', '.join(sorted(EVENTS))}.")


class ReplaySerializer(StrictSerializer):
    """What to send again; without a body, everything that has failed for good."""

    since = DateTimeField(required=False, allow_null=True, help_text="Events from this time on.")
    until = DateTimeField(required=False, allow_null=True, help_text="Events before this time.")
    only_failed = BooleanField(required=False, help_text="False sends again also what got through.")


class WebhookSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_null=True)
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField(choices=choices_of(sorted(EVENTS))))
    enabled = serializers.BooleanField()
    built_in = serializers.BooleanField(help_text="It stands for a setting and cannot be changed here.")
    failures = serializers.IntegerField(help_text="How many attempts in a row found the receiver in trouble.")
    failing_since = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    pending_count = serializers.IntegerField()
    failed_count = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class CreatedWebhookSerializer(WebhookSerializer):
    secret = serializers.CharField(required=False, help_text="Only if it was made here; it is not shown again.")


class WebhookStatusSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["deleted"])


class WebhookSecretSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    secret = serializers.CharField(help_text="It is not shown again.")


class AttemptSerializer(ResponseSerializer):
    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True, help_text="HTTP status; null when there was no answer.")
    error = serializers.CharField()
    latency_ms = serializers.FloatField()


class DeliverySerializer(ResponseSerializer):
    id = serializers.UUIDField()
    webhook_id = serializers.UUIDField()
    event_id = serializers.UUIDField(help_text="The header `webhook-id`; the same in every delivery of the event.")
    event = serializers.ChoiceField(choices=choices_of([*sorted(EVENTS), TEST_EVENT]))
    payload = JsonObjectField()
    status = serializers.ChoiceField(choices=Delivery.Status.choices)
    attempts = serializers.IntegerField()
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    response_status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    log = AttemptSerializer(many=True, help_text="The last attempts, oldest first.")
    occurred_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class ReplayedSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    count = serializers.IntegerField(help_text="How many events are sent again.")


class WebhookViewSet(ApiViewSet):
    """Addresses that are told when certain things happen, signed as Standard Webhooks has it."""

    resource: ClassVar[str] = "webhooks"
    lookup_field = "id"
    serializer_class = WebhookSerializer
    failures = {
        "create": ("409", "503"),
        "update": ("409", "503"),
        "destroy": ("409",),
        "renew_secret": ("409", "503"),
        "test": ("409",),
        "resend": ("409",),
        "replay": ("409",),
    }

    @extend_schema(
        summary="List webhooks, newest first",
        parameters=[
            query("q", "Text in the name or the address."),
            query("event", "Only those subscribed to it.", enum=sorted(EVENTS)),
            OpenApiParameter("enabled", bool),
            LIMIT,
            CURSOR,
        ],
        responses=WebhookSerializer(many=True),
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        filters: dict[str, Any] = {}
        if text := params.text(request, "q"):
            filters["q"] = text
        if event := params.choice(request, "event", EVENTS):
            filters["event"] = event
        if "enabled" in request.GET:
            filters["enabled"] = params.boolean(request, "enabled", default=True)
        rows, headers = NEWEST.read(request, selectors.webhooks_matching(filters))
        return json_response([webhook_as_json(webhook) for webhook in rows], headers=headers)

    @extend_schema(summary="Make a webhook", request=CreateWebhookSerializer, responses={201: CreatedWebhookSerializer})
    def create(self, request: ApiRequest) -> HttpResponse:
        values = self.parsed_body(CreateWebhookSerializer)
        webhook, secret = webhooks.create_webhook(values=values, actor=self.actor)
        shown = webhook_as_json(selectors.webhook_with_counts(webhook.pk)) | ({"secret": secret} if secret else {})
        return json_response(shown, status=201, headers={"ETag": webhook_etag(webhook)})

    @extend_schema(summary="Show a webhook", parameters=[_ID, IF_NONE_MATCH], responses=WebhookSerializer)
    def retrieve(self, request: ApiRequest, id: str) -> HttpResponse:
        webhook = selectors.webhook_with_counts(params.parse_uuid(id))
        return tagged_response(request, webhook_etag(webhook), webhook_as_json(webhook))

    @extend_schema(
        summary="Change a webhook",
        request=UpdateWebhookSerializer,
        parameters=[_ID, IF_MATCH],
        responses=WebhookSerializer,
    )
    def update(self, request: ApiRequest, id: str) -> HttpResponse:
        webhook = webhooks.update_webhook(
            webhook_id=params.parse_uuid(id),
            changes=self.parsed_body(UpdateWebhookSerializer),
            precondition=partial(check_if_match, request),
            actor=self.actor,
        )
        shown = selectors.webhook_with_counts(webhook.pk)
        return json_response(webhook_as_json(shown), headers={"ETag": webhook_etag(shown)})

    @extend_schema(summary="Delete a webhook", parameters=[_ID, IF_MATCH], responses={200: WebhookStatusSerializer})
    def destroy(self, request: ApiRequest, id: str) -> HttpResponse:
        webhooks.delete_webhook(
            webhook_id=params.parse_uuid(id), precondition=partial(check_if_match, request), actor=self.actor
        )
        return json_response({"id": id.lower(), "status": "deleted"})

    @extend_schema(
        operation_id="webhooks_secret_create",
        summary="Make a new signing secret",
        parameters=[_ID],
        request=None,
        responses=WebhookSecretSerializer,
    )
    def renew_secret(self, request: ApiRequest, id: str) -> HttpResponse:
        secret = webhooks.renew_secret(webhook_id=params.parse_uuid(id), actor=self.actor)
        return json_response({"id": id.lower(), "secret": secret})

    @extend_schema(
        operation_id="webhooks_test_create",
        summary="Send a test event",
        parameters=[_ID],
        request=None,
        responses={202: DeliverySerializer},
    )
    def test(self, request: ApiRequest, id: str) -> HttpResponse:
        delivery = webhooks.send_test(webhook_id=params.parse_uuid(id), actor=self.actor)
        return json_response(delivery_as_json(delivery), status=202)

    @extend_schema(
        operation_id="webhooks_replay_create",
        summary="Send events again",
        parameters=[_ID],
        request=ReplaySerializer,
        responses={202: ReplayedSerializer},
    )
    def replay(self, request: ApiRequest, id: str) -> HttpResponse:
        body: Any = request.data
        wanted = {} if body is None else self.parsed_body(ReplaySerializer)
        count = webhooks.replay(
            webhook_id=params.parse_uuid(id),
            since=wanted.get("since"),
            until=wanted.get("until"),
            only_failed=wanted.get("only_failed", True),
            actor=self.actor,
        )
        return json_response({"id": id.lower(), "count": count}, status=202)

    @extend_schema(
        operation_id="webhooks_deliveries_list",
        summary="List deliveries, newest first",
        parameters=[
            _ID,
            query("status", "Only deliveries in this state.", enum=Delivery.Status.values),
            query("event", "Only deliveries of this event.", enum=[*sorted(EVENTS), TEST_EVENT]),
            limit_parameter(default=100),
            CURSOR,
        ],
        responses=DeliverySerializer(many=True),
    )
    def deliveries(self, request: ApiRequest, id: str) -> HttpResponse:
        webhook = selectors.webhook_by_id(params.parse_uuid(id))
        found = selectors.deliveries_of(
            webhook,
            status=params.choice(request, "status", Delivery.Status.values) or "",
            event=params.choice(request, "event", [*EVENTS, TEST_EVENT]) or "",
        )
        rows, headers = DELIVERIES_NEWEST.read(request, found)
        return json_response([delivery_as_json(delivery) for delivery in rows], headers=headers)

    @extend_schema(
        operation_id="webhooks_deliveries_resend",
        summary="Send an event once more",
        parameters=[_ID, _DELIVERY_ID],
        request=None,
        responses={202: DeliverySerializer},
    )
    def resend(self, request: ApiRequest, id: str, **path: str) -> HttpResponse:
        delivery = webhooks.resend_delivery(
            webhook_id=params.parse_uuid(id),
            delivery_id=params.parse_uuid(path["deliveryId"]),
            actor=self.actor,
        )
        return json_response(delivery_as_json(delivery), status=202)
