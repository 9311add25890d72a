"""Tokens of ServiceAccounts, from the cluster's TokenRequest (authentication.k8s.io/v1).

The web process may ask for them; a token goes to whoever it is for, into no log and no database.
https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

import datetime

from django.utils.dateparse import parse_datetime

from cluster.client import cluster_client
from cluster.errors import KubeRefusedError, KubeTransientError
from cluster.resources import SERVICE_ACCOUNTS

MIN_SECONDS = 600


def request_token(
    *, namespace: str, service_account: str, audience: str, seconds: int, timeout_seconds: float | None = None
) -> tuple[str, datetime.datetime]:
    """A new token of a ServiceAccount, and when it ends.

    Args:
        audience: whom alone the token is good for.
        seconds: how long it should live, at least 600; the API server may give another time.
        timeout_seconds: how long the call may take; as every call of the cluster, if None.

    Raises:
        KubeRefusedError: with status 404 when there is no such ServiceAccount.
        KubeTransientError: the cluster does not answer, or not with a token.
    """
    path = SERVICE_ACCOUNTS.path(namespace, service_account, "token")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": max(MIN_SECONDS, seconds)},
    }
    status, answer = cluster_client().request("POST", path, body=body, timeout=timeout_seconds)
    if status == 404:
        message = f"there is no ServiceAccount {service_account} in namespace {namespace}"
        raise KubeRefusedError(message, status=404, reason="NotFound")
    given = answer.get("status") if isinstance(answer, dict) else None
    given = given if isinstance(given, dict) else {}
    token, ends = given.get("token"), parse_datetime(str(given.get("expirationTimestamp")))
    if not isinstance(token, str) or not token or ends is None:
        # Nothing of the answer goes into the error: it may hold the token.
        raise KubeTransientError(f"the cluster answered {status} without a token for {namespace}/{service_account}")
    return token, ends.astimezone(datetime.UTC)
