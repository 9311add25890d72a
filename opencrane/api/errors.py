"""Turn every failure into the error envelope: our refusals, Django's, DRF's, and crashes.

The exception handler covers what a view raises; the `handle_…` functions (named in urls.py) cover what happens outside
of views: unknown routes, bad requests, crashes in middleware.
"""

import sys
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import DisallowedHost, PermissionDenied, SuspiciousOperation, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.utils.html import escape
from psycopg_pool import PoolTimeout, TooManyRequests
from rest_framework import exceptions

from opencrane.api.bodies import MalformedBodyError, UnsupportedMediaTypeError
from opencrane.api.responses import error_response
from opencrane.api.serializers import flatten_errors
from opencrane.errors import (
    DependencyUnavailableError,
    DomainError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
)

log = structlog.get_logger(__name__)

DATABASE_ERRORS = (OperationalError, InterfaceError, PoolTimeout, TooManyRequests)


class MethodNotAllowedError(DomainError):
    code, http_status, default_message = "METHOD_NOT_ALLOWED", 405, "This method is not allowed here."


class NotAcceptableError(DomainError):
    code, http_status, default_message = "NOT_ACCEPTABLE", 406, "Only application/json can be given here."


class RateLimitedError(DomainError):
    code, http_status, default_message = "RATE_LIMITED", 429, "Too many requests; try again later."


class BadRequestError(InvalidError):
    """A request that HTTP or the framework refuses before any view sees it."""


def database_away(exc: BaseException) -> DependencyUnavailableError:
    """503 for a database that cannot be reached, is overloaded, or broke off; logged, as the caller learns little."""
    log.warning("database away", error=str(exc).strip())
    return DependencyUnavailableError(
        "PostgreSQL is not available.", detail="Try again in a few seconds.", headers={"Retry-After": "5"}
    )


def to_domain_error(exc: BaseException) -> DomainError | None:
    """The refusal an exception stands for; None when it is a crash."""
    match exc:
        case DomainError():
            return exc
        case exceptions.ValidationError():
            return InvalidError(fields=flatten_errors(exc.detail))
        case ValidationError():
            fields = exc.message_dict if hasattr(exc, "error_dict") else {"body": exc.messages}
            return InvalidError(fields=fields)
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return UnauthorizedError(str(exc.detail))
        case exceptions.PermissionDenied() | PermissionDenied():
            return ForbiddenError(str(getattr(exc, "detail", "") or exc))
        case exceptions.NotFound() | Http404():
            return NotFoundError()
        case exceptions.MethodNotAllowed():
            return MethodNotAllowedError()
        case exceptions.NotAcceptable():
            return NotAcceptableError()
        case exceptions.UnsupportedMediaType():
            return UnsupportedMediaTypeError()
        case exceptions.ParseError() | UnreadablePostError():
            return MalformedBodyError()
        case exceptions.Throttled():
            wait = max(1, round(getattr(exc, "wait", None) or 1))
            return RateLimitedError(headers={"Retry-After": str(wait)})
        case DisallowedHost():
            return BadRequestError("The Host header names a host this server does not answer for.")
        case SuspiciousOperation():
            return BadRequestError()
    if isinstance(exc, DATABASE_ERRORS):
        return database_away(exc)
    return None


def exception_handler(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's EXCEPTION_HANDLER. None lets a crash through to `handle_crash`."""
    error = to_domain_error(exc)
    if error is None:
        return None
    response = error_response(error)
    if isinstance(exc, exceptions.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response


def wants_json(request: HttpRequest) -> bool:
    """Whether an error should be JSON: always on machine paths, elsewhere unless a browser asks for a page."""
    return is_machine_path(request.path_info) or "text/html" not in request.META.get("HTTP_ACCEPT", "")


def is_machine_path(path: str) -> bool:
    """API, health checks and metrics, as opposed to the console."""
    return path.startswith("/api/") or path in {"/api", "/healthz", "/readyz", "/metrics", "/prom"}


def refuse(request: HttpRequest, error: DomainError) -> HttpResponse:
    """The error as JSON or as a small page, as the caller can read it."""
    if wants_json(request):
        return error_response(error)
    phrase = HTTPStatus(error.http_status).phrase
    reference = escape(getattr(request, "request_id", ""))
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{phrase}</title><h1>{phrase}</h1>"
        f"<p>{escape(error.message)} {escape(error.detail)}</p><p><a href=/admin/>Console</a></p>"
        f"<p><small>Request {reference}</small></p></html>"
    )
    return HttpResponse(page, status=error.http_status, headers=error.headers)


def handle_bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400."""
    return refuse(request, to_domain_error(exception) or BadRequestError())


def handle_forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403."""
    return refuse(request, ForbiddenError())


def handle_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler404. Nothing of the route table is told."""
    return refuse(request, NotFoundError())


def handle_crash(request: HttpRequest) -> HttpResponse:
    """handler500: logs the traceback and tells the caller only the request id, by which it can be found."""
    exc = sys.exc_info()[1]
    if isinstance(exc, DATABASE_ERRORS):
        return refuse(request, database_away(exc))
    log.error("request crashed", method=request.method, path=request.path, exc_info=exc)
    request_id = getattr(request, "request_id", "")
    return refuse(request, DomainError("The server failed.", detail=f"The log has more under request {request_id}."))


def handle_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """CSRF_FAILURE_VIEW."""
    return refuse(request, ForbiddenError("The request carries no valid CSRF token.", detail=reason))
