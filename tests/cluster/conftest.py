"""What tests of the dual write need: a clean namespace, other people at the cluster, workers that are away."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings as django_settings
from django.db.models import F
from django.utils import timezone

from cluster import crds, reconcile
from cluster.client import cluster_client, reset_cluster_client
from cluster.resources import CRDS, NAMESPACES, TENANTS
from opencrane.celery import app as celery_app
from tenants.models import Tenant
from tests.cluster.kube import Kubectl
from tests.cluster.pods import made_namespaces

ANNA: dict[str, Any] = {"name": "anna", "displayName": "Anna", "email": "anna@example.com"}


@pytest.fixture
def kubectl(transactional_db: None, cluster_namespace: str) -> Kubectl:
    """Somebody else at the cluster, in a namespace without tenants."""
    client = cluster_client()
    client.request("DELETE", TENANTS.path(client.namespace))
    return Kubectl()


@pytest.fixture
def cert_manager(cluster_namespace: str) -> None:
    """Its definitions are not ours to install."""
    if cluster_client().get(CRDS, "issuers.cert-manager.io") is None:
        pytest.skip("the cluster has no cert-manager")


@pytest.fixture
def no_worker(settings: Any) -> Iterator[Callable[[], None]]:
    """Tasks wait in the broker and no request waits for them; call it to have a worker do all that is due."""
    settings.TENANT_CR_APPEARANCE_TIMEOUT_MS = 0
    celery_app.conf.task_always_eager = False
    yield work
    celery_app.conf.task_always_eager = True


def work() -> None:
    """What a worker does about every tenant that lags, backoffs aside."""
    lagging = Tenant.objects.filter(observed_generation__lt=F("generation"))
    lagging.update(sync_not_before=timezone.now())
    for pk in list(lagging.values_list("pk", flat=True)):
        reconcile.sync_object("Tenant", pk)


class OwnCluster:
    """A development cluster of the test's own, to stop, freeze, kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "devstack.cluster", "--data", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ready" in line, line

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@pytest.fixture
def own_cluster(
    transactional_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Iterator[OwnCluster]:
    """A cluster that may be broken. Its definition of tenants refuses a team named `forbidden`."""
    cluster = OwnCluster(tmp_path / "cluster")
    cluster.start()
    monkeypatch.setenv("KUBECONFIG", str(cluster.folder / "kubeconfig"))
    settings.NAMESPACE = "opencrane"
    reset_cluster_client()
    crds.install()
    strict = yaml.safe_load((crds.FOLDER / "opencrane.io_tenants.yaml").read_text())
    schema = strict["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["team"] = {"type": "string", "enum": ["red", "green", "blue"]}
    cluster_client().apply(CRDS, strict, force=True)
    try:
        yield cluster
    finally:
        if cluster.process is not None:
            cluster.thaw()
            cluster.kill()
        monkeypatch.undo()
        reset_cluster_client()


@pytest.fixture(scope="session", autouse=True)
def _namespace_goes_with_the_session() -> Iterator[None]:
    """On a cluster that is not thrown away after the tests, leave nothing behind."""
    yield
    if os.environ.get("OPENCRANE_TEST_NAMESPACE") and os.environ.get("KUBECONFIG"):
        reset_cluster_client()
        for name in (django_settings.NAMESPACE, *made_namespaces):
            cluster_client().request("DELETE", NAMESPACES.path("", name))
