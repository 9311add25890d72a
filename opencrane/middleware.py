"""The two layers around every request: one that all pass, and one for the console alone.

The API authenticates by itself and needs no session, message or CSRF middleware; leaving them out halves the cost of a
small response.
"""

import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.module_loading import import_string
from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]

from opencrane import metrics
from opencrane.addresses import client_address, is_from_trusted_proxy
from opencrane.api.bodies import drain, has_unread_body
from opencrane.api.errors import BadRequestError, is_machine_path, refuse
from opencrane.errors import DomainError, InvalidError, NotFoundError

log = structlog.get_logger("opencrane.requests")

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SLOW_SECONDS = 1.0
_INTERNAL = "/api/internal/"

_MACHINE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
# Alpine, which the admin skin uses, evaluates expressions, and both set style attributes.
_PARTS = (
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
ADMIN_POLICY = f"default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; {_PARTS}"
PAGE_POLICY = f"default-src 'none'; script-src 'self'; style-src 'self'; {_PARTS}"
# Nothing here asks for any of them, and nothing that gets in should be able to.
_PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


class RequestContextMiddleware:
    """Gives every request an id and a known address, and every response its headers, its metrics and its log line.

    Also refuses what no view should have to think about: NUL characters and bad UTF-8 in paths and queries, and Host
    headers of others. Changes and failures are logged at INFO, reads at DEBUG.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        meta = request.META
        given = meta.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        request.client_address = client_address(meta, settings.TRUSTED_PROXIES)  # type: ignore[attr-defined]
        if "HTTP_X_FORWARDED_PROTO" in meta and not is_from_trusted_proxy(meta, settings.TRUSTED_PROXIES):
            del meta["HTTP_X_FORWARDED_PROTO"]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)

        refusal = _refusal(request)
        response = self.get_response(request) if refusal is None else refuse(request, refusal)
        if has_unread_body(request):
            # A server that answers before the caller has sent its body closes the connection; the answer may be lost.
            _drain_quietly(request)

        response.headers["X-Request-ID"] = request_id
        if settings.SECURE_HSTS_SECONDS and _is_over_tls(meta):
            response.headers["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}"
        if is_machine_path(request.path_info):
            for name, value in _MACHINE_HEADERS.items():
                response.headers.setdefault(name, value)
        if isinstance(response, HttpResponse):
            _measure(request, response)
        self._note(request, response, time.perf_counter() - started)
        return response

    def _note(self, request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
        status = response.status_code
        match = request.resolver_match
        metrics.observe_request(request.method or "", match.route if match else "", status, seconds)
        # What pods report all the time is no change that anybody asked for.
        is_routine = request.method in _SAFE_METHODS or (status < 300 and request.path_info.startswith(_INTERNAL))
        is_worth_a_line = not is_routine or status >= 500 or seconds >= _SLOW_SECONDS
        (log.info if is_worth_a_line else log.debug)(
            "request",
            method=request.method,
            path=request.path,
            status=status,
            milliseconds=round(seconds * 1000, 1),
            address=request.client_address,  # type: ignore[attr-defined]
        )


def _is_over_tls(meta: dict[str, Any]) -> bool:
    """Whether the caller came by TLS, here or at a proxy that may say so: of others the header is gone by now."""
    return meta.get("HTTP_X_FORWARDED_PROTO") == "https" or meta.get("wsgi.url_scheme") == "https"


def _refusal(request: HttpRequest) -> DomainError | None:
    path = request.path_info
    if "\x00" in path:
        return NotFoundError()
    query: str = request.META.get("QUERY_STRING", "")
    if query and not _is_clean(query):
        return InvalidError("The query string holds a NUL character or is not UTF-8.")
    if path.startswith("/api"):
        try:
            request.get_host()
        except DisallowedHost:
            return BadRequestError("The Host header names a host this server does not answer for.")
    return None


def _is_clean(query: str) -> bool:
    if "%" not in query and query.isascii():
        return "\x00" not in query
    try:
        # WSGI hands bytes over as Latin-1 (PEP 3333).
        raw = unquote_to_bytes(query.encode("latin-1"))
        raw.decode("utf-8")
    except UnicodeError:
        return False
    return b"\x00" not in raw


def _drain_quietly(request: HttpRequest) -> None:
    try:
        drain(request)
    except DomainError:
        log.debug("body ended early")


def _measure(request: HttpRequest, response: HttpResponse) -> None:
    """Content-Length for what has a body, so that nobody has to chunk it; HEAD keeps the length and loses the body."""
    status = response.status_code
    if status in (204, 304) or status < 200:
        return
    if "Content-Length" not in response.headers:
        response.headers["Content-Length"] = str(len(response.content))
    if request.method == "HEAD":
        length = response.headers["Content-Length"]
        response.content = b""
        response.headers["Content-Length"] = length


class ConsoleOnlyMiddleware:
    """Runs CONSOLE_MIDDLEWARE, but only for what people look at; machine paths go straight to the view."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._view_hooks: list[Any] = []
        self._exception_hooks: list[Any] = []
        self._template_hooks: list[Any] = []
        chain: Any = get_response
        for dotted in reversed(settings.CONSOLE_MIDDLEWARE):
            layer = import_string(dotted)(chain)
            # What Django's handler does for the layers it knows (django/core/handlers/base.py, load_middleware).
            if hasattr(layer, "process_view"):
                self._view_hooks.insert(0, layer.process_view)
            if hasattr(layer, "process_exception"):
                self._exception_hooks.append(layer.process_exception)
            if hasattr(layer, "process_template_response"):
                self._template_hooks.append(layer.process_template_response)
            chain = convert_exception_to_response(layer)
        self._console = chain

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_machine_path(request.path_info):
            return self.get_response(request)
        response: HttpResponseBase = self._console(request)
        is_admin = request.path_info.startswith("/admin")
        response.headers.setdefault("Content-Security-Policy", ADMIN_POLICY if is_admin else PAGE_POLICY)
        response.headers.setdefault("Permissions-Policy", _PERMISSIONS)
        return response

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponseBase | None:
        if is_machine_path(request.path_info):
            return None
        return _first(hook(request, view, args, kwargs) for hook in self._view_hooks)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        if is_machine_path(request.path_info):
            return None
        return _first(hook(request, exception) for hook in self._exception_hooks)

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        if not is_machine_path(request.path_info):
            for hook in self._template_hooks:
                response = hook(request, response)
        return response


def _first(answers: Any) -> Any:
    return next((answer for answer in answers if answer is not None), None)


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise from the apps' own folders as long as nobody has run collectstatic."""

    def add_files(self, root: str, prefix: str | None = None) -> None:
        if Path(root).is_dir():
            super().add_files(root, prefix)
