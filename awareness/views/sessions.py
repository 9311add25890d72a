"""Session scopes: what sessions of agents may see, and taking it away."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from awareness import selectors
from awareness.services import sessions
from opencrane.console.listing import FilterBar, capped_count, listing
from opencrane.console.pages import ConsoleAction, ConsolePage


class SessionList(ConsolePage):
    resource = "sessions"
    title = "Session scopes"
    template_name = "awareness/sessions.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        bar = FilterBar(request, [], "Search session or principal")
        found = selectors.sessions_listed(bar.search)
        page = listing(request, selectors.SESSIONS_NEWEST, found)
        return self.render({"bar": bar, "listing": page, "count": capped_count(found)})


class ClearSession(ConsoleAction):
    resource = "sessions"

    def act(self) -> str:
        key = self.request.POST.get("session", "")
        sessions.clear_session_scope(session_key=key, actor=self.actor)
        messages.success(self.request, f"Session {key} may see nothing any more.")
        return self.back()

    def back(self) -> str:
        return self.next_or(reverse("admin:sessions"))


def register() -> None:
    """Called by `awareness.admin`."""
    site: Any = admin.site
    site.add_page("sessions/", SessionList.as_view(), "sessions")
    site.add_page("sessions/clear/", ClearSession.as_view(), "session_clear")
    site.add_navigation("Awareness", "Session scopes", "forum", "admin:sessions", resource="sessions", position=38)
