"""Pods with tokens of the development cluster."""

from collections.abc import Callable, Iterator

import pytest

from conftest import ApiClient
from tenants.models import Tenant
from tests.cluster.pods import forget_reviews, pod_of


@pytest.fixture
def pod(cluster_namespace: str) -> Iterator[Callable[[Tenant], ApiClient]]:
    """What a tenant's pod calls with."""
    forget_reviews()
    yield pod_of
    forget_reviews()
