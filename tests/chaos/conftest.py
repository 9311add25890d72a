"""A whole stack, started as a person starts it, for tests that break it."""

import base64
import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from devstack.folder import free_port
from devstack.tests.dev_process import Dev, dev, wait_until

WAIT_SECONDS = 12
PROCESSES = {
    "web": r"granian",
    "worker": r"celery.*-Q sync",
    "beat": r"celery.* beat",
    "projector": r"manage\.py projector",
    "operator": r"manage\.py operator",
    "valkey": r"valkey-server",
    "postgres": r"bin/postgres",
    "cluster": r"devstack\.cluster",
}


class Stack:
    """A running `./dev up` with ways to talk to it and to break it."""

    def __init__(self, running: Dev, data: Path) -> None:
        self.running = running
        credentials = json.loads((data / "credentials.json").read_text())
        self.url: str = credentials["url"]
        self.headers = {"Authorization": f"Bearer {credentials['token']}"}
        config = yaml.safe_load((data / "kubeconfig").read_text())
        entry = config["clusters"][0]["cluster"]
        self.cluster_url: str = entry["server"]
        self.namespace: str = config["contexts"][0]["context"]["namespace"]
        authority = base64.b64decode(entry["certificate-authority-data"]).decode()
        self._kube = httpx.Client(
            base_url=self.cluster_url,
            headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
            verify=ssl.create_default_context(cadata=authority),
            timeout=20,
        )

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=self.headers, timeout=WAIT_SECONDS + 30)

    def resources(self) -> dict[str, dict[str, Any]]:
        """Specs of all tenants in the cluster, by name."""
        path = f"/apis/opencrane.io/v1alpha1/namespaces/{self.namespace}/tenants"
        answer = self._kube.get(path)
        answer.raise_for_status()
        return {item["metadata"]["name"]: item["spec"] for item in answer.json()["items"]}

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to one of the supervised processes; returns its pid."""
        pid = self.running.child(PROCESSES[name])
        os.kill(pid, number)
        return pid

    def wait_until_ready(self, seconds: float = 60) -> None:
        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until("/readyz is green", ready, seconds)

    def agree(self) -> bool:
        """Whether drift finds rows and resources to be the same, with nothing in flight."""
        try:
            with self.client() as client:
                answer = client.get("/tenants/drift")
        except httpx.HTTPError:
            return False
        if answer.status_code != 200:
            return False
        summary = answer.json()["summary"]
        return summary["driftCount"] == 0 == summary["pendingCount"]

    def close(self) -> None:
        self._kube.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    data = tmp_path_factory.mktemp("stack") / "data"
    env = {"TENANT_CR_APPEARANCE_TIMEOUT_MS": str(WAIT_SECONDS * 1000)}
    with dev("up", "--data", str(data), "--port", str(free_port("127.0.0.1")), env=env) as running:
        running.wait_for(r"^ready: ")
        started = Stack(running, data)
        yield started
        started.close()
