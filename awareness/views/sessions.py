"""Session scopes: what sessions of agents may see, and taking it away."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.urls import reverse

from awareness import selectors
from awareness.models import SessionScope
from awareness.services import sessions
from opencrane.console.lists import ListPage
from opencrane.console.pages import ConsoleAction


class SessionList(ListPage):
    resource = "sessions"
    title = "Session scopes"
    template_name = "awareness/sessions.html"
    noun = "session"
    search = "Search session or principal"
    keyset = selectors.SESSIONS_NEWEST

    def found(self, filters: dict[str, str]) -> QuerySet[SessionScope]:
        return selectors.sessions_listed(filters.get("q", ""))


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
