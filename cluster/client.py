"""HTTP to the Kubernetes API server, by the official client's configuration, authentication and connection pool.

Requests go through the client's urllib3 pool rather than its generated methods: those drop the body of an apply that
creates (201), cannot pass an apply's content type for custom objects without private arguments, and spend more time
in their models than the server does on the request. Every call has a timeout, none is retried by urllib3, and every
failure is one of the errors in `cluster.errors`.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import urllib3
from django.conf import settings
from kubernetes import client as kube
from kubernetes import config as kube_config

from cluster.errors import (
    KubeConflictError,
    KubeError,
    KubeGoneError,
    KubeRefusedError,
    KubeTransientError,
)
from cluster.resources import FIELD_MANAGER, GROUP, KubeObject, Resource

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"

# What JSON may hold as it is and YAML may not, or takes for the end of a line.
# https://yaml.org/spec/1.1/#id868524 (characters), #id871136 (line breaks)
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

CONNECT_TIMEOUT = 3.0
AUTH_SECONDS = 10.0
DEFAULT_KUBECONFIG = Path.home() / ".kube" / "config"
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

# A wrongly typed field in a server-side apply comes back as 500, not 422 (kubernetes/kubernetes#139253).
TYPED_PATCH_FAILURE = "failed to create typed patch object"


class ClusterClient:
    """A pooled connection to one API server. Safe to share between threads, not across a fork."""

    def __init__(self, configuration: kube.Configuration, namespace: str) -> None:
        self.configuration = configuration
        self.namespace = namespace
        configuration.connection_pool_maxsize = 64
        configuration.retries = urllib3.Retry(total=False, redirect=False)
        self._api = kube.ApiClient(configuration)
        self._pool: urllib3.PoolManager = self._api.rest_client.pool_manager
        self._host = str(configuration.host).rstrip("/")
        self._auth: dict[str, str] = {}
        self._auth_until = 0.0

    def close(self) -> None:
        """Close idle connections; those in use close when their request or stream ends."""
        self._pool.clear()

    # -- requests ---------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> tuple[int, Any]:
        """One request; returns (HTTP status, parsed body) for 2xx and 404.

        404 is returned because for the callers absence is an answer, not a failure.

        Raises:
            KubeTransientError, KubeRefusedError, KubeConflictError, KubeGoneError.
        """
        response = self._send(method, path, query, body, content_type, timeout, stream=False)
        parsed = _parse(response.data)
        if response.status < 300 or response.status == 404:
            return response.status, parsed
        if response.status == 401:
            self._auth_until = 0.0
        raise _error(response.status, parsed)

    def stream(self, path: str, *, query: dict[str, Any], idle_timeout: float) -> Iterator[KubeObject]:
        """Watch events, each a parsed line, until the server ends the stream.

        Args:
            idle_timeout: seconds without a byte after which the connection counts as lost.
        """
        response = self._send("GET", path, query, None, "application/json", idle_timeout, stream=True)
        try:
            if response.status >= 300:
                raise _error(response.status, _parse(response.read()))
            buffer = b""
            for chunk in response.stream(65536, decode_content=True):
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield orjson.loads(line)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise KubeTransientError(f"watch of {path} broke: {exc}", unreachable=True) from exc
        except orjson.JSONDecodeError as exc:
            raise KubeTransientError(f"watch of {path} sent something that is no JSON") from exc
        finally:
            response.close()
            response.release_conn()

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: Any,
        content_type: str,
        timeout: float | None,
        *,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER}
        headers |= self._authorization()
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = _as_yaml(body) if content_type == APPLY else orjson.dumps(body)
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        read = float(timeout if timeout is not None else settings.CLUSTER_TIMEOUT_SECONDS)
        try:
            return self._pool.request(
                method,
                url,
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, read), read=read),
                retries=False,
                preload_content=not stream,
            )
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            # The exception's text names host and port, never headers or the token.
            raise KubeTransientError(f"the cluster did not answer {method} {path}: {exc}", unreachable=True) from exc

    def _authorization(self) -> dict[str, str]:
        """The header that the official client makes; kept for some seconds, as it looks at the kubeconfig each time."""
        if time.monotonic() >= self._auth_until:
            made: dict[str, str] = {}
            self._api.update_params_for_auth(made, [], ["BearerToken"], "", "", None)
            self._auth, self._auth_until = made, time.monotonic() + AUTH_SECONDS
        return self._auth

    # -- objects ----------------------------------------------------------------------------------------------------

    def get(
        self, resource: Resource, name: str, *, namespace: str | None = None, timeout: float | None = None
    ) -> KubeObject | None:
        """The object, or None when the cluster has none of that name; `namespace` defaults to the client's own."""
        status, body = self.request("GET", resource.path(namespace or self.namespace, name), timeout=timeout)
        if status == 404:
            _require_served(resource, name, body)
            return None
        return body

    def apply(
        self,
        resource: Resource,
        manifest: KubeObject,
        *,
        force: bool,
        dry_run: bool = False,
        subresource: str = "",
        namespace: str | None = None,
        manager: str = FIELD_MANAGER,
    ) -> tuple[bool, KubeObject]:
        """Server-side apply; returns (created, the object as the cluster now has it).

        With `metadata.uid` in the manifest an object that is gone is not created again but answers 409; with
        `metadata.resourceVersion` a stale one does.
        https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        name = manifest["metadata"]["name"]
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        if force:
            query["force"] = "true"
        if dry_run:
            query["dryRun"] = "All"
        path = resource.path(namespace or self.namespace, name, subresource)
        status, body = self.request("PATCH", path, query=query, body=manifest, content_type=APPLY)
        if status == 404:
            raise KubeTransientError(_message(body) or f"{path} is not there", status=404, reason="NotFound")
        return status == 201, body

    def create(
        self, resource: Resource, manifest: KubeObject, *, namespace: str | None = None, manager: str = FIELD_MANAGER
    ) -> KubeObject:
        """Make an object that must not be there yet; KubeConflictError when it is."""
        status, body = self.request(
            "POST", resource.path(namespace or self.namespace), query={"fieldManager": manager}, body=manifest
        )
        if status == 404:
            raise KubeTransientError(_message(body) or "there is no such namespace", status=404, reason="NotFound")
        return body

    def json_patch(
        self,
        resource: Resource,
        name: str,
        operations: list[dict[str, Any]],
        *,
        namespace: str | None = None,
        manager: str = FIELD_MANAGER,
    ) -> KubeObject:
        """JSON patch (RFC 6902); a failed `test` is a KubeConflictError."""
        status, body = self.request(
            "PATCH",
            resource.path(namespace or self.namespace, name),
            query={"fieldManager": manager},
            body=operations,
            content_type=JSON_PATCH,
        )
        if status == 404:
            raise KubeConflictError(f"{resource.plural} {name} is gone", status=404, reason="NotFound")
        return body

    def delete(self, resource: Resource, name: str, *, uid: str, namespace: str | None = None) -> bool:
        """Ask for the object's deletion, if it is still the one with `uid`; True when it is gone already.

        False means that finalizers are at work. An object of the same name but another uid is left alone: True.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            path = resource.path(namespace or self.namespace, name)
            status, answer = self.request("DELETE", path, body=body)
        except KubeConflictError:
            return True
        # What waits for finalizers, or for a grace period, is answered as it now is; what is gone as a Status, or, of
        # some resources (Services, ServiceAccounts, claims, quotas), as it was.
        return status == 404 or answer.get("kind") == "Status" or "deletionTimestamp" not in answer["metadata"]

    def list_pages(
        self,
        resource: Resource,
        *,
        limit: int = 500,
        label_selector: str = "",
        field_selector: str = "",
        namespace: str | None = None,
    ) -> Iterator[tuple[list[KubeObject], str]]:
        """Pages of (objects, resourceVersion of the list) in key order, one consistent snapshot.

        `namespace` defaults to the client's own; empty means all of them.

        Raises:
            KubeGoneError: the snapshot expired between two pages; start again.
        """
        query: dict[str, Any] = {"limit": limit}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        path = resource.path(self.namespace if namespace is None else namespace)
        while True:
            status, body = self.request("GET", path, query=query)
            if status == 404:
                raise _not_served(resource, _message(body))
            metadata = body["metadata"]
            yield body["items"], metadata["resourceVersion"]
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]


