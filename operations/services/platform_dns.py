"""Platform DNS: a cert-manager issuer for the domain that tenants are served under.

The web process notes what is wanted and waits; a worker writes the Secret with the token, then the issuer. Reading asks
the cluster: the issuer there is the truth.
"""

import random
import time
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from cluster import intent
from cluster.client import cluster_client
from cluster.errors import KubeConflictError, KubeError, KubeTransientError
from cluster.locks import object_lock
from cluster.secrets import apply_secret
from cluster.wait import waiting_slot
from opencrane.actor import SYSTEM, Actor
from opencrane.errors import ClusterRejectedError, ConflictError, DomainError, TimedOutError, UpstreamError
from opencrane.tasks import enqueue_on_commit
from operations import dns
from operations.errors import DnsProviderMisconfiguredError
from operations.models import DnsRequest
from operations.services import audit

log = structlog.get_logger(__name__)

TASK = "operations.apply_dns"
APPLIED = "applied"
LEASE = timedelta(seconds=60)
MAX_DELAY_SECONDS = 60.0
READ_TIMEOUT_SECONDS = 5.0


def platform_dns(name: str = "") -> dict[str, Any]:
    """What the issuer in the cluster says; `configured: false` where there is none, or no cert-manager.

    Raises:
        UpstreamError: the cluster did not answer, or refused.
    """
    name, kind = name or dns.DEFAULT_ISSUER, settings.PLATFORM_DNS_ISSUER_KIND
    shown = {"configured": False, "issuerName": name, "issuerKind": kind, "issuerNamespace": _issuer_namespace(kind)}
    try:
        issuer = cluster_client().get(dns.RESOURCES[kind], name, timeout=READ_TIMEOUT_SECONDS)
    except KubeTransientError as exc:
        if exc.status != 404:
            raise UpstreamError("The Kubernetes cluster could not be asked.", detail=exc.message) from exc
        issuer = None
    except KubeError as exc:
        raise UpstreamError("The Kubernetes cluster could not be asked.", detail=exc.message) from exc
    return shown | {"configured": issuer is not None} | dns.issuer_as_json(issuer or {"metadata": {}})


