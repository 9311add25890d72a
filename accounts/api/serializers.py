"""Bodies and answers of the accounts API."""

from rest_framework import serializers

from accounts.models import Role
from accounts.selectors import TOKEN_STATES
from opencrane.api.fields import ChoiceField, DateTimeField, StringField, choices_of
from opencrane.api.serializers import ResponseSerializer, StrictSerializer

DEFAULT_NAME = "access token"


class IdentitySerializer(ResponseSerializer):
    sub = serializers.CharField(help_text="Who it is; stable.")
    email = serializers.CharField()
    name = serializers.CharField()


class MeSerializer(ResponseSerializer):
    mode = serializers.ChoiceField(choices=["oidc", "none"], help_text="Whether OpenID Connect is configured.")
    authenticated = serializers.BooleanField()
    user = IdentitySerializer(allow_null=True, required=False)
    role = serializers.CharField(required=False)


class CreateTokenSerializer(StrictSerializer):
    """`name` and `owner` are labels; whose token it is, the credential of this request says."""

    name = StringField(max_length=200, required=False, help_text=f"`{DEFAULT_NAME}` where it is absent.")
    owner = StringField(max_length=200, required=False, allow_null=True)
    role = ChoiceField(
        choices=Role.choices, required=False, allow_null=True, help_text="The caller's where it is absent; never more."
    )
    expires_at = DateTimeField(required=False, allow_null=True, help_text="Never, where it is absent.")


class CreatedTokenSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    plain_text_token = serializers.CharField(help_text="The token, shown only now.")
    role = serializers.ChoiceField(choices=Role.choices)
    expires_at = serializers.DateTimeField(allow_null=True)


class TokenSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    owner = serializers.CharField(allow_null=True)
    role = serializers.ChoiceField(choices=Role.choices)
    prefix = serializers.CharField(help_text="The token's first characters.")
    status = serializers.ChoiceField(choices=choices_of(TOKEN_STATES))
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="To the minute.")
    revoked_at = serializers.DateTimeField(allow_null=True)


class PodTokenSerializer(ResponseSerializer):
    token = serializers.CharField(help_text="A ServiceAccount token for the tenant's pod.")
    expires_at = serializers.DateTimeField()
    tenant = serializers.CharField()
    ingress_host = serializers.CharField()
    audience = serializers.CharField()


class DeviceCodeSerializer(ResponseSerializer):
    device_code = serializers.CharField(help_text="For polling; a secret.")
    user_code = serializers.CharField(help_text="For the person to compare with what the page shows.")
    verification_uri = serializers.CharField(help_text="Relative to this server; where the person approves.")
    expires_in = serializers.IntegerField(help_text="Seconds.")
    interval = serializers.IntegerField(help_text="Seconds between two polls, at least.")


class DeviceTokenSerializer(ResponseSerializer):
    status = serializers.ChoiceField(choices=["authorized"])
    token = serializers.CharField()


class DevicePendingSerializer(ResponseSerializer):
    status = serializers.ChoiceField(choices=["pending"])
