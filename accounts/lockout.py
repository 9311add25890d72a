"""Too many wrong passwords: django-axes counts them, and these are the places where it meets us."""

import ipaddress
from typing import Any

from axes.backends import AxesStandaloneBackend
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from accounts.models import User
from opencrane.actor import Actor
from opencrane.api.errors import RateLimitedError
from opencrane.api.identity import actor_of
from opencrane.console.plain import error_page
from operations.services import audit

_NAME_MAX = 150


class LockoutBackend(AxesStandaloneBackend):
    """Refuses those that are locked out. What comes by no request, such as a command, is not counted."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> None:
        if request is not None and username is not None:
            super().authenticate(request, username=username, password=password, **kwargs)


def address_of(request: HttpRequest) -> str | None:
    """The caller's address, proxies considered."""
    text = getattr(request, "client_address", "").partition("%")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def name_of(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """The name that was tried, as it is counted: no longer than a name can be, and whatever its case."""
    name = (credentials or {}).get("username") or request.POST.get("username") or ""
    return str(name).replace("\x00", "").strip().lower()[:_NAME_MAX]


def note_lockout(sender: Any, request: HttpRequest, username: str, **_: Any) -> None:
    """Audit that sign-ins to an account are locked; once, and never a name that nobody has: it may be a password."""
    if getattr(request, "axes_failures_since_start", 0) != settings.AXES_FAILURE_LIMIT:
        return
    user = User.objects.filter(username__iexact=username).first()
    if user is None:
        return
    known = actor_of(request)
    with transaction.atomic():
        audit.record(
            action="user.locked_out",
            resource=f"User/{user.username}",
            message=f"Locked sign-ins as {user.username} from {known.address}: too many wrong passwords",
            actor=Actor("system", "sign-in", request_id=known.request_id, address=known.address),
        )


def refuse_login(request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
    """The page for somebody who is locked out; it does not tell whether the name exists."""
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds() // 60)
    error = RateLimitedError(
        "Too many wrong passwords.",
        detail=f"Signing in with this name from your address is locked for {minutes} minutes.",
        headers={"Retry-After": str(minutes * 60)},
    )
    return error_page(request, error)
