"""Keys of providers: which are kept, whether their Secret follows, and the test that only a button starts."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from rest_framework import serializers

from budgets import reading, selectors
from budgets.api.serializers import ProviderKeyBodySerializer
from budgets.providers import WELL_KNOWN, provider_named
from budgets.services import provider_keys
from opencrane import encryption
from opencrane.api.serializers import flatten_errors
from opencrane.console.pages import ActionSet, ConsolePage
from opencrane.errors import InvalidError


class ProviderKeysPage(ConsolePage):
    resource = "provider-keys"
    title = "Provider keys"
    template_name = "budgets/provider_keys.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        kept = selectors.provider_keys()
        rows = [
            {"name": name, "provider": provider_named(name), "key": kept.get(name)}
            for name in sorted({*kept, *WELL_KNOWN}, key=lambda name: (name not in kept, name))
        ]
        secret = reading.provider_secret()
        return self.render(
            {
                "rows": rows,
                "kept": len(kept),
                "secret": secret,
                "secret_name": provider_keys.SECRET_NAME,
                "is_behind": secret is not None and secret.observed_generation < secret.generation,
                "can_seal": encryption.is_configured(),
            }
        )


class ProviderKeyActions(ActionSet):
    resource = "provider-keys"

    def do_set(self) -> None:
        provider = self._provider
        provider_keys.set_key(provider=provider, api_key=self._key(), actor=self.actor)
        messages.success(self.request, f"The key of {provider} is kept, sealed. A worker brings it to LiteLLM.")

    def do_delete(self) -> None:
        provider = self._provider
        self.require_typed(provider)
        provider_keys.delete_key(provider=provider, actor=self.actor)
        messages.success(self.request, f"The key of {provider} is deleted.")

    def do_test(self) -> None:
        provider = self._provider
        row = provider_keys.test_key(provider=provider, actor=self.actor)
        tell = {True: messages.success, False: messages.error, None: messages.warning}[row.test_passed]
        tell(self.request, f"{provider}: {row.test_result}")

    def do_sync(self) -> None:
        provider_keys.resync(actor=self.actor)
        messages.info(self.request, "A worker writes the Secret again; how far it is shows here.")

    @property
    def _provider(self) -> str:
        return self.request.POST.get("provider", "").strip()

    def _key(self) -> str:
        serializer: Any = ProviderKeyBodySerializer(data={"apiKey": self.request.POST.get("apiKey", "").strip()})
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            reasons = [reason for found in flatten_errors(exc.detail).values() for reason in found]
            # What was typed is a secret and does not come back.
            raise InvalidError(f"Nothing was kept. The key: {' '.join(reasons)}") from exc
        key: str = serializer.validated_data["api_key"]
        return key

    def back(self, **path: str) -> str:
        return reverse("admin:provider_keys")


def register() -> None:
    """Called by `budgets.admin`."""
    site: Any = admin.site
    site.add_page("provider-keys/", ProviderKeysPage.as_view(), "provider_keys")
    site.add_page("provider-keys/do/<str:action>/", ProviderKeyActions.as_view(), "provider_key_do")
    site.add_navigation(
        "Money", "Provider keys", "vpn_key", "admin:provider_keys", resource="provider-keys", position=39
    )
