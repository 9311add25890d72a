"""Make, keep and clear away the place of a cluster tenant; for workers.

Level-triggered: a run brings the place to what the row says now, so it may run twice or late. The built-in provisioner
makes a namespace with quota, limits and a network policy; the external one is told over HTTP and may take its time.
What came of it is written to the resource's status, which the operator goes by, and into the row.
"""

import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from cluster.client import cluster_client
from cluster.errors import KubeConflictError, KubeError, KubeRefusedError, KubeTransientError
from cluster.locks import object_lock
from cluster.resources import CLUSTER_TENANTS, NAMESPACES, ROW_ID, KubeObject, Resource
from opencrane import secretrefs
from opencrane.actor import SYSTEM
from opencrane.outbound import guarded_client
from operations.services import audit
from tenants import cluster_manifests as manifests
from tenants.models import ClusterTenant, Deprovisioning
from tenants.services.cluster_kind import CLUSTER_TENANT, provisioner_of

log = structlog.get_logger(__name__)

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", namespaced=True)
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange", namespaced=True)
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", namespaced=True)
_MADE = (
    (QUOTAS, manifests.quota_manifest),
    (LIMIT_RANGES, manifests.limits_manifest),
    (NETWORK_POLICIES, manifests.network_manifest),
)
# What somebody removed or changed in the namespace is put right after this long.
LOOK_AGAIN = timedelta(minutes=10)
# Until then no other run takes what this one is at; longer than the task may take.
LEASE = timedelta(seconds=90)
ASK_AGAIN = timedelta(seconds=10)
MAX_DELAY_SECONDS = 300.0
CONFIRM_SECONDS = 3.0
PROVISIONER_TIMEOUT_SECONDS = 10.0
MESSAGE_MAX = 1000


class ProvisionFailedError(Exception):
    """It will not help to try again before something changes; the sentence is for the operator."""


class StillProvisioningError(Exception):
    """It goes on; ask again later."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a provisioner has made."""

    namespace: str
    kubeconfig_secret_ref: str = ""
    message: str = ""


# -- provisioning -----------------------------------------------------------------------------------------------------


def provision(*, cluster_tenant_id: UUID) -> None:
    """Bring one cluster tenant's place to what its row says; quietly nothing when there is nothing to do."""
    with object_lock("provision", cluster_tenant_id) as held:
        row = _confirmed(cluster_tenant_id) if held else None
        if row is None or not (row.provision_not_before <= timezone.now() or _is_behind(row)):
            return
        ClusterTenant.objects.filter(pk=row.pk).update(
            provision_not_before=timezone.now() + LEASE, provision_attempts=F("provision_attempts") + 1
        )
        row.provision_attempts += 1
        if row.status_phase != "ready":
            _tell(row, "provisioning", row.status_message, Place(row.bound_namespace, row.kubeconfig_secret_ref))
        try:
            place = _external(row) if provisioner_of(row.isolation_tier) == "external" else _shared(row)
        except StillProvisioningError as exc:
            _later(row, ASK_AGAIN, str(exc))
        except (KubeTransientError, KubeConflictError, httpx.TransportError) as exc:
            _later(row, _delay(row.provision_attempts), _sentence(exc))
        except (KubeRefusedError, ProvisionFailedError) as exc:
            _ended(row, "failed", _sentence(exc), Place(row.bound_namespace, row.kubeconfig_secret_ref))
        else:
            _ended(row, "ready", place.message, place)


def _is_new(row: ClusterTenant) -> bool:
    return row.provisioned_generation < row.observed_generation


def _is_behind(row: ClusterTenant) -> bool:
    return _is_new(row) and row.provision_attempts == 0


def _confirmed(cluster_tenant_id: UUID) -> ClusterTenant | None:
    """The row, once the cluster has what it wants; None when that takes long (the sweep comes again) or it goes."""
    until = time.monotonic() + CONFIRM_SECONDS
    while True:
        row = ClusterTenant.objects.filter(pk=cluster_tenant_id).first()
        if row is None or row.deleting:
            return None
        if not row.in_flight:
            return row
        if time.monotonic() > until:
            return None
        time.sleep(0.05)


def _shared(row: ClusterTenant) -> Place:
    client, name = cluster_client(), manifests.namespace_of(row.name)
    live = client.get(NAMESPACES, name)
    if live is not None and not _may_take(live, row.pk):
        raise ProvisionFailedError(f"The namespace {name} is there already and belongs to somebody else.")
    if live is not None and live["metadata"].get("deletionTimestamp"):
        raise KubeTransientError(f"the namespace {name} is still being deleted")
    client.apply(NAMESPACES, manifests.namespace_manifest(row), force=True)
    for resource, manifest in _MADE:
        client.apply(resource, manifest(row), force=True, namespace=name)
    return Place(name)


