"""Installing the custom resource definitions of `deploy/crds/`."""

import time
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

from cluster.client import cluster_client
from cluster.errors import KubeTransientError
from cluster.resources import CRDS

FOLDER = Path(settings.BASE_DIR) / "deploy" / "crds"


def definitions() -> list[dict[str, Any]]:
    """The definitions, parsed, in order of file name."""
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))]


def install(*, timeout_seconds: float = 30.0) -> list[str]:
    """Apply every definition and wait until the API server serves it; returns their names. Repeatable.

    Raises:
        KubeRefusedError: a definition is not accepted.
        KubeTransientError: the cluster is away, or does not establish them in time.
    """
    client = cluster_client()
    wanted = definitions()
    for manifest in wanted:
        client.apply(CRDS, manifest, force=True)
    names = [str(manifest["metadata"]["name"]) for manifest in wanted]
    deadline = time.monotonic() + timeout_seconds
    for name in names:
        while not _established(client.get(CRDS, name)):
            if time.monotonic() > deadline:
                raise KubeTransientError(f"the cluster has not established {name} within {timeout_seconds:.0f} s")
            time.sleep(0.05)
    return names


def _established(definition: dict[str, Any] | None) -> bool:
    conditions = ((definition or {}).get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
