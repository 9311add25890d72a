"""Provider keys: sealed here, in one Secret there, and never given back."""

import datetime
import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from budgets.models import ProviderKey, ProviderSecret
from budgets.providers import WELL_KNOWN
from budgets.services import provider_keys
from cluster.secrets import apply_secret, delete_secret, secret_data
from conftest import ApiClient
from operations.models import AuditEntry

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.cluster]
NAME = "opencrane-provider-keys"
VALUE = "sk-very-unique-provider-key-2718281828"
KEYS = "/providers/keys"


@pytest.fixture(autouse=True)
def no_secret(cluster_namespace: str) -> None:
    delete_secret(name=NAME)


def stored() -> dict[str, str] | None:
    return secret_data(name=NAME)


def test_the_list_has_well_known_providers_too(api: ApiClient) -> None:
    found = api.get(KEYS).json()
    assert [item["provider"] for item in found] == sorted(WELL_KNOWN)
    assert {(item["configured"], item["updatedAt"]) for item in found} == {(False, None)}


def test_a_key_is_sealed_and_brought_into_the_secret(api: ApiClient) -> None:
    answer = api.put(f"{KEYS}/openai", {"apiKey": VALUE})
    assert (answer.status_code, answer.json()["configured"]) == (200, True)
    assert answer.json()["updatedAt"]
    assert stored() == {"OPENAI_API_KEY": VALUE}
    api.put(f"{KEYS}/my-own-gateway", {"apiKey": "another-key-0123"})
    assert stored() == {"OPENAI_API_KEY": VALUE, "MY_OWN_GATEWAY_API_KEY": "another-key-0123"}
    assert [item["provider"] for item in api.get(KEYS).json() if item["configured"]] == ["my-own-gateway", "openai"]

    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(p::text, ' ') FROM budgets_providerkey p")
        assert VALUE not in cursor.fetchone()[0]
    seen = api.get(KEYS).content.decode() + api.get("/audit").content.decode() + repr(ProviderKey.objects.all())
    assert VALUE not in seen

    # The same again is no change.
    before = ProviderSecret.objects.get().generation
    api.put(f"{KEYS}/openai", {"apiKey": VALUE})
    assert ProviderSecret.objects.get().generation == before
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["provider_key.created", "provider_key.created"]

    assert api.put(f"{KEYS}/openai", {"apiKey": "sk-replaced-0123"}).status_code == 200
    assert (stored() or {})["OPENAI_API_KEY"] == "sk-replaced-0123"
    assert api.delete(f"{KEYS}/openai").status_code == 204
    assert stored() == {"MY_OWN_GATEWAY_API_KEY": "another-key-0123"}
    answer = api.delete(f"{KEYS}/openai")
    assert (answer.status_code, answer.json()["code"]) == (404, "PROVIDER_KEY_NOT_FOUND")


@pytest.mark.parametrize(
    ("provider", "status"),
    [
        ("Open", 400),
        ("a/b", 404),
        ("a%2Fb", 404),
        ("a_b", 400),
        ("-a", 400),
        ("a" * 64, 400),
        ("%20", 400),
        ("..", 400),
    ],
)
def test_what_is_no_provider_is_refused(api: ApiClient, provider: str, status: int) -> None:
    assert api.put(f"{KEYS}/{provider}", {"apiKey": VALUE}).status_code == status
    assert not ProviderKey.objects.exists()


@pytest.mark.parametrize(
    "key", ["short", "", None, 12345678, "with space in it", "umlaut-ü-0123", "x" * 4097, "a\nb" * 5]
)
def test_what_is_no_key_is_refused_and_not_repeated(api: ApiClient, key: Any) -> None:
    answer = api.put(f"{KEYS}/openai", {"apiKey": key})
    assert (answer.status_code, set(answer.json()["fields"])) == (400, {"apiKey"})
    assert "0123" not in answer.content.decode()


def test_drift_is_noted_by_name_and_mended_on_demand(api: ApiClient) -> None:
    api.put(f"{KEYS}/openai", {"apiKey": VALUE})
    api.put(f"{KEYS}/groq", {"apiKey": VALUE})

    def drift() -> str:
        ProviderSecret.objects.update(checked_at=timezone.now() - datetime.timedelta(hours=1))
        provider_keys.sweep()
        return ProviderSecret.objects.get().drift

    assert drift() == ""
    apply_secret(name=NAME, data={"OPENAI_API_KEY": "stolen", "X": "y"})
    assert drift() == (
        "The Secret lacks GROQ_API_KEY. The Secret has X, which nobody stored here."
        " The Secret has another value for OPENAI_API_KEY."
    )
    delete_secret(name=NAME)
    assert drift() == f"Secret {NAME} is gone."
    assert AuditEntry.objects.filter(action="provider_key.drifted").count() == 2


def test_a_secret_that_cannot_be_written_lags_and_catches_up(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.client import reset_cluster_client

    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    reset_cluster_client()
    try:
        assert api.put(f"{KEYS}/openai", {"apiKey": VALUE}).status_code == 200
    finally:
        monkeypatch.undo()
        reset_cluster_client()
    state = ProviderSecret.objects.get()
    assert (bool(state.error), bool(state.failing_since), state.observed_generation) == (True, True, 0)
    ProviderSecret.objects.update(not_before=timezone.now())
    provider_keys.sweep()
    assert stored() == {"OPENAI_API_KEY": VALUE}
    assert ProviderSecret.objects.get().error == ""


@pytest.fixture
def provider(settings: Any) -> Iterator[list[Any]]:
    """A provider's models endpoint: the status to answer with, then the headers of each request."""
    state: list[Any] = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.append(dict(self.headers))
            self.send_response(state[0])
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/v1/models"
    settings.PROVIDER_MODELS_URLS = {"openai": url, "anthropic": url}
    settings.OUTBOUND_ALLOW = [ipaddress.ip_network("127.0.0.0/8")]
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_provider_is_asked_only_when_somebody_presses_the_button(
    api: ApiClient, viewer_api: ApiClient, provider: list[Any], settings: Any
) -> None:
    assert api.post(f"{KEYS}/openai/test").status_code == 404
    for name in ("openai", "anthropic", "azure"):
        api.put(f"{KEYS}/{name}", {"apiKey": VALUE})
    provider_keys.sweep()
    assert viewer_api.post(f"{KEYS}/openai/test").status_code == 403
    assert len(provider) == 1
    answers = {}
    for status in (200, 401, 500):
        provider[0] = status
        answers[status] = api.post(f"{KEYS}/openai/test").json()["passed"]
    assert answers == {200: True, 401: False, 500: None}
    assert provider[1]["Authorization"] == f"Bearer {VALUE}"
    api.post(f"{KEYS}/anthropic/test")
    assert provider[-1]["x-api-key"] == VALUE
    assert api.post(f"{KEYS}/azure/test").status_code == 400
    assert VALUE not in api.get("/audit").content.decode()
    # Addresses of our own network are not asked, unless the settings say so.
    settings.OUTBOUND_ALLOW = []
    asked = len(provider)
    answer = api.post(f"{KEYS}/openai/test").json()
    assert (answer["passed"], len(provider)) == (None, asked)
    assert "could not be reached" in answer["result"]