def _may_take(namespace: KubeObject, owner: UUID) -> bool:
    """Whether a namespace is this cluster tenant's, or was kept when a former one of the name went."""
    annotations = namespace["metadata"].get("annotations") or {}
    return annotations.get(ROW_ID) == str(owner) or manifests.RELEASED in annotations


def _external(row: ClusterTenant) -> Place:
    answer = _ask(
        {"action": "provision", "id": str(row.pk), "name": row.name, "generation": row.observed_generation}
        | CLUSTER_TENANT.spec(row)
    )
    phase, message = answer.get("phase", "ready"), str(answer.get("message") or "")[:MESSAGE_MAX]
    if phase == "failed":
        raise ProvisionFailedError(message or "The provisioner says that it failed.")
    if phase in {"pending", "provisioning"}:
        raise StillProvisioningError(message or "The provisioner is at it.")
    reference, namespace = answer.get("kubeconfigSecretRef"), answer.get("boundNamespace") or row.bound_namespace
    if phase != "ready" or not isinstance(reference, str) or not isinstance(namespace, str):
        raise ProvisionFailedError(
            "The provisioner's answer makes no sense: no kubeconfigSecretRef, or a strange phase."
        )
    try:
        secretrefs.check_reference(reference)
    except ValueError as exc:
        raise ProvisionFailedError("The provisioner's kubeconfigSecretRef is no reference to a Secret.") from exc
    return Place(namespace[:253] or manifests.namespace_of(row.name), reference, message)


def _ask(body: dict[str, Any]) -> dict[str, Any]:
    """POST to the external provisioner.

    Raises:
        ProvisionFailedError: it refuses (4xx), is no longer configured, or answers nonsense.
        httpx.TransportError: it is away, or in trouble (5xx, 429).
    """
    if not settings.CLUSTER_PROVISIONER_URL:
        raise ProvisionFailedError("No external provisioner is configured: CLUSTER_PROVISIONER_URL is not set.")
    token = settings.CLUSTER_PROVISIONER_TOKEN
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with guarded_client(settings.OUTBOUND_ALLOW, timeout_seconds=PROVISIONER_TIMEOUT_SECONDS) as client:
        response = client.post(settings.CLUSTER_PROVISIONER_URL, json=body, headers=headers)
    if response.status_code >= 500 or response.status_code == 429:
        raise httpx.ReadError(f"The provisioner answered {response.status_code}.")
    if not response.is_success:
        raise ProvisionFailedError(f"The provisioner answered {response.status_code}.")
    try:
        answer = response.json() if response.content else {}
    except ValueError as exc:
        raise ProvisionFailedError("The provisioner's answer is no JSON.") from exc
    if not isinstance(answer, dict):
        raise ProvisionFailedError("The provisioner's answer is no JSON object.")
    if response.status_code == 202:
        answer.setdefault("phase", "provisioning")
    return answer


# -- how a run ends ---------------------------------------------------------------------------------------------------


def _ended(row: ClusterTenant, phase: str, message: str, place: Place) -> None:
    """Tell what came of it, and look again in a while: what is made may be changed, what failed may be mended."""
    was = (row.status_phase, row.status_message)
    if not _tell(row, phase, message, place):
        _later(row, _delay(row.provision_attempts), "The cluster did not take the status.")
        return
    with transaction.atomic(durable=True):
        ClusterTenant.objects.filter(pk=row.pk).update(
            provisioned_generation=row.observed_generation,
            provision_attempts=0,
            provision_not_before=timezone.now() + LOOK_AGAIN,
        )
        if was != (phase, message):
            verb = "provisioned" if phase == "ready" else "provision_failed"
            text = f"Cluster tenant {row.name} is {phase}" + (f": {message}" if message else ".")
            CLUSTER_TENANT.record(row, verb, text, actor=SYSTEM)


def _later(row: ClusterTenant, delay: timedelta, why: str) -> None:
    log.info("provisioning put off", cluster_tenant=row.name, why=why, seconds=delay.total_seconds())
    ClusterTenant.objects.filter(pk=row.pk).update(
        provision_not_before=timezone.now() + delay, status_message=why, status_revision=F("status_revision") + 1
    )