def configure_dns(*, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Have the issuer made or changed, and return once the cluster has it.

    Args:
        values: `provider`, `zone`, `email`; any of `server`, `issuer_name`, `api_token` and `solver_config`; checked
            by the caller.

    Raises:
        DnsProviderMisconfiguredError: the provider takes a token and there is none, or the other way round.
        ConflictError: an issuer of that name is there and not ours.
        ClusterRejectedError: the cluster refuses it.
        UpstreamError: the cluster is known to be away, or has no cert-manager.
        TimedOutError: not done in time; it goes on.
    """
    _check_provider(values)
    intent.require_reachable_cluster()
    row, is_new = _note(values, actor)
    _wait(row.pk, row.generation)
    return {
        "status": "created" if is_new else "updated",
        "issuerName": row.name,
        "issuerKind": row.kind,
        "issuerNamespace": _issuer_namespace(row.kind),
        "provider": row.provider,
        "zone": row.zone,
        "secretName": dns.secret_name(row.provider) if row.provider in dns.TOKEN_PROVIDERS else None,
    }


def _issuer_namespace(kind: str) -> str | None:
    return cluster_client().namespace if kind == dns.ISSUER else None


def _secret_namespace(kind: str) -> str:
    """cert-manager looks for a ClusterIssuer's Secrets in its own namespace, for an Issuer's beside the issuer."""
    return cluster_client().namespace if kind == dns.ISSUER else settings.CERT_MANAGER_NAMESPACE


def _check_provider(values: dict[str, Any]) -> None:
    provider = values["provider"]
    if provider in dns.TOKEN_PROVIDERS:
        if values.get("solver_config") is not None:
            raise DnsProviderMisconfiguredError(
                f"{provider} takes an apiToken and no solverConfig.", fields={"solverConfig": ["Is not for it."]}
            )
    elif values.get("api_token"):
        raise DnsProviderMisconfiguredError(
            f"{provider} takes a solverConfig and no apiToken.", fields={"apiToken": ["Is not for it."]}
        )
    elif not values.get("solver_config"):
        raise DnsProviderMisconfiguredError(
            f"{provider} needs a solverConfig, as cert-manager's documentation has it.",
            fields={"solverConfig": ["Is missing."]},
        )


@transaction.atomic(durable=True)
def _note(values: dict[str, Any], actor: Actor) -> tuple[DnsRequest, bool]:
    kind, name = settings.PLATFORM_DNS_ISSUER_KIND, values.get("issuer_name") or dns.DEFAULT_ISSUER
    wanted = {
        "provider": values["provider"],
        "zone": values["zone"],
        "email": values["email"],
        "server": values.get("server") or dns.DEFAULT_SERVER,
        "solver_config": values.get("solver_config"),
    }
    DnsRequest.objects.bulk_create(
        [DnsRequest(kind=kind, name=name, generation=0, outcome=APPLIED)], ignore_conflicts=True
    )
    row = DnsRequest.objects.select_for_update().get(kind=kind, name=name)
    provider = wanted["provider"]
    # Once its Secret is there, the token need not be given again, for example to change the e-mail address.
    if provider in dns.TOKEN_PROVIDERS and not values.get("api_token") and row.secret_of != provider:
        raise DnsProviderMisconfiguredError(f"{provider} needs an apiToken.", fields={"apiToken": ["Is missing."]})
    is_new = row.generation == 0
    before = None if is_new else {key: getattr(row, key) for key in wanted}
    for key, value in wanted.items():
        setattr(row, key, value)
    row.api_token = values.get("api_token") or ""
    row.generation += 1
    row.outcome, row.message, row.attempts, row.updated_at = "", "", 0, timezone.now()
    row.not_before = timezone.now()
    row.save()
    audit.record(
        action="platform_dns.created" if is_new else "platform_dns.updated",
        resource=f"{kind}/{name}",
        message=f"Asked for {kind} {name}: {provider} for {row.zone}"
        + (", with a new token." if values.get("api_token") else "."),
        before=before,
        after=wanted,
        actor=actor,
    )
    enqueue_on_commit(TASK, str(row.pk))
    return row, is_new


def _wait(row_id: int, generation: int) -> None:
    until = time.monotonic() + settings.TENANT_CR_APPEARANCE_TIMEOUT_MS / 1000
    pause, why = 0.02, "Too many requests are waiting for the cluster already."
    with waiting_slot() as may_wait:
        while True:
            row = DnsRequest.objects.filter(pk=row_id).first()
            if row is None or (row.observed_generation >= generation and row.outcome == APPLIED):
                return
            if row.observed_generation >= generation:
                raise _refusal(row)
            if not may_wait or time.monotonic() >= until:
                why = row.message or (why if not may_wait else "No worker has answered.")
                raise TimedOutError(detail=f"It is saved and will be applied. {why}")
            if not connection.in_atomic_block:
                connection.close()
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)


def _refusal(row: DnsRequest) -> DomainError:
    for error in (ConflictError, UpstreamError):
        if row.outcome == error.code:
            return error(row.message)
    return ClusterRejectedError(row.message)


def apply_dns(*, row_id: int) -> None:
    """Bring Secret and issuer to what was last asked for; quietly nothing when that is done. For workers."""
    with object_lock("platform-dns", row_id) as held:
        row = DnsRequest.objects.filter(pk=row_id, not_before__lte=timezone.now()).first() if held else None
        if row is None or row.observed_generation >= row.generation:
            return
        DnsRequest.objects.filter(pk=row.pk).update(attempts=F("attempts") + 1, not_before=timezone.now() + LEASE)
        try:
            _apply(row)
        except DomainError as exc:
            _ended(row, exc.code, exc.message)
        except (KubeTransientError, KubeConflictError) as exc:
            _put_off(row, exc.message)
        except KubeError as exc:
            _ended(row, ClusterRejectedError.code, exc.message)
        else:
            _ended(row, APPLIED, "")


def _apply(row: DnsRequest) -> None:
    client, resource = cluster_client(), dns.RESOURCES[row.kind]
    try:
        live = client.get(resource, row.name)
    except KubeTransientError as exc:
        if exc.status == 404:
            raise UpstreamError("The cluster has no cert-manager: it does not serve issuers.") from exc
        raise
    if live is not None and not dns.is_ours(live):
        raise ConflictError(f"There is {row.kind} {row.name} already, and OpenCrane has not made it.")
    if row.api_token:
        _, key = dns.TOKEN_PROVIDERS[row.provider]
        namespace = _secret_namespace(row.kind)
        try:
            apply_secret(name=dns.secret_name(row.provider), data={key: row.api_token}, namespace=namespace)
        except KubeTransientError as exc:
            if exc.status == 404:
                raise UpstreamError(f"The cluster has no namespace {namespace}; see CERT_MANAGER_NAMESPACE.") from exc
            raise
    manifest = dns.issuer_manifest(
        kind=row.kind,
        name=row.name,
        provider=row.provider,
        zone=row.zone,
        email=row.email,
        server=row.server,
        solver=row.solver_config,
    )
    client.apply(resource, manifest, force=True)


@transaction.atomic(durable=True)
def _ended(row: DnsRequest, outcome: str, message: str) -> None:
    """Note how a generation ended. Its token is not needed any more, unless a newer one has come meanwhile."""
    done = {"observed_generation": row.generation, "outcome": outcome, "message": message}
    if outcome == APPLIED and row.api_token:
        done["secret_of"] = row.provider
    is_newest = DnsRequest.objects.filter(pk=row.pk, generation=row.generation).update(**done, api_token="")
    if not is_newest:
        DnsRequest.objects.filter(pk=row.pk).update(observed_generation=row.generation, not_before=Now())
        enqueue_on_commit(TASK, str(row.pk))
    elif outcome != APPLIED:
        audit.record(action="platform_dns.rejected", resource=f"{row.kind}/{row.name}", message=message, actor=SYSTEM)


def _put_off(row: DnsRequest, why: str) -> None:
    seconds = min(MAX_DELAY_SECONDS, 2.0 ** min(row.attempts, 8)) * random.uniform(0.7, 1.0)  # noqa: S311
    log.warning("platform DNS put off", issuer=row.name, why=why, seconds=round(seconds))
    DnsRequest.objects.filter(pk=row.pk, generation=row.generation).update(
        not_before=timezone.now() + timedelta(seconds=seconds), message=why
    )
