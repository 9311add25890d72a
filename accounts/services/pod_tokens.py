"""Pod tokens: a person's way into their own tenant's gateway, by a token of the pod's ServiceAccount."""

import datetime
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.db import transaction

from accounts.errors import AmbiguousTenantError, NoTenantError, PodNotReadyError
from opencrane.actor import Actor
from opencrane.errors import DependencyUnavailableError, UpstreamError
from operations.services import audit
from tenants import selectors as tenants

log = structlog.get_logger(__name__)

LIFE_SECONDS = 600
REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PodToken:
    """A token for one tenant's pod; kept nowhere."""

    token: str = field(repr=False)
    expires_at: datetime.datetime
    tenant: str
    ingress_host: str
    audience: str


def issue_pod_token(*, email: str, actor: Actor) -> PodToken:
    """A token for the pod of the one tenant that has this e-mail address, ignoring case.

    Args:
        email: the session's verified address; nothing else finds the tenant.

    Raises:
        NoTenantError, AmbiguousTenantError: no tenant has it, or several have.
        PodNotReadyError: the tenant is suspended, has no address yet, or no ServiceAccount.
        DependencyUnavailableError, UpstreamError: Kubernetes does not answer, or not with a token.
    """
    # The Kubernetes client takes long to import; a web process that nobody asks for a pod token does without.
    from cluster.errors import KubeError, KubeTransientError
    from cluster.tokens import request_token
    from cluster.wait import waiting_slot
    from tenants.workloads import namespace_of, service_account_of

    found = tenants.tenants_with_email(email, limit=2) if email else []
    if not found:
        raise NoTenantError
    if len(found) > 1:
        raise AmbiguousTenantError(detail="An operator has to give each tenant an address of its own.")
    tenant = found[0]
    if tenant.suspended:
        raise PodNotReadyError("Your tenant is suspended.")
    if not tenant.ingress_host:
        raise PodNotReadyError(detail="It has no address yet; try again in a minute.")
    audience: str = settings.POD_AUDIENCE
    try:
        with waiting_slot() as taken:
            if not taken:
                raise _unavailable("Too many requests are waiting for Kubernetes already.")
            token, ends = request_token(
                namespace=namespace_of(tenant.cluster_tenant_ref),
                service_account=service_account_of(tenant.name),
                audience=audience,
                seconds=LIFE_SECONDS,
                timeout_seconds=REQUEST_SECONDS,
            )
    except KubeTransientError as exc:
        log.warning("no pod token", tenant=tenant.name, error=exc.message)
        if exc.unreachable:
            raise _unavailable("Kubernetes is not available.") from exc
        raise UpstreamError("Kubernetes gave no token.") from exc
    except KubeError as exc:
        log.warning("no pod token", tenant=tenant.name, error=exc.message)
        if exc.status == 404:
            raise PodNotReadyError(detail="It has no ServiceAccount yet; try again in a minute.") from exc
        raise UpstreamError("Kubernetes refused to give a token.") from exc
    with transaction.atomic(durable=True):
        audit.record(
            action="pod_token.issued",
            resource=f"Tenant/{tenant.name}",
            tenant=tenant.name,
            tenant_id=tenant.pk,
            message=f"Gave {actor.name} a token for the pod of {tenant.name}",
            after={"audience": audience, "expiresAt": ends.isoformat()},
            actor=actor,
        )
    return PodToken(token, ends, tenant.name, tenant.ingress_host, audience)


def _unavailable(message: str) -> DependencyUnavailableError:
    return DependencyUnavailableError(message, detail="Try again in a few seconds.", headers={"Retry-After": "5"})
