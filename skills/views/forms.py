"""The form of a bundle's own fields, checked by the API's serializers."""

import base64
from collections.abc import Mapping
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from rest_framework import serializers

from opencrane.api.serializers import flatten_errors
from policies.models import Scope
from skills import reading, rules
from skills.api.serializers import CreateBundleSerializer, UpdateBundleSerializer
from skills.errors import ContentTooLargeError
from skills.models import SkillBundle
from tenants.views.forms import FormField, Section

TYPES = ("text/markdown", "text/plain", "application/zip", "application/gzip")
# A form's text beyond that is refused by Django before anybody looks at it; files are not.
TEXTAREA_MAX = 1024 * 1024
SECTIONS = (
    Section(
        "Skill",
        (
            FormField("name", "Name", help="Lower-case letters, digits and dashes, as in SKILL.md.", is_required=True),
            FormField("version", "Version", help="A semantic version, such as 1.0.0.", is_required=True),
            FormField("description", "Description"),
            FormField("scope", "Scope", "select", options=tuple((each.value, each.label) for each in Scope)),
            FormField("tags", "Tags", "lines", "One on each line."),
            FormField("sourceName", "Source", help="Where it came from, if not from here."),
        ),
    ),
)
CONTENT = FormField("content", "Content", "object", "SKILL.md with its front matter, or a zip or tar.gz with one.")
_FIELDS = {each.name: each for section in SECTIONS for each in section.fields}
_COLUMNS = {"sourceName": "source_name", "contentType": "content_type"}


class BundleForm:
    """What was filled in, and what is wrong with it: input name to reasons, `body` for what belongs to none.

    Attributes:
        can_edit_text: whether the content is text of a length that a form can hold.
    """

    def __init__(
        self, raw: dict[str, str], upload: UploadedFile[Any] | None = None, *, can_edit_text: bool = True
    ) -> None:
        self.raw = raw
        self.upload = upload
        self.errors: dict[str, list[str]] = {}
        self.can_edit_text = can_edit_text

    @classmethod
    def blank(cls) -> "BundleForm":
        text = "---\nname: \ndescription: \n---\n\n"
        return cls({"scope": "org", "version": "1.0.0", "contentType": "text/markdown", "content": text})

    @classmethod
    def of(cls, bundle: SkillBundle, *, with_content: bool = True, **changes: str) -> "BundleForm":
        raw = {name: str(getattr(bundle, _COLUMNS.get(name, name))) for name in _FIELDS if name != "tags"}
        text = reading.text_of(bundle.pk) if with_content and (bundle.content_size or 0) <= TEXTAREA_MAX else None
        content = {"contentType": bundle.content_type, "content": text or ""}
        can_edit = text is not None or bundle.content_size is None
        return cls(raw | {"tags": "\n".join(bundle.tags)} | content | changes, can_edit_text=can_edit)

    @classmethod
    def posted(cls, post: Mapping[str, str], files: Mapping[str, Any]) -> "BundleForm":
        raw = {name: post.get(name, "").replace("\r\n", "\n").strip() for name in (*_FIELDS, "contentType")}
        # Browsers send line breaks as CRLF; nothing else about the content is touched.
        raw["content"] = post.get("content", "").replace("\r\n", "\n")
        return cls(raw, files.get("file"), can_edit_text="content" in post)

    def created(self) -> dict[str, Any] | None:
        """The checked body of a create; None when `errors` says why not."""
        body = {name: self._value(name) for name in _FIELDS}
        return self._checked(CreateBundleSerializer, {k: v for k, v in body.items() if v is not None} | self._content())

    def changes(self, bundle: SkillBundle) -> dict[str, Any] | None:
        """The checked fields that were touched; None when `errors` says why not."""
        before = self.of(bundle).raw
        touched = {name: self._value(name) for name in _FIELDS if self.raw[name] != before[name].strip()}
        for required in ("name", "version"):
            if required in touched and touched[required] is None:
                touched[required] = ""
        is_other = self.raw["content"] != before["content"].replace("\r\n", "\n") and bool(self.raw["content"])
        if self.upload is not None or (self.can_edit_text and is_other):
            touched |= self._content()
        elif self.raw["contentType"] != before["contentType"]:
            touched["contentType"] = self.raw["contentType"]
        return self._checked(UpdateBundleSerializer, touched)

    def note(self, fields: Mapping[str, list[str]]) -> None:
        known = {*_FIELDS, "contentType", "content"}
        for path, reasons in fields.items():
            where = path.partition(".")[0]
            where = "content" if where in {"contentBase64", "digest"} else where
            self.errors.setdefault(where if where in known else "body", []).extend(reasons)

    def sections(self) -> list[dict[str, Any]]:
        """The form for the template."""
        return [
            {
                "title": section.title,
                "inputs": [
                    {"field": each, "value": self.raw.get(each.name, ""), "errors": self.errors.get(each.name, [])}
                    for each in section.fields
                ],
            }
            for section in SECTIONS
        ]

    @property
    def types(self) -> list[str]:
        own = self.raw.get("contentType", "")
        return [*TYPES, *([own] if own and own not in TYPES else [])]

    def _content(self) -> dict[str, Any]:
        content_type = {"contentType": self.raw["contentType"] or rules.DEFAULT_TYPE}
        if self.upload is None:
            return content_type | {"content": self.raw["content"]}
        if (self.upload.size or 0) > rules.CONTENT_MAX_BYTES:
            self.note({"content": [f"The file has to be at most {rules.CONTENT_MAX_BYTES} bytes."]})
            return {}
        data = self.upload.read()
        if not data:
            self.note({"content": ["The file is empty."]})
        return content_type | {"contentBase64": base64.b64encode(data).decode()}

    def _checked(self, serializer_class: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        if self.errors:
            return None
        serializer = serializer_class(data=body)
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            self.note(flatten_errors(exc.detail))
        except ContentTooLargeError as exc:
            self.note(exc.fields)
        return None if self.errors else dict(serializer.validated_data)

    def _value(self, name: str) -> Any:
        text = self.raw.get(name, "")
        if name == "tags":
            return [line.strip() for line in text.split("\n") if line.strip()] or None
        return text or None