def _as_yaml(body: Any) -> bytes:
    """JSON that is YAML too, as which the API server reads what is applied."""
    data = orjson.dumps(body)
    if data.isascii() and b"\x7f" not in data:
        return data
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data) if data else {}
    except orjson.JSONDecodeError:
        return {"message": data[:300].decode("utf-8", "replace").strip()}


def _message(body: Any) -> str:
    return str(body.get("message") or "") if isinstance(body, dict) else ""


def _require_served(resource: Resource, name: str, body: Any) -> None:
    """Tell 'no such object' from 'no such resource type': the latter would make every row look deleted."""
    details = body.get("details") if isinstance(body, dict) else None
    if not (isinstance(details, dict) and details.get("name") == name):
        raise _not_served(resource)


def _not_served(resource: Resource, why: str = "") -> KubeTransientError:
    said = f"the cluster does not serve {resource.name}" + (f" ({why})" if why else "")
    if resource.group == GROUP:
        said += "; manage.py install_crds installs its definition"
    return KubeTransientError(said, status=404)


def _error(status: int, body: Any) -> KubeError:
    message = _message(body) or f"the cluster answered {status}"
    reason = str(body.get("reason") or "") if isinstance(body, dict) else ""
    if status == 409:
        return KubeConflictError(message, status=status, reason=reason)
    if status == 410:
        return KubeGoneError(message, status=status, reason=reason)
    if status == 422 and "testing value" in message.lower():
        # A JSON patch whose `test` failed is Invalid to the API server; to us it says that our read is stale.
        return KubeConflictError(message, status=status, reason=reason)
    if status >= 500 and TYPED_PATCH_FAILURE not in message:
        return KubeTransientError(message, status=status, reason=reason)
    if status in {401, 408, 429}:
        # 401 is ours to mend (an expired token, a rotated certificate), not the caller's.
        return KubeTransientError(message, status=status, reason=reason)
    return KubeRefusedError(message, status=status, reason=reason)


