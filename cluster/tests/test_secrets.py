"""Secrets of ours in a cluster."""

import pytest

from cluster.client import cluster_client
from cluster.errors import KubeTransientError
from cluster.secrets import SECRETS, apply_secret, delete_secret, secret_annotations, secret_data, secret_exists


@pytest.mark.django_db
def test_a_secret_holds_what_was_applied_last_and_goes_for_good(cluster_namespace: str) -> None:
    delete_secret(name="kept-here")
    assert not secret_exists(name="kept-here")
    assert secret_data(name="kept-here") is None
    apply_secret(name="kept-here", data={"one": "first", "two": "zwölf"}, annotations={"opencrane.io/row-id": "7"})
    assert secret_data(name="kept-here") == {"one": "first", "two": "zwölf"}
    assert secret_annotations(name="kept-here") == {"opencrane.io/row-id": "7"}
    labels = cluster_client().get(SECRETS, "kept-here")["metadata"]["labels"]  # type: ignore[index]
    assert labels == {"app.kubernetes.io/managed-by": "opencrane"}

    apply_secret(name="kept-here", data={"two": "second"}, namespace=cluster_namespace)
    assert secret_data(name="kept-here", namespace=cluster_namespace) == {"two": "second"}

    delete_secret(name="kept-here")
    delete_secret(name="kept-here")
    assert not secret_exists(name="kept-here")


@pytest.mark.django_db
def test_a_namespace_that_is_not_there_yet_is_a_reason_to_try_later(cluster_namespace: str) -> None:
    with pytest.raises(KubeTransientError, match="no-such-namespace"):
        apply_secret(name="kept-here", data={"one": "first"}, namespace="no-such-namespace")
    delete_secret(name="kept-here", namespace="no-such-namespace")