def _tell(row: ClusterTenant, phase: str, message: str, place: Place) -> bool:
    """Write the status, if it is new, to the resource and the row; False when the cluster did not take it."""
    values = {
        "status_phase": phase,
        "status_message": message,
        "bound_namespace": place.namespace,
        "provisioner": provisioner_of(row.isolation_tier),
        "kubeconfig_secret_ref": place.kubeconfig_secret_ref,
    }
    observed = (row.status or {}).get("observedGeneration")
    # After any write the resource may be another one, made anew and without a status.
    is_same_resource = phase == "provisioning" or not _is_new(row)
    if (
        is_same_resource
        and observed == row.resource_generation
        and all(getattr(row, key) == value for key, value in values.items())
    ):
        return True
    status = {
        "phase": phase,
        "message": message,
        "boundNamespace": place.namespace,
        "provisioner": values["provisioner"],
        "kubeconfigSecretRef": place.kubeconfig_secret_ref,
        "observedGeneration": row.resource_generation,
        "lastReconciled": timezone.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    manifest = manifests.status_manifest(row, status)
    try:
        cluster_client().apply(CLUSTER_TENANTS, manifest, force=True, subresource="status")
    except KubeError as exc:
        log.warning("status not written", cluster_tenant=row.name, error=exc.message)
        return False
    values["status"] = manifest["status"]
    for key, value in values.items():
        setattr(row, key, value)
    ClusterTenant.objects.filter(pk=row.pk).update(**values, status_revision=F("status_revision") + 1)
    return True


def _sentence(exc: Exception) -> str:
    if isinstance(exc, KubeError):
        return exc.message[:MESSAGE_MAX]
    if isinstance(exc, httpx.TransportError) and not str(exc).startswith("The provisioner"):
        return f"The provisioner did not answer ({type(exc).__name__})."
    return str(exc)[:MESSAGE_MAX]


def _delay(attempts: int) -> timedelta:
    seconds = min(MAX_DELAY_SECONDS, 2.0 ** min(attempts, 10))
    return timedelta(seconds=seconds * random.uniform(0.7, 1.0))  # noqa: S311


# -- clearing away ----------------------------------------------------------------------------------------------------


def deprovision(*, cluster_tenant_id: UUID) -> None:
    """Clear away what a cluster tenant that is gone has left; its record goes when that is done."""
    with object_lock("provision", cluster_tenant_id) as held:
        left = Deprovisioning.objects.filter(pk=cluster_tenant_id, not_before__lte=Now()).first() if held else None
        if left is None:
            return
        Deprovisioning.objects.filter(pk=left.pk).update(
            attempts=F("attempts") + 1, not_before=timezone.now() + LEASE, error=""
        )
        try:
            if left.provisioner == "external":
                _ask({"action": "deprovision", "id": str(left.pk), "name": left.name, "purge": left.purge})
            else:
                _clear(left)
        except StillProvisioningError as exc:
            _not_yet(left, ASK_AGAIN, str(exc))
        except (KubeError, ProvisionFailedError, httpx.TransportError) as exc:
            _not_yet(left, _delay(left.attempts + 1), _sentence(exc))
        else:
            _cleared(left)


def _clear(left: Deprovisioning) -> None:
    """What we made in the namespace goes; with `purge` the namespace itself, else it is marked as free."""
    client = cluster_client()
    live = client.get(NAMESPACES, left.namespace)
    annotations = {} if live is None else live["metadata"].get("annotations") or {}
    if live is None or annotations.get(ROW_ID) != str(left.pk):
        return
    if left.purge:
        if not client.delete(NAMESPACES, left.namespace, uid=live["metadata"]["uid"]):
            raise StillProvisioningError(f"Waiting for the namespace {left.namespace} to go.")
        return
    for resource, _ in _MADE:
        found = client.get(resource, manifests.OBJECT_NAME, namespace=left.namespace)
        if found is not None:
            client.delete(resource, manifests.OBJECT_NAME, uid=found["metadata"]["uid"], namespace=left.namespace)
    client.apply(NAMESPACES, manifests.released_manifest(left, timezone.now()), force=True)


def _not_yet(left: Deprovisioning, delay: timedelta, why: str) -> None:
    Deprovisioning.objects.filter(pk=left.pk).update(not_before=timezone.now() + delay, error=why)


@transaction.atomic(durable=True)
def _cleared(left: Deprovisioning) -> None:
    Deprovisioning.objects.filter(pk=left.pk).delete()
    what = "and its namespace are gone" if left.purge else f"is cleared away; the namespace {left.namespace} stays"
    audit.record(
        action="cluster_tenant.deprovisioned",
        resource=f"ClusterTenant/{left.name}",
        message=f"What cluster tenant {left.name} had {what}.",
        actor=SYSTEM,
    )
