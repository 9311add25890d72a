"""Fixtures for tests of the development cluster: one server for each test process, one namespace for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from devstack.tests.clusterclient import Cluster, install_definitions

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running development cluster with OpenCrane's CustomResourceDefinitions."""
    server = Cluster(tmp_path_factory.mktemp("cluster") / "data")
    server.start()
    install_definitions(server)
    yield server
    assert server.end() == 0


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """A fresh namespace."""
    name = f"test-{next(_numbers)}"
    cluster.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@pytest.fixture
def tenants(namespace: str) -> str:
    """The path of the tenants of a fresh namespace."""
    return f"/apis/opencrane.io/v1alpha1/namespaces/{namespace}/tenants"


@pytest.fixture
def maps(namespace: str) -> str:
    """The path of the config maps of a fresh namespace."""
    return f"/api/v1/namespaces/{namespace}/configmaps"
