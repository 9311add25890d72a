"""Bodies and answers of the skill catalog's API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from opencrane.api.fields import ChoiceField, PatternField, StringField, StringListField, choices_of
from opencrane.api.serializers import ResponseSerializer, StrictSerializer
from policies.api.grants import MAX_GRANTS, OPTIONAL, GrantAnswerSerializer, GrantSerializer, IgnoredField
from policies.models import Scope
from skills import rules
from skills.errors import ContentTooLargeError
from skills.models import ScanFinding, SkillBundle, SkillPromotion

MAX_PROMOTIONS = 200


class DigestField(PatternField):
    """`sha256:` and 64 hexadecimal digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(rules.DIGEST, "Has to be sha256: and 64 lower-case hexadecimal digits.", **kwargs)


class ContentField(StringField):
    """Text as it is, white space included: a digest is about every byte.

    The body has been judged as a whole already; DRF's validators would look at ten million characters one by one.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.validators = []


@extend_schema_field({"type": ["string", "null"], "format": "byte", "maxLength": rules.BASE64_MAX})
class Base64Field(ContentField):
    """Bytes in base64."""


def _content_of(attrs: dict[str, Any]) -> bytes | None:
    """The bytes that a body gives in one of two ways."""
    text, encoded = attrs.get("content"), attrs.get("content_base64")
    if text is not None and encoded is not None:
        raise serializers.ValidationError({"contentBase64": ["Give the content once: as text or in base64."]})
    if text is not None:
        if not text.strip():
            raise serializers.ValidationError({"content": ["This field may not be blank."]})
        return _bounded(text.encode(), "content")
    if encoded is None:
        return None
    if len(encoded) > rules.BASE64_MAX:
        raise _too_large("contentBase64")
    try:
        return _bounded(rules.decoded(encoded), "contentBase64")
    except ValueError as exc:
        raise serializers.ValidationError({"contentBase64": [str(exc)]}) from exc


def _bounded(content: bytes, field: str) -> bytes:
    if len(content) > rules.CONTENT_MAX_BYTES:
        raise _too_large(field)
    return content


def _too_large(field: str) -> ContentTooLargeError:
    return ContentTooLargeError(fields={field: [f"Has to be at most {rules.CONTENT_MAX_BYTES} bytes."]})


class SkillGrantSerializer(GrantSerializer):
    """One grant. Groups and tenants go by id or name, people by e-mail address."""

    scope = ChoiceField(choices=choices_of(Scope.values), **OPTIONAL, help_text="The bundle's where it is absent.")


class PromotionBodySerializer(StrictSerializer):
    """A record of a wish to have the bundle reach further. It changes no scope by itself."""

    id = IgnoredField(**OPTIONAL)
    created_at = IgnoredField(**OPTIONAL)
    from_scope = ChoiceField(choices=Scope.choices, **OPTIONAL, help_text="The bundle's where it is absent.")
    to_scope = ChoiceField(choices=Scope.choices)
    promoted_by = StringField(max_length=254, **OPTIONAL, help_text="The caller where it is absent.")
    status = ChoiceField(choices=SkillPromotion.Status.choices, **OPTIONAL, help_text="`proposed` where it is absent.")
    notes = StringField(max_length=2000, **OPTIONAL)


class UpdateBundleSerializer(StrictSerializer):
    """Only the fields that are present change; lists of grants and promotions replace the old ones whole."""

    name = StringField(max_length=rules.NAME_MAX, required=False)
    version = PatternField(
        rules.SEMVER,
        "Has to be a semantic version, such as 1.0.0.",
        max_length=rules.VERSION_MAX,
        required=False,
        help_text="A semantic version (semver.org).",
    )
    description = StringField(max_length=2000, **OPTIONAL)
    scope = ChoiceField(choices=Scope.choices, required=False)
    status = ChoiceField(
        choices=SkillBundle.Status.choices,
        **OPTIONAL,
        help_text="`draft` where it is absent. `published` needs a scan that has passed.",
    )
    tags = StringListField(StringField(max_length=rules.TAG_MAX), max_items=rules.MAX_TAGS, **OPTIONAL)
    content = ContentField(**OPTIONAL, help_text="Text, at most 10 MiB in UTF-8.")
    content_base64 = Base64Field(**OPTIONAL)
    content_type = PatternField(
        rules.CONTENT_TYPE,
        "Has to be a media type, such as text/markdown or application/zip.",
        max_length=255,
        **OPTIONAL,
        help_text="`text/markdown` where it is absent. Archives are `application/zip` or `application/gzip`.",
    )
    digest = DigestField(
        **OPTIONAL,
        help_text="Computed from the content, and has to fit it when given. Alone, it names content in the OCI store.",
    )
    source_name = StringField(max_length=253, **OPTIONAL)
    grants = SkillGrantSerializer(many=True, required=False, allow_null=True, max_length=MAX_GRANTS)  # type: ignore[call-arg]
    promotions = serializers.ListField(child=PromotionBodySerializer(), max_length=MAX_PROMOTIONS, **OPTIONAL)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "content" in attrs or "content_base64" in attrs:
            content = _content_of(attrs)
            attrs.pop("content_base64", None)
            attrs["content"] = content
        return attrs


class CreateBundleSerializer(UpdateBundleSerializer):
    name = StringField(max_length=rules.NAME_MAX)
    version = PatternField(
        rules.SEMVER,
        "Has to be a semantic version, such as 1.0.0.",
        max_length=rules.VERSION_MAX,
        help_text="A semantic version (semver.org).",
    )
    scope = ChoiceField(choices=Scope.choices)


# -- answers; selectors build them, these describe them ---------------------------------------------------------------


class PromotionSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    from_scope = serializers.ChoiceField(choices=Scope.choices)
    to_scope = serializers.ChoiceField(choices=Scope.choices)
    promoted_by = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(choices=SkillPromotion.Status.choices)
    notes = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class ScanSummarySerializer(ResponseSerializer):
    at = serializers.DateTimeField(allow_null=True, help_text="When the last scan ended.")
    error = serializers.CharField(allow_null=True, help_text="Why it did not come to its end.")
    severities = serializers.DictField(child=serializers.IntegerField(), help_text="Findings by severity.")


class OciSerializer(ResponseSerializer):
    state = serializers.ChoiceField(choices=SkillBundle.OciState.choices)
    digest = serializers.CharField(allow_null=True, help_text="The manifest's.")
    reference = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    attempts = serializers.IntegerField()
    pushed_at = serializers.DateTimeField(allow_null=True)


class BundleItemSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_null=True)
    version = serializers.CharField()
    digest = serializers.CharField()
    scope = serializers.ChoiceField(choices=Scope.choices)
    status = serializers.ChoiceField(choices=SkillBundle.Status.choices)
    tags = serializers.ListField(child=serializers.CharField())
    source_name = serializers.CharField(allow_null=True)
    published_at = serializers.DateTimeField(allow_null=True)
    content_type = serializers.CharField()
    content_size = serializers.IntegerField(allow_null=True, help_text="Bytes; null without content.")
    scan_status = serializers.ChoiceField(choices=SkillBundle.ScanStatus.choices)
    scan = ScanSummarySerializer()
    oci = OciSerializer()
    grants = GrantAnswerSerializer(many=True)
    promotions = PromotionSerializer(many=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class FindingSerializer(ResponseSerializer):
    scanner = serializers.CharField()
    rule = serializers.CharField()
    severity = serializers.ChoiceField(choices=ScanFinding.Severity.choices)
    path = serializers.CharField(allow_null=True, help_text="The file inside an archive.")
    line = serializers.IntegerField(allow_null=True)
    message = serializers.CharField()


class ScannerSerializer(ResponseSerializer):
    name = serializers.CharField()
    version = serializers.CharField()
    seconds = serializers.FloatField()
    findings = serializers.IntegerField()


class BundleSerializer(BundleItemSerializer):
    scanners = ScannerSerializer(many=True, help_text="Those that ran, in order.")
    findings = FindingSerializer(many=True, help_text="The worst first.")
    content = serializers.CharField(required=False, allow_null=True, help_text="Text; null for anything else.")
    content_base64 = serializers.CharField(required=False, allow_null=True, help_text="What is no text.")
    content_withheld = serializers.BooleanField(
        required=False,
        help_text="Whether there is content that only operators get: no scan of it has come to its end, or a secret was"
        " found in it.",
    )


class BundleStatusSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["created", "updated", "deleted"])


class ScanStartedSerializer(ResponseSerializer):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["queued"])
