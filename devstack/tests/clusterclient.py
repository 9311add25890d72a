"""Runs a development cluster for tests and speaks to it over plain HTTP, so that statuses and headers show."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import urllib3
import yaml

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "deploy" / "crds"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
GROUP = "/apis/opencrane.io/v1alpha1"

Object = dict[str, Any]
T = TypeVar("T")


def until(probe: Callable[[], T], seconds: float = 20.0) -> T:
    """What `probe` answers as soon as that is true; fails with its last answer after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer or time.monotonic() > end:
            assert answer, f"not within {seconds} s: {answer!r}"
            return answer
        time.sleep(0.02)


class Cluster:
    """One server process on one data folder, and a client with the administrator's token."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.ready_line = ""

    def start(self) -> None:
        command = [sys.executable, "-m", "devstack.cluster", "--data", str(self.folder), *self._arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ}
        )
        assert self._process.stdout is not None
        self.ready_line = self._process.stdout.readline().decode()
        assert self.ready_line.startswith("development cluster ready: https://"), self.ready_line
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self.url: str = cluster["server"]
        self.token: str = config["users"][0]["user"]["token"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._http = urllib3.PoolManager(maxsize=16, ca_cert_data=authority, retries=False, timeout=20)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        assert self._process is not None
        self._http.clear()
        self._process.send_signal(number)
        code = self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def raw(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", token: str | None = None,
        headers: dict[str, str] | None = None, stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        sent = {"authorization": f"Bearer {self.token if token is None else token}", **(headers or {})}
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        if data is not None:
            sent.setdefault("content-type", kind)
        return self._http.request(method, self.url + path, body=data, headers=sent, preload_content=not stream)

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Object]:
        """Status and parsed body."""
        response = self.raw(method, path, body, **more)
        return response.status, orjson.loads(response.data)

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Object:
        status, answer = self.call(method, path, body, **more)
        assert status in {200, 201}, answer
        return answer

    def get(self, path: str) -> Object:
        return self.ok("GET", path)

    def apply(self, path: str, body: Any, manager: str = "a", *, force: bool = False) -> tuple[int, Object]:
        """Server-side apply; status and parsed body."""
        query = f"?fieldManager={manager}&force={str(force).lower()}"
        return self.call("PATCH", path + query, body, kind=APPLY)

    def gone(self, path: str) -> bool:
        return self.call("GET", path)[0] == 404

    @contextmanager
    def watch(self, path: str) -> Iterator[Iterator[Object]]:
        """The events of a watch, for as long as it lasts."""
        response = self.raw("GET", path + ("&" if "?" in path else "?") + "watch=true", stream=True)
        assert response.status == 200, response.data
        try:
            yield _lines(response)
        finally:
            response.close()


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[Object]:
    rest = b""
    for chunk in response.stream(65536, decode_content=False):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (orjson.loads(line) for line in lines)


def tenant(name: str, **spec: Any) -> Object:
    """A valid Tenant."""
    return {
        "apiVersion": "opencrane.io/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"displayName": name.title(), "email": f"{name}@example.com", **spec},
    }


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, image: str = "web:1", replicas: int = 1) -> Object:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def owned_by(owner: Object, **more: Any) -> list[Object]:
    metadata = owner["metadata"]
    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    return [{**reference, "name": metadata["name"], "uid": metadata["uid"], **more}]


def install_definitions(cluster: Cluster) -> None:
    """The CustomResourceDefinitions of deploy/crds."""
    for file in sorted(CRDS.glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{body['metadata']['name']}"
        status, answer = cluster.apply(path, body, "tests", force=True)
        assert status in {200, 201}, answer
