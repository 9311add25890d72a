"""What pods load, under /api/internal: the content of bundles."""

import base64
import re
from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema

from accounts.pods import SKILL_REGISTRY, InternalViewSet
from opencrane.api.responses import is_not_modified
from opencrane.api.viewsets import ApiRequest
from skills.errors import RangeNotSatisfiableError
from skills.services import delivery

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE | re.ASCII)


class InternalBundleViewSet(InternalViewSet):
    """Content by its digest, for the pods of tenants that are entitled to it."""

    audience: ClassVar[str] = SKILL_REGISTRY

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        # The content is of whatever type it is: Accept chooses nothing here (RFC 9110, 12.5.1 allows that).
        self.perform_authentication(request)
        self.check_permissions(request)

    @extend_schema(exclude=True)
    def content(self, request: ApiRequest, digest: str) -> HttpResponse:
        """The bytes, or those of one range of them; 404 alike for what is unknown and what is not for this tenant."""
        found = delivery.delivery_for(tenant_id=self.tenant_id, digest=digest)
        entity_tag = f'"{digest}"'
        headers = {"ETag": entity_tag, "Accept-Ranges": "bytes"}
        if is_not_modified(request, entity_tag):
            return HttpResponse(status=304, headers=headers)
        content = delivery.content_for(found)
        # RFC 9530: of the whole content, whatever part of it is sent.
        headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(digest.removeprefix('sha256:'))).decode()}:"
        status = 200
        wanted = _wanted(request, entity_tag, len(content))
        if wanted is not None:
            first, last = wanted
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        headers["Content-Length"] = str(len(content))
        return HttpResponse(content, status=status, content_type=found.content_type, headers=headers)


def _wanted(request: ApiRequest, entity_tag: str, length: int) -> tuple[int, int] | None:
    """First and last byte of the range asked for (RFC 9110, 14); None for all.

    Several ranges, other units and what is no range are passed over, as is a range of another content (If-Range).

    Raises:
        RangeNotSatisfiableError: no byte is in it.
    """
    header = request.META.get("HTTP_RANGE")
    condition = request.META.get("HTTP_IF_RANGE")
    if header is None or request.method != "GET" or (condition is not None and condition.strip() != entity_tag):
        return None
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        count = min(int(match[2]), length)
        first, last = length - count, length - 1
    else:
        first, last = int(match[1]), min(int(match[2]) if match[2] else length - 1, length - 1)
        if match[2] and int(match[2]) < first:
            return None
    if first >= length or first > last:
        raise RangeNotSatisfiableError(headers={"Content-Range": f"bytes */{length}", "Accept-Ranges": "bytes"})
    return first, last
