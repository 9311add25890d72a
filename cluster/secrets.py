"""Kubernetes Secrets that OpenCrane keeps, by server-side apply. For worker tasks: the web process writes none.

Errors name the Secret and what the API server said, never what is in it.
"""

import base64
import binascii
from collections.abc import Mapping

from cluster.client import APPLY, cluster_client
from cluster.errors import KubeTransientError
from cluster.resources import FIELD_MANAGER, MANAGED_BY, KubeObject, Resource

SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)


def secret_manifest(
    *,
    name: str,
    data: Mapping[str, str],
    namespace: str,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> KubeObject:
    """An Opaque Secret with these values, marked as managed by OpenCrane. Pure."""
    metadata: KubeObject = {
        "name": name,
        "namespace": namespace,
        "labels": {MANAGED_BY: FIELD_MANAGER, **(labels or {})},
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


def apply_secret(
    *,
    name: str,
    data: Mapping[str, str],
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> None:
    """Make the Secret hold exactly these values of ours; keys that we applied before and are absent now go.

    Args:
        data: plain text by key (`[-._a-zA-Z0-9]+`).
        namespace: where; that of the custom resources when None.

    Raises:
        KubeTransientError: the cluster is away, or the namespace does not exist (yet).
        KubeRefusedError: the cluster refuses it for good.
    """
    client = cluster_client()
    where = namespace or client.namespace
    manifest = secret_manifest(name=name, data=data, namespace=where, labels=labels, annotations=annotations)
    path = SECRETS.path(where, name)
    query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": "true"}
    status, _ = client.request("PATCH", path, query=query, body=manifest, content_type=APPLY)
    if status == 404:
        raise KubeTransientError(f"Secret {where}/{name}: the namespace does not exist", status=404, reason="NotFound")


def delete_secret(*, name: str, namespace: str | None = None) -> None:
    """Have the Secret gone; one that is gone already, or whose namespace is, counts as done.

    Raises:
        KubeTransientError, KubeRefusedError.
    """
    client = cluster_client()
    client.request("DELETE", SECRETS.path(namespace or client.namespace, name))


def secret_exists(*, name: str, namespace: str | None = None) -> bool:
    """Whether there is such a Secret.

    Raises:
        KubeTransientError, KubeRefusedError.
    """
    return _read(name, namespace) is not None


def secret_data(*, name: str, namespace: str | None = None) -> dict[str, str] | None:
    """The Secret's values as text; None when there is no such Secret. A value that is no UTF-8 text reads as empty.

    Raises:
        KubeTransientError, KubeRefusedError.
    """
    found = _read(name, namespace)
    return None if found is None else {key: _text(value) for key, value in (found.get("data") or {}).items()}


def secret_annotations(*, name: str, namespace: str | None = None) -> dict[str, str] | None:
    """The Secret's annotations; None when there is no such Secret.

    Raises:
        KubeTransientError, KubeRefusedError.
    """
    found = _read(name, namespace)
    return None if found is None else dict(found["metadata"].get("annotations") or {})


def _read(name: str, namespace: str | None) -> KubeObject | None:
    client = cluster_client()
    status, found = client.request("GET", SECRETS.path(namespace or client.namespace, name))
    return None if status == 404 else found


def _text(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
