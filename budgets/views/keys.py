"""LiteLLM keys: the list, and those of one tenant with rotate, revoke and apply again."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from budgets import litellm, reading
from budgets.errors import LitellmKeyNotFoundError
from budgets.models import LitellmKey
from budgets.services import keys
from opencrane.console.listing import Filter
from opencrane.console.lists import ListPage
from opencrane.console.pages import ActionSet, ConsolePage
from opencrane.errors import InvalidError
from tenants.errors import TenantNotFoundError
from tenants.selectors import tenant_named

STATES = {
    "wanted": ("info", "hourglass_top", "Being issued"),
    "active": ("ok", "key", "Active"),
    "retiring": ("muted", "timer", "In its grace"),
    "revoking": ("warn", "key_off", "Being revoked"),
    "revoked": ("muted", "block", "Revoked"),
}


class KeyList(ListPage):
    resource = "ai-budget"
    title = "LiteLLM keys"
    template_name = "budgets/keys.html"
    noun = "key"
    search = "Search tenants"
    keyset = reading.KEYS_BY_NAME

    def filters(self) -> list[Filter]:
        states = [(key, words[2]) for key, words in STATES.items()]
        return [Filter("state", "State", "choice", [("failing", "Failing"), ("drifted", "Drifted"), *states])]

    def found(self, filters: dict[str, str]) -> QuerySet[LitellmKey]:
        return reading.keys_listed(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        return [{"state": STATES[key.state]} for key in objects]

    def more(self) -> dict[str, Any]:
        return {"litellm": litellm.is_configured()}


class KeyPage(ConsolePage):
    resource = "ai-budget"
    template_name = "budgets/key.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        found = reading.keys_of_name(name)
        try:
            tenant = tenant_named(name)
        except TenantNotFoundError as exc:
            tenant = None
            if not found:
                raise LitellmKeyNotFoundError(f"No tenant {name} ever had a LiteLLM key.") from exc
        current = found[0] if found else None
        return self.render(
            {
                "title": f"LiteLLM key of {name}",
                "name": name,
                "tenant": tenant,
                "key": current,
                "state": STATES[current.state] if current else None,
                "is_live": any(key.state != LitellmKey.State.REVOKED for key in found),
                "is_waiting": any(key.state in {"wanted", "revoking"} for key in found),
                "rows": [{"key": key, "state": STATES[key.state]} for key in found],
                "litellm": litellm.is_configured(),
                "grace": settings.LITELLM_GRACE_SECONDS // 60,
            }
        )


class KeyActions(ActionSet):
    resource = "ai-budget"

    def do_rotate(self, name: str) -> None:
        """Also issues a first one."""
        minutes = self.request.POST.get("grace", "").strip()
        if not (minutes.isascii() and minutes.isdigit() and len(minutes) < 7):
            raise InvalidError("Nothing was done: the grace is a whole number of minutes.")
        keys.rotate_key(tenant_name=name, grace_seconds=int(minutes) * 60, actor=self.actor)
        messages.info(self.request, "A worker gets a new key; how far it is shows here.")

    def do_revoke(self, name: str) -> None:
        self.require_typed(name, "revoked")
        keys.revoke_key(tenant_name=name, actor=self.actor)
        messages.success(self.request, "The key is dead in LiteLLM and its Secret is gone.")

    def do_sync(self, name: str) -> None:
        keys.resync_key(tenant_name=name, actor=self.actor)
        messages.info(self.request, "A worker applies it again; how far it is shows here.")

    def back(self, *, name: str, action: str) -> str:
        return reverse("admin:litellm_key", args=[name])


def register() -> None:
    """Called by `budgets.admin`."""
    site: Any = admin.site
    site.add_page("litellm-keys/", KeyList.as_view(), "litellm_keys")
    site.add_page("litellm-keys/<str:name>/", KeyPage.as_view(), "litellm_key")
    site.add_page("litellm-keys/<str:name>/do/<str:action>/", KeyActions.as_view(), "litellm_key_do")
    site.add_object_page("LitellmKey", "admin:litellm_key")
    site.add_navigation("Money", "LiteLLM keys", "key", "admin:litellm_keys", resource="ai-budget", position=39)
