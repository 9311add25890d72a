"""Access tokens in the console: the list, a new one, revoking. Administrators see every token, others their own."""

import datetime
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from accounts import selectors
from accounts.models import AccessToken, Role
from accounts.services import issue_token, revoke_token
from opencrane.console.listing import Filter
from opencrane.console.lists import ListPage
from opencrane.console.pages import ConsoleAction, ConsolePage, request_id, sentence
from opencrane.errors import DomainError, InvalidError

STATES = {
    "active": ("ok", "check_circle", "Active"),
    "expired": ("muted", "timer_off", "Expired"),
    "revoked": ("bad", "block", "Revoked"),
}
# Days, as the form offers them.
LIVES = [("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "for ever")]
_LABEL_MAX = 200


class TokenList(ListPage):
    resource = "access-tokens"
    title = "Access tokens"
    template_name = "accounts/tokens.html"
    noun = "access token"
    search = "Search name, owner or first characters"
    keyset = selectors.NEWEST
    new_page = "admin:access_token_new"

    def filters(self) -> list[Filter]:
        return [
            Filter("status", "Status", "choice", [(key, words[2]) for key, words in STATES.items()]),
            Filter("role", "Role", "choice", [(role.value, role.label) for role in Role]),
        ]

    def found(self, filters: dict[str, str]) -> QuerySet[AccessToken]:
        return selectors.tokens_matching(selectors.tokens_of_person(self.request.user), filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        soon = timezone.now() + selectors.SOON
        rows = []
        for token in objects:
            state = selectors.token_state(token)
            ends_soon = state == "active" and token.expires_at is not None and token.expires_at <= soon
            rows.append({"state": STATES[state], "ends_soon": ends_soon})
        return rows

    def more(self) -> dict[str, Any]:
        return {"sees_all": self.request.user.is_superuser or getattr(self.request.user, "role", "") == Role.ADMIN}


class NewToken(ConsolePage):
    """The form; its answer shows the token, once. Like every page of the console it stays in no cache."""

    resource = "access-tokens"
    title = "New access token"
    template_name = "accounts/token_new.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form({"name": "", "owner": "", "role": Role.VIEWER.value, "days": "90"}, {})

    def post(self, request: HttpRequest) -> HttpResponse:
        raw = {
            name: request.POST.get(name, "").replace("\x00", "").strip() for name in ("name", "owner", "role", "days")
        }
        try:
            issued = issue_token(**self._checked(raw), creator_role=self._roles()[0], actor=self.actor)
        except DomainError as exc:
            errors = exc.fields or {"body": [f"{sentence(exc)} (request {request_id(request)})"]}
            return self._form(raw, errors, status=exc.http_status)
        values = {
            "title": "Copy the token now",
            "token": issued.token,
            "secret": issued.secret,
            "api_url": request.build_absolute_uri("/api/v1"),
        }
        return self.render(values, template="accounts/token_made.html")

    def _roles(self) -> list[Role]:
        """What this person may give, from most to least."""
        user: Any = self.request.user
        own = Role.ADMIN if user.is_superuser else Role(user.role)
        return [role for role in Role if role.rank <= own.rank]

    def _checked(self, raw: dict[str, str]) -> dict[str, Any]:
        errors: dict[str, list[str]] = {}
        if not raw["name"]:
            errors["name"] = ["Say what the token is for."]
        for name in ("name", "owner"):
            if len(raw[name]) > _LABEL_MAX:
                errors[name] = [f"Has to be at most {_LABEL_MAX} characters."]
        if raw["role"] not in Role.values:
            errors["role"] = ["Choose one of the roles."]
        if raw["days"] not in dict(LIVES):
            errors["days"] = ["Choose one of the times."]
        if errors:
            raise InvalidError(fields=errors)
        days = raw["days"]
        ends = timezone.now() + datetime.timedelta(days=int(days)) if days else None
        return {"name": raw["name"], "owner": raw["owner"], "role": Role(raw["role"]), "expires_at": ends}

    def _form(self, raw: dict[str, str], errors: Any, status: int = 200) -> HttpResponse:
        roles = [(role.value, role.label) for role in self._roles()]
        return self.render({"raw": raw, "errors": errors, "roles": roles, "lives": LIVES}, status=status)


class RevokeToken(ConsoleAction):
    resource = "access-tokens"

    def act(self, *, token_id: UUID) -> str:
        revoke_token(token_id=token_id, among=selectors.tokens_of_person(self.request.user), actor=self.actor)
        messages.success(self.request, "The token is revoked: it is refused from now on.")
        return self.back()

    def back(self, **_: Any) -> str:
        return self.next_or(reverse("admin:access_tokens"))


def register() -> None:
    """Called by `accounts.admin`."""
    site: Any = admin.site
    site.add_page("access-tokens/", TokenList.as_view(), "access_tokens")
    site.add_page("new-access-token/", NewToken.as_view(), "access_token_new")
    site.add_page("access-tokens/<uuid:token_id>/revoke/", RevokeToken.as_view(), "access_token_revoke")
    site.add_navigation(
        "Administration", "Access tokens", "key", "admin:access_tokens", resource="access-tokens", position=91
    )
