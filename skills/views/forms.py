"""The form of a bundle's own fields and its content."""

import base64
from collections.abc import Mapping
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest

from opencrane.console.forms import FormField, ObjectForm, Section
from policies.models import Scope
from skills import reading, rules
from skills.api.serializers import CreateBundleSerializer, UpdateBundleSerializer
from skills.errors import ContentTooLargeError
from skills.models import SkillBundle

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


class BundleForm(ObjectForm[SkillBundle]):
    """The fields of a bundle, and its content as text or as a file.

    Attributes:
        content: the text.
        upload: the file, which goes before the text.
        can_edit_text: whether the content is text of a length that a form can hold.
    """

    sections = SECTIONS
    creates, updates = CreateBundleSerializer, UpdateBundleSerializer
    taken = "version"

    def __init__(self, raw: Mapping[str, Any], *, is_new: bool = False, content: str = "") -> None:
        super().__init__(raw, is_new=is_new)
        self.content = content
        self.upload: UploadedFile[Any] | None = None
        self.can_edit_text = True

    @classmethod
    def blank(cls) -> "BundleForm":
        raw = {"scope": "org", "version": "1.0.0", "contentType": "text/markdown"}
        return cls(raw, is_new=True, content="---\nname: \ndescription: \n---\n\n")

    @classmethod
    def of(cls, bundle: SkillBundle, *, with_content: bool = True) -> "BundleForm":
        raw = {name: getattr(bundle, name) for name in ("name", "version", "description", "scope")}
        raw |= {"tags": "\n".join(bundle.tags), "sourceName": bundle.source_name, "contentType": bundle.content_type}
        text = reading.text_of(bundle.pk) if with_content and (bundle.content_size or 0) <= TEXTAREA_MAX else None
        form = cls(raw, content=text or "")
        form.can_edit_text = text is not None or bundle.content_size is None
        return form

    @classmethod
    def posted(cls, request: HttpRequest, *, is_new: bool = False) -> "BundleForm":
        form = super().posted(request, is_new=is_new)
        form.raw["contentType"] = request.POST.get("contentType", "").strip()
        # Browsers send line breaks as CRLF; nothing else about the content is touched.
        form.content = request.POST.get("content", "").replace("\r\n", "\n")
        form.upload = request.FILES.get("file")
        form.can_edit_text = "content" in request.POST
        return form

    def created(self) -> dict[str, Any] | None:
        return self.checked(self.creates, self.body() | self._content())

    def changes(self, bundle: SkillBundle) -> dict[str, Any] | None:
        before = self.of(bundle)
        body = self.body(self.touched(before))
        is_other = self.content != before.content.replace("\r\n", "\n") and bool(self.content)
        if self.upload is not None or (self.can_edit_text and is_other):
            body |= self._content()
        elif self.raw["contentType"] != before.raw["contentType"]:
            body["contentType"] = self.raw["contentType"]
        return self.checked(self.updates, body)

    def checked(self, serializer_class: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        if self.errors:
            return None
        try:
            return super().checked(serializer_class, body)
        except ContentTooLargeError as exc:
            self.note(exc.fields)
            return None

    def input_for(self, path: str) -> str:
        where = path.partition(".")[0]
        if where in {"content", "contentBase64", "digest"}:
            return "content"
        return where if where == "contentType" else super().input_for(path)

    @property
    def types(self) -> list[str]:
        own = self.raw.get("contentType", "")
        return [*TYPES, *([own] if own and own not in TYPES else [])]

    def _content(self) -> dict[str, Any]:
        content_type = {"contentType": self.raw["contentType"] or rules.DEFAULT_TYPE}
        if self.upload is None:
            return content_type | {"content": self.content}
        if (self.upload.size or 0) > rules.CONTENT_MAX_BYTES:
            self.note({"content": [f"The file has to be at most {rules.CONTENT_MAX_BYTES} bytes."]})
            return {}
        data = self.upload.read()
        if not data:
            self.note({"content": ["The file is empty."]})
        return content_type | {"contentBase64": base64.b64encode(data).decode()}