# -- the process's client ---------------------------------------------------------------------------------------------


def _load() -> ClusterClient:
    """From KUBECONFIG or ~/.kube/config, else the ServiceAccount mounted into the pod."""
    configuration = kube.Configuration()
    try:
        location = os.environ.get("KUBECONFIG") or str(DEFAULT_KUBECONFIG)
        if os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG.exists():
            kube_config.load_kube_config(location, client_configuration=configuration)
            _, context = kube_config.list_kube_config_contexts(location)
            namespace = context["context"].get("namespace") or "default"
        else:
            kube_config.load_incluster_config(client_configuration=configuration)
            namespace = SERVICE_ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip()
    except (kube_config.ConfigException, OSError) as exc:
        raise KubeTransientError(f"no cluster is configured: {exc}", unreachable=True) from exc
    return ClusterClient(configuration, settings.NAMESPACE or namespace)


_clients: dict[int, ClusterClient] = {}
_loading = threading.Lock()


def cluster_client() -> ClusterClient:
    """This process's client. A forked child gets one of its own: TLS sessions must not be shared."""
    pid = os.getpid()
    with _loading:
        if pid not in _clients:
            _clients[pid] = _load()
        return _clients[pid]


def reset_cluster_client() -> None:
    """Forget the client, so that the next call reads the configuration again."""
    with _loading:
        known = _clients.pop(os.getpid(), None)
    if known is not None:
        known.close()


def ping(timeout: float) -> None:
    """Return when the API server answers its readiness check; raise KubeTransientError otherwise."""
    status, _ = cluster_client().request("GET", "/readyz", timeout=timeout)
    if status == 404:
        raise KubeTransientError("the cluster has no /readyz", status=404)
