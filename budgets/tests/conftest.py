"""LiteLLM, and workloads that push usage."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from budgets.tests.litellm_server import MASTER_KEY, FakeLitellm
from cluster.client import cluster_client
from conftest import ApiClient
from tests.cluster.pods import forget_reviews, token_of


@pytest.fixture
def litellm(settings: Any) -> Iterator[FakeLitellm]:
    """A LiteLLM that is configured and empty."""
    with FakeLitellm() as server:
        settings.LITELLM_ENDPOINT, settings.LITELLM_MASTER_KEY = server.url, MASTER_KEY
        yield server


@pytest.fixture
def pusher(cluster_namespace: str, settings: Any) -> Iterator[ApiClient]:
    """A workload that may push usage."""
    forget_reviews()
    settings.INTERNAL_CALLERS = {f"{cluster_client().namespace}/usage-pusher": "usage"}
    yield ApiClient(token_of("usage-pusher", "usage"))
    forget_reviews()


@pytest.fixture
def push(pusher: ApiClient) -> Callable[..., dict[str, Any]]:
    """Pushes one record, and expects it to be taken."""

    def pushing(request: str, tenant: str = "anna", cost: float = 1.0, **fields: Any) -> dict[str, Any]:
        record = {"requestId": request, "tenant": tenant, "model": "gpt-4o", "inputTokens": 100, "outputTokens": 50}
        answer = pusher.post("/api/internal/usage", record | {"totalCostUsd": cost} | fields)
        assert answer.status_code in {200, 201}, answer.content
        return answer.json()

    return pushing
