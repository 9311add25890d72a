"""Pages for people outside the console: approving a device, a sign-in that failed. No skin, no script, either theme."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from opencrane.errors import DomainError

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    # Without a referrer a browser sends its forms with the origin `null`, which the CSRF check refuses.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def plain_page(request: HttpRequest, template: str, values: dict[str, Any], *, status: int = 200) -> HttpResponse:
    """A template that extends `console/plain.html`, with headers as tight as such a page can have them."""
    content = render_to_string(template, {"request_id": getattr(request, "request_id", ""), **values}, request)
    return HttpResponse(content, status=status, headers=_HEADERS)


def error_page(request: HttpRequest, error: DomainError) -> HttpResponse:
    """A refusal as such a page."""
    response = plain_page(request, "console/plain_error.html", {"error": error}, status=error.http_status)
    for name, value in error.headers.items():
        response.headers[name] = value
    return response


def wants_page(request: HttpRequest) -> bool:
    """Whether a browser is asking, rather than a program."""
    return "text/html" in request.META.get("HTTP_ACCEPT", "")
